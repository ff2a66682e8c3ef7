"""What commands print: tables and JSON on stdout, notices, progress and errors on stderr."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape

from reeltune._text import counted
from reeltune._text import size as size
from reeltune.errors import ReeltuneError
from reeltune.events import CancelToken, Event, Notice, Planned, Progress

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


def print_json(value: Any) -> None:
    """One JSON value, for programs."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    sys.stdout.write(text.encode("utf-8", "backslashreplace").decode("utf-8") + "\n")


def say(text: str) -> None:
    """Print one line without markup."""
    out.print(printable(text), markup=False)


def printable(text: str) -> str:
    """Text from strangers' files as a terminal can show it: control characters and lone surrogates are escaped."""
    return "".join(
        character if character.isprintable() or character in "\n\t" else character.encode("unicode_escape").decode()
        for character in text
    )


def notice(text: str) -> None:
    """Something the user should know, aside from the result."""
    err.print(f"[yellow]·[/] {escape(printable(text))}")


def print_error(error: ReeltuneError) -> None:
    """What, why, next step."""
    err.print(f"[red]Error:[/] {escape(printable(error.message))}")
    if error.hint:
        err.print(f"       {escape(printable(error.hint))}")


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A plain table that copies and greps well: one line a row, never folded."""
    lines = [tuple(columns), *(tuple(row) for row in rows)]
    widths = [max(len(line[index]) for line in lines) for index in range(len(columns))]
    text = ("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)
    sys.stdout.write("\n".join(printable(line.rstrip()) for line in text) + "\n")


@contextmanager
def interruptible() -> Iterator[CancelToken]:
    """A token that the first Ctrl-C cancels, so that work ends at its next step; a second one ends it at once."""
    cancel, previous = CancelToken(), signal.getsignal(signal.SIGINT)

    def stop(*_: object) -> None:
        cancel.cancel()
        signal.signal(signal.SIGINT, previous)

    signal.signal(signal.SIGINT, stop)
    try:
        yield cancel
    finally:
        signal.signal(signal.SIGINT, previous)


def tell(event: Event) -> None:
    """Print notices; for commands that show no progress."""
    if isinstance(event, Notice):
        notice(event.message)
    elif isinstance(event, Planned):
        here = sum(file.kept for file in event.files)
        part = f", {size(here)} of it here already" if here else ""
        files = counted(len(event.files), "file")
        notice(f"To download: {size(event.to_fetch)} in {files}{part}; {size(event.free)} free.")
        for file in event.files:
            err.print(f"    {size(file.bytes):>9}  {escape(printable(file.name))}")


@contextmanager
def showing() -> Iterator[Callable[[Event], None]]:
    """A listener that draws a bar for each stage, and prints notices above them."""
    from reeltune.cli.bars import Bars

    bars = Bars(err)

    def listen(event: Event) -> None:
        if isinstance(event, Progress):
            bars.show(event)
        else:
            tell(event)

    try:
        yield listen
    finally:
        bars.close()
