"""Changes to stored tensors, added row by row while they stream past: what LoRAs come to.

A tensor is seen as a matrix [rows, columns]: its first dimension by all others together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Segment:
    """Rows of an edit and the rows of the stored tensor that they change."""

    theirs: int
    ours: int
    count: int

    def overlap(self, first: int, count: int) -> tuple[slice, slice] | None:
        """Rows of the edit, and of a block of `count` stored rows from `first` on, that meet."""
        begin, end = max(first, self.ours), min(first + count, self.ours + self.count)
        if begin >= end:
            return None
        shift = self.theirs - self.ours
        return slice(begin + shift, end + shift), slice(begin - first, end - first)


_LEAST = 64  # rows that are multiplied at once: of fewer, BLAS sums in another order


@dataclass(frozen=True)
class LowRank:
    """Adds (scale * up) @ down, in fp32, the same bits however many rows are taken at once.

    `up` [rows, rank], `down` [rank, columns], any floating dtype.
    """

    up: torch.Tensor
    down: torch.Tensor
    scale: float
    segments: Sequence[Segment]

    def add(self, block: torch.Tensor, first: int) -> None:
        """Add to `block` fp32 [count, columns], which begins at row `first` of the stored tensor."""
        for segment in self.segments:
            if (rows := segment.overlap(first, len(block))) is not None:
                block[rows[1]].add_(self._product(rows[0]))

    def _product(self, rows: slice) -> torch.Tensor:
        first = max(0, min(rows.start, len(self.up) - _LEAST))  # short blocks are worked out with their neighbours
        last = min(len(self.up), max(rows.stop, first + _LEAST))
        product = (self.up[first:last].to(torch.float32) * self.scale) @ self.down.to(torch.float32)
        return product[rows.start - first : rows.stop - first]


@dataclass(frozen=True)
class Difference:
    """Adds scale * values. `values` [rows, columns], any floating dtype."""

    values: torch.Tensor
    scale: float
    segments: Sequence[Segment]

    def add(self, block: torch.Tensor, first: int) -> None:
        """Add to `block` fp32 [count, columns], which begins at row `first` of the stored tensor."""
        for segment in self.segments:
            if (rows := segment.overlap(first, len(block))) is not None:
                block[rows[1]].add_(self.values[rows[0]].to(torch.float32), alpha=self.scale)


Edit = LowRank | Difference
