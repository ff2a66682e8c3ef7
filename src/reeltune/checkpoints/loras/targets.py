"""Where the parameters that a LoRA changes are stored: the parameters of a model under every name they go by."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from reeltune.checkpoints.keys import Places, places
from reeltune.checkpoints.source import WeightSource
from reeltune.families import Family


@dataclass(frozen=True)
class Segment:
    """`count` rows of a LoRA's matrix, from `edit_row` on, and the rows of the stored tensor that they change."""

    edit_row: int
    stored_row: int
    count: int

    def overlap(self, first: int, count: int) -> tuple[slice, slice] | None:
        """The rows of the LoRA's matrix and of a block of `count` stored rows from `first` on that belong together."""
        begin, end = max(first, self.stored_row), min(first + count, self.stored_row + self.count)
        if begin >= end:
            return None
        shift = self.edit_row - self.stored_row
        return slice(begin + shift, end + shift), slice(begin - first, end - first)


@dataclass(frozen=True)
class Place:
    """A stored tensor, and which of its rows the rows of a parameter are."""

    stored: str
    segments: tuple[Segment, ...]


class Targets:
    """The stored tensors of a model under every name that a LoRA may call them by.

    `sources`: the file of a model, and those of its modules.
    """

    def __init__(self, family: Family, *sources: WeightSource) -> None:
        self.family = family
        self._places: dict[str, list[Place]] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        for source in sources:
            self._shapes |= {stored: source.weight_shape(stored) for stored in source.parameters()}
            if source.names.layout == "original":
                self._add_original(source)
            else:
                self._add_diffusers(source)

    def find(self, name: str) -> list[Place]:
        """The stored tensors that a parameter's name stands for, in the order of its rows; empty if there are none."""
        return self._places.get(name) or self._stack_of_parts(name)

    def shape(self, found: Sequence[Place]) -> tuple[int, int]:
        """The rows and columns of a parameter; all dimensions but the first count as columns."""
        rows = max(segment.edit_row + segment.count for place in found for segment in place.segments)
        return rows, self._columns(found[0].stored)

    def _stack_of_parts(self, name: str) -> list[Place]:
        """The tensors that other programs stack under a name, where the model's file has them apart."""
        targets = places(name, self.family, "original")
        parts = [self._places.get(part, []) for part in targets.names] if targets else []
        if len(parts) < 2 or not all(parts):
            return []
        stack, first = [], 0
        for part in parts:
            for place in part:
                moved = (replace(segment, edit_row=segment.edit_row + first) for segment in place.segments)
                stack.append(Place(place.stored, tuple(moved)))
            first += self.shape(part)[0]
        return stack

    def _add_original(self, source: WeightSource) -> None:
        """Tensors of the original layout: under their own names, and under diffusers' names of the rows they stack."""
        own_names = {source.format.weight_name(source.names.original[stored]): stored for stored in source.parameters()}
        for own, stored in own_names.items():
            rows = _rows(self._shapes[stored])
            targets = source.names.diffusers[stored]
            self._places[own] = [Place(stored, (Segment(0, 0, rows),))]
            names = [source.format.weight_name(name) for name in targets.names]
            if targets.swapped:
                self._places.setdefault(names[0], [Place(stored, _halves(rows))])
                continue
            weight = own_names.get(own.removesuffix(".bias") + ".weight", stored)  # of a bias, else of itself
            first = 0
            for name, count in zip(names, _stack(rows, self._columns(weight), len(names)), strict=True):
                self._places.setdefault(name, [Place(stored, (Segment(0, first, count),))])
                first += count

    def _add_diffusers(self, source: WeightSource) -> None:
        """Tensors of diffusers' layout: under their own names, and as rows of what the original layout stacks."""
        names = source.names
        own_tensors = {names.diffusers[stored].names[0]: stored for stored in source.parameters()}
        for stored in source.parameters():
            rows = _rows(self._shapes[stored])
            own, original = names.diffusers[stored].names[0], names.original[stored]
            stack = places(original, self.family, "original") or Places((own,))
            before = stack.names[: stack.names.index(own)]
            first = sum(_rows(self._shapes[own_tensors[name]]) for name in before if name in own_tensors)
            part = _halves(rows) if stack.swapped else (Segment(first, 0, rows),)
            name = source.format.weight_name(original)
            self._places.setdefault(name, []).append(Place(stored, part))
            self._places[source.format.weight_name(own)] = [Place(stored, (Segment(0, 0, rows),))]

    def _columns(self, stored: str) -> int:
        shape = self._shapes[stored]
        return math.prod(shape) // max(1, _rows(shape))


def _rows(shape: tuple[int, ...]) -> int:
    return shape[0] if shape else 1


def _stack(rows: int, columns: int, parts: int) -> list[int]:
    """The number of rows of each part of stacked matrices.

    All parts but the last have as many rows as columns: q, k and v, before the input of the feed-forward.
    """
    count = min(columns, rows // parts)
    return [*[count] * (parts - 1), rows - count * (parts - 1)]


def _halves(rows: int) -> tuple[Segment, ...]:
    """The lower half of the rows before the upper one."""
    half = rows // 2
    return Segment(0, half, half), Segment(half, 0, rows - half)
