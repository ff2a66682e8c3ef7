"""What commands print: tables and JSON on stdout, notices, progress and errors on stderr."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape

from reeltune._text import size as size
from reeltune.errors import ReeltuneError
from reeltune.events import CancelToken, Event, Notice, Planned, Progress

if TYPE_CHECKING:
    from rich.progress import TaskID

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)

_STAGES = {
    "download": "Fetching",
    "verify": "Checking",
    "quantize": "Quantizing",
    "load": "Loading",
    "encode": "Reading the prompt",
    "denoise": "Denoising",
    "decode": "Decoding",
    "write": "Writing",
}


def print_json(value: Any) -> None:
    """One JSON value, for programs."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    sys.stdout.write(text.encode("utf-8", "backslashreplace").decode("utf-8") + "\n")


def say(text: str) -> None:
    """One plain line, as it stands."""
    out.print(printable(text), markup=False)


def printable(text: str) -> str:
    """Text from strangers' files as a terminal can show it: no escapes, no halves of characters."""
    return "".join(
        sign if sign.isprintable() or sign in "\n\t" else sign.encode("unicode_escape").decode() for sign in text
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
        notice(
            f"To fetch: {size(event.to_fetch)} in {len(event.files)} file(s)"
            + (f", {size(here)} of them are here already" if here else "")
            + f"; {size(event.free)} free."
        )
        for file in event.files:
            err.print(f"    {size(file.bytes):>9}  {escape(printable(file.name))}")


@contextmanager
def showing() -> Iterator[Callable[[Event], None]]:
    """A listener that draws one bar per stage and prints notices above them."""
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    bars = Bars(
        TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[amount]}"), TimeElapsedColumn(),
        TextColumn("left"), TimeRemainingColumn(), console=err, transient=False,
    )  # fmt: skip
    running: dict[tuple[str, str], TaskID] = {}

    def listen(event: Event) -> None:
        if not isinstance(event, Progress):
            tell(event)
            return
        _draw(bars, running, event)

    with bars:
        yield listen


def _draw(bars: Any, running: dict[tuple[str, str], TaskID], event: Progress) -> None:
    key = (event.stage, event.subject)
    if key not in running or event.done == 0:
        label = _STAGES.get(event.stage, event.stage) + (f" {event.subject}" if event.subject else "")
        running[key] = bars.add_task(escape(label), total=event.total, amount="")
    amount = f"{event.done}/{event.total}"
    if event.unit == "bytes":
        speed = bars.tasks[running[key]].speed
        amount = f"{size(event.done)} of {size(event.total)}" + (f", {size(int(speed))}/s" if speed else "")
    bars.update(running[key], completed=event.done, total=event.total, amount=amount)
