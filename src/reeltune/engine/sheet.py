"""The videos of a test sheet: every column with every row, model by model, so that each is loaded once.

A video that fails leaves a cell with the reason, and the others are made.
"""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from reeltune.definitions import Definition
from reeltune.engine.engine import Engine
from reeltune.engine.reporting import Reporter
from reeltune.errors import Cancelled, ReeltuneError
from reeltune.events import Batch, CancelToken, Listener, Notice, ignore
from reeltune.families.values import Settings
from reeltune.media.sheet import Cell, Frames, fitted
from reeltune.media.video import Video
from reeltune.preferences import Preferences

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SheetColumn:
    """What a column shows. `label`: as the user wrote it; `settings`: of every video in it."""

    label: str
    definition: Definition
    preferences: Preferences
    settings: Settings


@dataclass(frozen=True)
class SheetRow:
    """What a row shows: a prompt (None for each definition's own) and a seed."""

    prompt: str | None
    seed: int

    @property
    def label(self) -> str:
        """The text above the row."""
        return f"{self.prompt or 'each definition’s own prompt'}  (seed {self.seed})"


@dataclass(frozen=True)
class MadeCells:
    """`cells[row][column]`, the label of each column with its time, and how many cells failed."""

    cells: list[list[Cell]]
    labels: list[str]
    failed: int


def make_cells(
    columns: Sequence[SheetColumn],
    rows: Sequence[SheetRow],
    folder: Path,
    *,
    width: int,
    kind: str,
    keep: Callable[[Engine, Video], object] | None = None,
    listener: Listener = ignore,
    cancel: CancelToken | None = None,
) -> MadeCells:
    """Make all videos of a sheet.

    `folder`: for the scaled frames, which are read from there when the sheet is written; `width`: of a cell in pixels;
    `kind`: the ending of the sheet's file; `keep`: called with every video and the engine that made it. Raises
    Cancelled.
    """
    maker = _Maker(columns, rows, folder, width, kind, keep, listener, cancel or CancelToken())
    for group in _groups(columns):
        maker.make(group)
    return maker.result()


def _groups(columns: Sequence[SheetColumn]) -> list[list[int]]:
    """The numbers of the columns that share an engine, those of one model next to each other."""
    groups: list[list[int]] = []
    for number, column in enumerate(columns):
        group = next((group for group in groups if columns[group[0]].preferences == column.preferences), None)
        if group is None:
            groups.append([number])
        else:
            group.append(number)
    ids = [column.definition.id for column in columns]
    return [sorted(group, key=lambda number: (ids.index(ids[number]), number)) for group in groups]


class _Maker:
    def __init__(
        self,
        columns: Sequence[SheetColumn],
        rows: Sequence[SheetRow],
        folder: Path,
        width: int,
        kind: str,
        keep: Callable[[Engine, Video], object] | None,
        listener: Listener,
        cancel: CancelToken,
    ) -> None:
        self._columns, self._rows, self._folder, self._width, self._kind = columns, rows, folder, width, kind
        self._keep, self._cancel = keep, cancel
        self._listener = Reporter(listener).event  # each notice once, though engines repeat theirs with each video
        self._cells: dict[tuple[int, int], Cell] = {}
        self._seconds: dict[int, list[float]] = {number: [] for number in range(len(columns))}

    def make(self, group: Sequence[int]) -> None:
        """Make the columns that share an engine."""
        engine: Engine | None = None
        try:
            for number in group:
                column = self._columns[number]
                for row in range(len(self._rows)):
                    self._listener(Batch(len(self._cells) + 1, len(self._columns) * len(self._rows)))
                    try:
                        if engine is None:
                            engine = self._engine(column)
                        if engine.definition.id != column.definition.id:
                            engine.switch(column.definition)
                        self._make_cell(engine, row, number)
                    except Cancelled:
                        raise
                    except ReeltuneError as error:
                        self._fail(row, number, str(error))
                    except Exception as error:  # the boundary of a video: whatever it was, the others are made
                        _log.exception("A video of the sheet failed")
                        self._fail(row, number, f"{type(error).__name__}: {error}")
                        if engine is not None:  # what it has loaded may be damaged
                            engine.close()
                            engine = None
        finally:
            if engine is not None:
                engine.close()

    def _engine(self, column: SheetColumn) -> Engine:
        return Engine(column.definition, preferences=column.preferences, listener=self._listener)

    def _make_cell(self, engine: Engine, row: int, column: int) -> None:
        self._cancel.check()
        settings = {**self._columns[column].settings, "seed": self._rows[row].seed, "repeat_generation": 1}
        start = time.perf_counter()
        video = engine.generate(self._rows[row].prompt, cancel=self._cancel, **settings)
        seconds = time.perf_counter() - start
        self._seconds[column].append(seconds)
        if self._keep is not None:
            self._keep(engine, video)
        if video.sound is not None:
            self._listener(Notice("The sheet has no sound: its videos play at the same time."))
        frames = self._stored(fitted(video.frames, self._width, self._kind), row, column)
        self._cells[row, column] = Cell(_caption(video, seconds), frames, video.fps)

    def _stored(self, frames: Frames, row: int, column: int) -> Frames:
        """The frames in a file, mapped into memory: those of a large sheet don't fit into it."""
        path = self._folder / f"{row}_{column}.npy"
        np.save(path, frames)
        mapped: Frames = np.load(path, mmap_mode="r", allow_pickle=False)
        return mapped

    def _fail(self, row: int, column: int, reason: str) -> None:
        self._cells[row, column] = Cell(reason)
        self._listener(Notice(f"{self._columns[column].label}, {self._rows[row].label} failed: {reason}"))

    def result(self) -> MadeCells:
        """What was made."""
        cells = [[self._cells[row, column] for column in range(len(self._columns))] for row in range(len(self._rows))]
        labels = [column.label + _times(self._seconds[number]) for number, column in enumerate(self._columns)]
        failed = sum(cell.frames is None for row in cells for cell in row)
        return MadeCells(cells, labels, failed)


def _times(seconds: Sequence[float]) -> str:
    """The time of a video of a column. The first one, which loads the model, counts only if there is no other."""
    if not seconds:
        return ""
    if len(seconds) == 1:
        return f"  {seconds[0]:.1f} s with loading"
    return f"  {statistics.median(seconds[1:]):.1f} s a video"


def _caption(video: Video, seconds: float) -> str:
    """What is written below a video."""
    settings = video.origin.settings
    count, height, width = video.frames.shape[:3]
    parts = [f"{width}x{height}", f"{count} frames", f"{settings.get('num_inference_steps', '?')} steps"]
    files = ", ".join(name for name, _ in video.origin.files.values())
    return f"{seconds:.1f} s, {', '.join(parts)}; {files}"
