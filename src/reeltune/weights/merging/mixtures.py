"""Merged rows, computed from those of the first model, which stream past, and the same rows of the others.

All is computed in fp32, value by value, so that the result doesn't depend on how many rows are taken at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from reeltune.weights.edits import Change, Room
from reeltune.weights.merging.rows import Operand


@dataclass(frozen=True)
class Sum:
    """A weighted sum: of the first model times `factor`, and the others times theirs."""

    factor: float
    others: Sequence[tuple[Operand, float]]

    def ready(self, room: Room) -> Change:
        """A function that changes rows of the first model into merged ones."""

        def change(block: torch.Tensor, first: int) -> None:
            block.mul_(self.factor)
            for operand, factor in self.others:
                for rows, values in operand.blocks(first, len(block)):
                    block[rows].add_(values, alpha=factor)

        return change


@dataclass(frozen=True)
class Ties:
    """The mean of those differences from the base model that agree in their sign.

    The differences D_i = W_i - C are trimmed: those that are smaller than the threshold of their tensor count as 0.
    The sign of sum(w_i D_i) is elected. The merged weight is C + sum(w_i D_i) / sum(w_i), over those i whose D_i has
    the elected sign (arXiv 2306.01708, section 3; the weights as in arcee-ai/mergekit).

    `thresholds`: the smallest magnitude that is kept of each model; `weights`: all above 0; `others`: all models but
    the first.
    """

    base: Operand
    others: Sequence[Operand]
    weights: Sequence[float]
    thresholds: Sequence[float]

    def ready(self, room: Room) -> Change:
        """A function that changes rows of the first model into merged ones."""

        def change(block: torch.Tensor, first: int) -> None:
            base = torch.empty_like(block)
            self.base.copy(first, base)
            differences = [block.sub_(base)]
            for operand in self.others:
                difference = torch.empty_like(block)
                operand.copy(first, difference)
                differences.append(difference.sub_(base))
            for difference, threshold in zip(differences, self.thresholds, strict=True):
                difference.masked_fill_(difference.abs() < threshold, 0)
            block.copy_(self._mean(differences)).add_(base)

        return change

    def _mean(self, differences: Sequence[torch.Tensor]) -> torch.Tensor:
        """The mean of the trimmed differences [rows, columns] that have the elected sign; 0 where there is none."""
        total = torch.zeros_like(differences[0])
        for difference, weight in zip(differences, self.weights, strict=True):
            total.add_(difference, alpha=weight)
        elected = total.sign()
        total.zero_()
        weights = torch.zeros_like(total)
        for difference, weight in zip(differences, self.weights, strict=True):
            agrees = difference * elected > 0
            total.add_(difference.where(agrees, 0), alpha=weight)
            weights.add_(agrees, alpha=weight)
        return total.div_(weights.masked_fill_(weights == 0, 1))
