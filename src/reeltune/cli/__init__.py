"""The command line. Importing it doesn't import torch."""

from __future__ import annotations

import sys

__all__ = ["main"]

_INTERRUPTED = 130  # the exit code of programs that Ctrl-C has ended


def main(arguments: list[str] | None = None) -> None:
    """Run a command line, by default the one of this process. Ctrl-C ends it without a traceback at any time."""
    try:
        from reeltune.cli.app import main as run  # takes half a second, in which Ctrl-C may be pressed, too

        run(arguments)
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)
