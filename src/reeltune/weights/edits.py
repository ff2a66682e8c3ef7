"""Changes to stored tensors, made row by row while they stream past: what LoRAs come to.

A tensor is seen as a matrix [rows, columns]: its first dimension by all others together. All is computed in fp32, to
the same bits however many rows are taken at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from reeltune.checkpoints.loras.targets import Segment

Change = Callable[[torch.Tensor, int], None]
Room = Callable[[int, int], torch.Tensor]  # rows, columns -> fp32 memory that may be overwritten
LEAST = 64  # rows that are multiplied at once: of fewer, BLAS sums in another order


class Delta(Protocol):
    """A matrix that is worked out some rows at a time."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""

    def part(self, rows: slice, scale: float, room: Room) -> torch.Tensor:
        """Some rows times `scale`, fp32; valid until `room` is used again."""


class RowEdit(Protocol):
    """A change of a stored tensor that is made some rows at a time."""

    def ready(self, room: Room) -> Change:
        """A function that changes a block fp32 [count, columns], which begins at a row of the stored tensor."""


@dataclass(frozen=True)
class Whole:
    """A matrix given as it is. `values` [rows, columns], any floating dtype."""

    values: torch.Tensor

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        rows, columns = self.values.shape
        return rows, columns

    def part(self, rows: slice, scale: float, room: Room) -> torch.Tensor:
        """Some rows times `scale`."""
        return self.values[rows].to(torch.float32) * scale


@dataclass(frozen=True)
class LowRank:
    """up @ down. `up` [rows, rank], `down` [rank, columns], any floating dtype."""

    up: torch.Tensor
    down: torch.Tensor

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.up.shape[0], self.down.shape[1]

    def part(self, rows: slice, scale: float, room: Room) -> torch.Tensor:
        """Some rows of (scale * up) @ down."""
        first = max(0, min(rows.start, len(self.up) - LEAST))  # short blocks are worked out with their neighbours
        last = min(len(self.up), max(rows.stop, first + LEAST))
        up = self.up[first:last].to(torch.float32) * scale
        down = self.down.to(torch.float32)
        product = torch.mm(up, down, out=room(len(up), down.shape[1]))  # fresh memory takes longer
        return product[rows.start - first : rows.stop - first]


@dataclass(frozen=True)
class Hadamard:
    """Two matrices multiplied element by element (LoHa)."""

    left: LowRank
    right: LowRank

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.left.shape

    def part(self, rows: slice, scale: float, room: Room) -> torch.Tensor:
        """Some rows times `scale`."""
        left = self.left.part(rows, scale, room).clone()  # the other product takes the same room
        return left.mul_(self.right.part(rows, 1.0, room))


@dataclass(frozen=True)
class Kronecker:
    """The Kronecker product of two matrices, fp32 (LoKr)."""

    left: torch.Tensor
    right: torch.Tensor

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.left.shape[0] * self.right.shape[0], self.left.shape[1] * self.right.shape[1]

    def part(self, rows: slice, scale: float, room: Room) -> torch.Tensor:
        """Some rows times `scale`."""
        height = self.right.shape[0]
        parts = []
        for index in range(rows.start // height, -(-rows.stop // height)):
            begin, end = max(rows.start - index * height, 0), min(rows.stop - index * height, height)
            parts.append(torch.kron(self.left[index : index + 1] * scale, self.right[begin:end]))
        return torch.cat(parts)


@dataclass(frozen=True)
class Edit:
    """A change of a stored tensor: `weight` times what `delta` times `scale` comes to.

    As it is, the delta is added. With `magnitude` [rows, 1] or [1, columns] (DoRA), the sum is brought to that length
    in every row, or in every column, whose lengths before are `lengths` [1, columns]. With `replaces`, the delta takes
    the place of what was there.
    """

    delta: Delta
    scale: float
    weight: float
    segments: Sequence[Segment]
    magnitude: torch.Tensor | None = None
    lengths: torch.Tensor | None = None
    replaces: bool = False

    def ready(self, room: Room) -> Change:
        """A function that changes a block fp32 [count, columns], which begins at a row of the stored tensor."""

        def change(block: torch.Tensor, first: int) -> None:
            for segment in self.segments:
                overlap = segment.overlap(first, len(block))
                if overlap is not None:
                    edit_rows, block_rows = overlap
                    self._change(block[block_rows], edit_rows, room)

        return change

    def _change(self, block: torch.Tensor, rows: slice, room: Room) -> None:
        if self.replaces:
            block.mul_(1 - self.weight).add_(self.delta.part(rows, self.weight, room))
        elif self.magnitude is None:
            block.add_(self.delta.part(rows, self.scale * self.weight, room))
        else:
            block.add_(self._decomposed(block, rows, room).sub_(block), alpha=self.weight)

    def _decomposed(self, block: torch.Tensor, rows: slice, room: Room) -> torch.Tensor:
        """DoRA: m * (W + delta) / |W + delta|, as in the paper (arXiv 2402.09353, equation 5)."""
        assert self.magnitude is not None
        merged = block + self.delta.part(rows, self.scale, room)
        if self.lengths is not None:
            return merged.mul_(self.magnitude / self.lengths)
        lengths = merged.norm(dim=1, keepdim=True).clamp_(min=torch.finfo(torch.float32).tiny)
        return merged.mul_(self.magnitude[rows] / lengths)
