"""The rows of a model's weights in the order in which another model stores them, whatever the layouts of both are."""

from __future__ import annotations

import queue
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from reeltune._text import counted
from reeltune.checkpoints.loras.targets import Place
from reeltune.errors import TensorMismatch
from reeltune.weights.buffers import Buffers
from reeltune.weights.model_file import ModelFile
from reeltune.weights.recipe import Piece, Task

_SHOWN = 10


class Readers:
    """Buffers that threads read rows into. They are used again by other threads, and closed together."""

    def __init__(self) -> None:
        self._idle: queue.SimpleQueue[Buffers] = queue.SimpleQueue()
        self._all: list[Buffers] = []

    @contextmanager
    def borrowed(self) -> Iterator[Buffers]:
        """Buffers that nobody else uses meanwhile."""
        try:
            buffers = self._idle.get_nowait()
        except queue.Empty:
            buffers = Buffers(Path(), {}, {})  # nothing is written with them
            self._all.append(buffers)
        try:
            yield buffers
        finally:
            self._idle.put(buffers)

    def close(self) -> None:
        """Close every file."""
        for buffers in self._all:
            buffers.close()


@dataclass(frozen=True)
class _Part:
    """Rows of a stored tensor: `count` of them from `stored_row` on, which are the operand's from `row` on.

    `apart`: whether some of the rows can be decoded without the others.
    """

    task: Task
    row: int
    stored_row: int
    count: int
    apart: bool


class Operand:
    """A parameter of a model as a matrix [rows, columns], which is read some rows at a time."""

    def __init__(self, model: ModelFile, places: Iterable[Place], readers: Readers) -> None:
        self._readers = readers
        self._parts = [
            _Part(task, segment.edit_row, segment.stored_row, segment.count, task.rows_apart)
            for place in places
            for task in [model.tasks[place.stored]]
            for segment in place.segments
        ]

    def blocks(self, first: int, count: int) -> Iterator[tuple[slice, torch.Tensor]]:
        """The rows from `first` on, in any floating dtype, some at a time: [rows, columns].

        Each comes with its place among the `count` rows, and is overwritten by the next. Raises CheckpointError.
        """
        with self._readers.borrowed() as buffers:
            for part in self._parts:
                begin = max(first, part.row)
                end = min(first + count, part.row + part.count)
                if begin >= end:
                    continue
                stored = slice(begin - part.row + part.stored_row, end - part.row + part.stored_row)
                for rows, values in _stored_blocks(buffers, part, stored):
                    start = begin - first + rows.start
                    yield slice(start, start + len(values)), values

    def copy(self, first: int, block: torch.Tensor) -> None:
        """Fill `block` fp32 [count, columns] with the rows from `first` on."""
        for rows, values in self.blocks(first, len(block)):
            block[rows] = values


def _stored_blocks(buffers: Buffers, part: _Part, stored: slice) -> Iterator[tuple[slice, torch.Tensor]]:
    """Rows of a stored tensor, and their places counted from `stored.start`."""
    if part.apart:
        piece = Piece(part.task, stored.start, stored.stop - stored.start)
        yield from buffers.blocks(piece, buffers.source(piece))
        return
    piece = Piece(part.task, 0, part.task.matrix[0])
    for rows, values in buffers.blocks(piece, buffers.source(piece)):
        begin, end = max(rows.start, stored.start), min(rows.stop, stored.stop)
        if begin < end:
            yield slice(begin - stored.start, end - stored.start), values[begin - rows.start : end - rows.start]


def align(model: ModelFile, other: ModelFile, readers: Readers) -> Mapping[str, Operand]:
    """What `other` has for each stored tensor of `model`, by its stored name.

    Raises TensorMismatch, with the first ten of each kind, unless both have the same parameters in the same shapes.
    """
    missing, misshapen, operands = [], [], {}
    for stored, name in model.own_names.items():
        own, places = model.targets.find(name), other.targets.find(name)
        if not places:
            missing.append(name)
            continue
        shape, other_shape = model.targets.shape(own), other.targets.shape(places)
        if shape != other_shape:
            misshapen.append(f"{name} {list(other_shape)} instead of {list(shape)}")
            continue
        operands[stored] = Operand(other, places, readers)
    unexpected = [name for name in other.own_names.values() if not model.targets.find(name)]
    if missing or unexpected or misshapen:
        kinds = (("missing", missing), ("only there", unexpected), ("of another shape", misshapen))
        differences = "; ".join(_listed(label, names) for label, names in kinds if names)
        raise TensorMismatch(
            f"{other.path} doesn't have the tensors of {model.path}: {differences}.",
            missing=missing,
            unexpected=unexpected,
            misshapen=misshapen,
        )
    return operands


def _listed(label: str, names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return f"{counted(len(names), 'tensor')} {label} ({', '.join(names[:_SHOWN])}{more})"
