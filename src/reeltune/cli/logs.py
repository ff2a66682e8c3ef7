"""The program's log in the terminal: what is done for the page, job by job, on stderr."""

from __future__ import annotations

import logging
from time import localtime, strftime

from rich.markup import escape

from reeltune.cli.output import err, printable

_LOGGER = "reeltune"
_COLOURS = {logging.ERROR: "red", logging.WARNING: "yellow", logging.DEBUG: "dim"}


class TerminalHandler(logging.Handler):
    """Prints a line for each record: the time, and the message with nothing in it that a terminal would obey."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record; one that can't be printed is reported by the logging module."""
        try:
            text = escape(printable(self.format(record)))
            colour = _COLOURS.get(record.levelno)
            line = f"[{colour}]{text}[/]" if colour else text
            err.print(f"[dim]{strftime('%H:%M:%S', localtime(record.created))}[/] {line}")
        except Exception:  # as every handler of the logging module does
            self.handleError(record)


def show_log(*, quiet: bool = False, verbose: bool = False) -> None:
    """Print the program's log: errors only where `quiet`, each step where `verbose`."""
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
