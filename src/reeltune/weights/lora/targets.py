"""Where the modules that a LoRA changes are stored: the parameters of a checkpoint under every name they go by."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from reeltune.checkpoints.keys import Places, places
from reeltune.families import Family
from reeltune.weights.edits import Segment
from reeltune.weights.formats import decoder_of
from reeltune.weights.matching import Shapes, WeightSource
from reeltune.weights.tensors import TensorFile


@dataclass(frozen=True)
class Place:
    """A stored tensor, and which of its rows a parameter's rows are."""

    stored: str
    segments: tuple[Segment, ...]


class Targets:
    """The stored tensors of a checkpoint under every name that a LoRA may call them by.

    `expected`: shapes of the model's parameters in diffusers' names, where they are known; rows that the original
    keeps stacked are told apart by them. `homes`: the file of each stored tensor.
    """

    def __init__(self, source: WeightSource, family: Family, expected: Shapes, homes: Mapping[str, Path]) -> None:
        self.family = family
        self._source, self._expected, self._homes = source, expected, homes
        self._places: dict[str, list[Place]] = {}
        self._own = {source.names.diffusers[stored].names[0]: stored for stored in source.parameters()}
        self._files: dict[Path, TensorFile] = {}
        for stored in source.parameters():
            if source.names.layout == "original":
                self._add_original(stored)
            else:
                self._add_diffusers(stored)

    def find(self, name: str) -> list[Place]:
        """Stored tensors that a parameter's name stands for, in the order of its rows; empty where there are none."""
        return self._places.get(name, [])

    def shape(self, parts: Sequence[Place]) -> tuple[int, int]:
        """Rows and columns of a parameter, its dimensions but the first taken together."""
        rows = max(segment.edit_row + segment.count for place in parts for segment in place.segments)
        stored = self._source.weight_shape(parts[0].stored)
        return rows, math.prod(stored) // max(1, _rows(stored))

    def values(self, parts: Sequence[Place]) -> torch.Tensor:
        """A parameter as it is stored, fp32 [rows, columns]."""
        values = torch.empty(self.shape(parts))
        for place in parts:
            matrix = self._matrix(place.stored)
            for segment in place.segments:
                rows = slice(segment.stored_row, segment.stored_row + segment.count)
                values[segment.edit_row : segment.edit_row + segment.count] = matrix[rows]
        return values

    def _matrix(self, stored: str) -> torch.Tensor:
        home = self._homes[stored]
        if home not in self._files:
            self._files[home] = TensorFile(home)
        decoder = decoder_of(self._source.identity.quantization)
        weight = decoder.read(self._files[home], self._source.stored_weight(stored))
        tensor = weight.decoded(torch.float32)
        return tensor.reshape(_rows(tuple(tensor.shape)), -1)

    def _add_original(self, stored: str) -> None:
        """A tensor of the original layout: its own name, and diffusers' for the rows it holds stacked."""
        rows = self._rows_of(stored)
        targets = self._source.names.diffusers[stored]
        own = self._weight_name(self._source.names.original[stored])
        self._places[own] = [Place(stored, (Segment(0, 0, rows),))]
        offset = 0
        for name in map(self._weight_name, targets.names):
            count = rows if len(targets.names) == 1 else _rows(self._expected.get(name, (0,)))
            part = _halves(rows) if targets.swapped else (Segment(0, offset, count),)
            self._places.setdefault(name, [Place(stored, part)])
            offset += count

    def _add_diffusers(self, stored: str) -> None:
        """A tensor of diffusers' layout: its own name, and its rows of what the original stacks."""
        rows, names = self._rows_of(stored), self._source.names
        own, original = names.diffusers[stored].names[0], names.original[stored]
        stack = places(original, self.family, "original") or Places((own,))
        before = stack.names[: stack.names.index(own)]
        offset = sum(self._rows_of(self._own[name]) for name in before if name in self._own)
        part = _halves(rows) if stack.swapped else (Segment(offset, 0, rows),)
        self._places.setdefault(self._weight_name(original), []).append(Place(stored, part))
        self._places[self._weight_name(own)] = [Place(stored, (Segment(0, 0, rows),))]

    def _rows_of(self, stored: str) -> int:
        return _rows(self._source.weight_shape(stored))

    def _weight_name(self, name: str) -> str:
        return self._source.format.weight_name(name)


def _rows(shape: tuple[int, ...]) -> int:
    return shape[0] if shape else 1


def _halves(rows: int) -> tuple[Segment, ...]:
    """The lower half of the rows before the upper one."""
    half = rows // 2
    return Segment(0, half, half), Segment(half, 0, rows - half)
