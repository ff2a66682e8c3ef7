"""The log of the web page's server on stderr."""

from __future__ import annotations

import logging
from time import localtime, strftime

from rich.markup import escape

from reeltune.cli.output import err, printable

_LOGGER = "reeltune"
_COLORS = {logging.ERROR: "red", logging.WARNING: "yellow", logging.DEBUG: "dim"}


class TerminalHandler(logging.Handler):
    """Prints a line for each record: the time, and the message with control characters escaped."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record. Errors while printing are handled by the logging module."""
        try:
            text = escape(printable(self.format(record)))
            color = _COLORS.get(record.levelno)
            line = f"[{color}]{text}[/]" if color else text
            err.print(f"[dim]{strftime('%H:%M:%S', localtime(record.created))}[/] {line}")
        except Exception:  # like the handlers of the logging module
            self.handleError(record)


def show_log(*, quiet: bool = False, verbose: bool = False) -> None:
    """Print the log: only errors if `quiet`, every step if `verbose`."""
    logger = logging.getLogger(_LOGGER)
    for handler in [handler for handler in logger.handlers if isinstance(handler, TerminalHandler)]:
        logger.removeHandler(handler)
    level = logging.INFO
    if quiet:
        level = logging.ERROR
    elif verbose:
        level = logging.DEBUG
    logger.addHandler(TerminalHandler(level))
    logger.setLevel(level)
    logger.propagate = False
