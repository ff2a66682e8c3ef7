"""The output of commands: tables and JSON on stdout; notices, progress and errors on stderr."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape

from reeltune._text import counted
from reeltune._text import size as size
from reeltune.errors import ReeltuneError
from reeltune.events import CancelToken, Event, Notice, Planned, Progress

# Paths and prompts may contain names of emoji, such as `:star:`, which must not be replaced.
out = Console(highlight=False, soft_wrap=True, emoji=False)
err = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)


def print_json(value: object) -> None:
    """Print a JSON value on stdout."""
    print_json_text(json.dumps(value, indent=2, ensure_ascii=False))


def print_json_text(text: str) -> None:
    """Print a JSON text on stdout. Characters that can't be shown there are escaped as JSON escapes them."""
    _write("".join(character if _can_show(character) else json.dumps(character)[1:-1] for character in text))


def print_line(text: str) -> None:
    """Print a text on stdout, without markup."""
    _write(printable(text))


def _write(text: str) -> None:
    """Write lines to stdout at once, also where it is a pipe. Characters that its encoding lacks are escaped."""
    encoding = _encoding()
    sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")
    sys.stdout.flush()


def _can_show(character: str) -> bool:
    if not (character.isprintable() or character in "\n\t"):
        return False
    try:
        character.encode(_encoding())
    except UnicodeEncodeError:
        return False
    return True


def _encoding() -> str:
    """The encoding of stdout, which is the system's where it isn't a terminal."""
    return sys.stdout.encoding or "utf-8"


def printable(text: str) -> str:
    """A text that a terminal can show safely: control characters and lone surrogates are escaped."""
    return "".join(_printable_character(character) for character in text)


def _printable_character(character: str) -> str:
    if character.isprintable() or character in "\n\t":
        return character
    return character.encode("unicode_escape").decode()


def print_notice(text: str) -> None:
    """Print something the user should know on stderr."""
    err.print(f"[yellow]·[/] {escape(printable(text))}")


def print_error(error: ReeltuneError) -> None:
    """Print the message of an error and its hint on stderr."""
    err.print(f"[red]Error:[/] {escape(printable(error.message))}")
    if error.hint:
        err.print(f"       {escape(printable(error.hint))}")


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a plain table that is easy to copy and grep: one line per row, never wrapped."""
    lines = [tuple(columns)]
    lines += [tuple(row) for row in rows]
    widths = [max(len(line[index]) for line in lines) for index in range(len(columns))]
    rows_of_text = []
    for line in lines:
        cells = [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]
        rows_of_text.append(printable("  ".join(cells).rstrip()))
    _write("\n".join(rows_of_text))


@contextmanager
def interruptible() -> Iterator[CancelToken]:
    """A token that Ctrl-C cancels, so that work stops at its next step. A second Ctrl-C stops it at once."""
    cancel = CancelToken()
    previous = signal.getsignal(signal.SIGINT)

    def stop(*_: object) -> None:
        cancel.cancel()
        signal.signal(signal.SIGINT, signal.default_int_handler)  # `previous` may ignore it, as in background jobs

    signal.signal(signal.SIGINT, stop)
    try:
        yield cancel
    finally:
        signal.signal(signal.SIGINT, previous)


def print_event(event: Event) -> None:
    """A listener that prints notices and planned downloads, for commands that show no progress."""
    if isinstance(event, Notice):
        print_notice(event.message)
    elif isinstance(event, Planned):
        _print_planned(event)


def _print_planned(event: Planned) -> None:
    """Print the size of a download, and one line for each file."""
    text = f"To download: {size(event.to_fetch)} in {counted(len(event.files), 'file')}"
    already_present = sum(file.kept for file in event.files)
    if already_present:
        text += f" ({size(already_present)} of it downloaded already)"
    print_notice(f"{text}; {size(event.free)} free.")
    for file in event.files:
        err.print(f"    {size(file.bytes):>9}  {escape(printable(file.name))}")


@contextmanager
def progress_display() -> Iterator[Callable[[Event], None]]:
    """A listener that draws a progress bar for each stage, and prints notices above them."""
    from reeltune.cli.bars import Bars

    bars = Bars(err)

    def listen(event: Event) -> None:
        if isinstance(event, Progress):
            bars.show(event)
        else:
            print_event(event)

    try:
        yield listen
    finally:
        bars.close()
