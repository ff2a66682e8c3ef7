"""Progress bars on stderr: a line for each stage, which stays with its time when the stage is done."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, ProgressColumn, Task, TaskID, TextColumn
from rich.progress import Progress as RichProgress
from rich.table import Column
from rich.text import Text

from reeltune._text import duration, size
from reeltune.cli.output import printable
from reeltune.events import Progress

_STAGES = {
    "download": "Downloading",
    "verify": "Checking",
    "quantize": "Quantizing",
    "load": "Loading",
    "encode": "Reading the prompt",
    "denoise": "Denoising",
    "decode": "Decoding",
    "write": "Writing",
}
_BAR_WIDTH = 20
_SHORTEST_LABEL = 20
_REST = 44  # columns that the bar, the amount and the time take


class _Time(ProgressColumn):
    """How long a stage still takes; once it is done, how long it took."""

    def render(self, task: Task) -> Text:
        if task.finished_time is not None:
            exact = task.finished_time < 10
            return Text(f"{task.finished_time:.1f} s" if exact else duration(task.finished_time))
        return Text(f"{duration(task.time_remaining)} left" if task.time_remaining else "")


class Bars:
    """Draws progress events; nothing is printed before the first one."""

    def __init__(self, console: Console) -> None:
        self._drawn = RichProgress(
            TextColumn("{task.description}", table_column=Column(no_wrap=True, overflow="ellipsis")),
            BarColumn(_BAR_WIDTH, table_column=Column(no_wrap=True, min_width=_BAR_WIDTH)),
            TextColumn("{task.fields[amount]}", table_column=Column(no_wrap=True)),
            _Time(table_column=Column(no_wrap=True)),
            console=console,
        )
        self._tasks: dict[tuple[str, str], TaskID] = {}

    def show(self, event: Progress) -> None:
        """Draw what an event reports."""
        key = (event.stage, event.subject)
        if key not in self._tasks or event.done == 0:
            self._drawn.start()
            self._tasks[key] = self._drawn.add_task(escape(self._label(event)), total=event.total, amount="")
        task = self._tasks[key]
        self._drawn.update(task, completed=event.done, total=event.total, amount=self._amount(event, task))

    def _label(self, event: Progress) -> str:
        """What is being done to which file, short enough that amounts and times have room beside it."""
        label = f"{_STAGES.get(event.stage, event.stage.capitalize())} {event.subject}"
        label = printable(label.removesuffix(".safetensors").rstrip())
        most = max(_SHORTEST_LABEL, self._drawn.console.width - _REST)
        return label if len(label) <= most else f"{label[: most - 1]}…"

    def _amount(self, event: Progress, task: TaskID) -> str:
        if event.unit != "bytes":
            return f"{event.done}" if event.total is None else f"{event.done}/{event.total}"
        speed = self._drawn.tasks[task].speed
        return f"{size(event.done)} of {size(event.total)}" + (f", {size(int(speed))}/s" if speed else "")

    def close(self) -> None:
        """Leave the last state on the screen."""
        if self._tasks:
            self._drawn.stop()
