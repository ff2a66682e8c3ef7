"""Progress bars on stderr: one line for each stage, which stays on the screen with the time that the stage took."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, Task, TaskID, TextColumn
from rich.progress import Progress as RichProgress
from rich.table import Column
from rich.text import Text

from reeltune._text import duration, shortened, size
from reeltune.cli.output import printable
from reeltune.events import Progress

_STAGES = {
    "download": "Downloading",
    "verify": "Checking",
    "quantize": "Quantizing",
    "sha256": "Hashing",
    "measure": "Measuring",
    "extract": "Extracting",
    "load": "Loading",
    "encode": "Encoding the prompt",
    "denoise": "Denoising",
    "decode": "Decoding",
    "write": "Writing",
    "upload": "Uploading",
}
_BAR_WIDTH = 20
_EXACT_SECONDS = 10  # shorter times are shown with a decimal
_MIN_LABEL_WIDTH = 20
_OTHER_COLUMNS_WIDTH = 44  # of the bar, the amount and the time


class _Time(ProgressColumn):
    """The remaining time of a stage, or the time that it took."""

    def render(self, task: Task) -> Text:
        if task.finished_time is not None:
            if task.finished_time < _EXACT_SECONDS:
                return Text(f"{task.finished_time:.1f} s")
            return Text(duration(task.finished_time))
        if task.time_remaining:
            return Text(f"{duration(task.time_remaining)} left")
        return Text("")


class Bars:
    """Draws progress events. Nothing is printed before the first one."""

    def __init__(self, console: Console) -> None:
        self._progress = RichProgress(
            TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis")),
            BarColumn(_BAR_WIDTH, table_column=Column(no_wrap=True, min_width=_BAR_WIDTH)),
            TextColumn("{task.fields[amount]}", table_column=Column(no_wrap=True)),
            _Time(table_column=Column(no_wrap=True)),
            console=console,
        )
        self._tasks: dict[tuple[str, str], TaskID] = {}

    def show(self, event: Progress) -> None:
        """Draw a progress event."""
        key = (event.stage, event.subject)
        if key not in self._tasks or event.done == 0:
            self._progress.start()
            self._tasks[key] = self._progress.add_task(self._label(event), total=event.total, amount="")
        task = self._tasks[key]
        self._progress.update(task, completed=event.done, total=event.total, amount=self._amount(event, task))

    def _label(self, event: Progress) -> str:
        """The stage and its file, short enough that the other columns have room."""
        label = f"{_STAGES.get(event.stage, event.stage.capitalize())} {event.subject}"
        label = printable(label.removesuffix(".safetensors").removesuffix(".gguf").rstrip())
        max_width = max(_MIN_LABEL_WIDTH, self._progress.console.width - _OTHER_COLUMNS_WIDTH)
        return shortened(label, max_width)

    def _amount(self, event: Progress, task: TaskID) -> str:
        if event.unit != "bytes":
            return f"{event.done}" if event.total is None else f"{event.done}/{event.total}"
        amount = f"{size(event.done)} of {size(event.total)}"
        speed = self._progress.tasks[task].speed
        if speed:
            amount += f", {size(int(speed))}/s"
        return amount

    def close(self) -> None:
        """Stop drawing. The last state stays on the screen."""
        if self._tasks:
            self._progress.stop()
