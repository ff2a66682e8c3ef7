"""A whole LoRA file as edits of a model's parameters, and what of it was applied."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from reeltune.checkpoints.loras import LoraReport, Targets, fit_lora
from reeltune.errors import CheckpointError
from reeltune.settings.multipliers import MAX_WEIGHT
from reeltune.weights.edits import Edit
from reeltune.weights.lora.reading import ModuleReader
from reeltune.weights.lora.values import Values
from reeltune.weights.tensors import TensorFile

_LOW_NOISE = re.compile(r"(?<![a-z])low[_-]?noise|(?<=[_-])low(?=[_.-])", re.IGNORECASE)
Edits = dict[str, list[Edit]]  # by stored name


@dataclass(frozen=True)
class Applied:
    """A LoRA that was merged, its weight, and what of it fits."""

    weight: float
    report: LoraReport

    @property
    def name(self) -> str:
        """The name of the file."""
        return self.report.name

    @property
    def modules(self) -> int:
        """The number of modules that were applied."""
        return self.report.modules

    @property
    def total(self) -> int:
        """The number of modules in the file."""
        return self.report.total

    @property
    def left(self) -> tuple[str, ...]:
        """What doesn't fit the model."""
        return self.report.left

    def __str__(self) -> str:
        return f"{self.name} × {self.weight:g}: {self.report}"


def second_of_two(path: Path) -> bool:
    """Whether the name of a checkpoint says that it is the second of two transformers, the one for low noise."""
    return bool(_LOW_NOISE.search(path.name))


def read_edits(
    path: Path, weight: float, targets: Targets, values: Values, *, second: bool = False
) -> tuple[Edits, LoraReport]:
    """The edits that a LoRA makes with a weight, by stored name.

    `values`: the numbers of the model's parameters. `second`: whether the model is the second of two transformers.
    Raises LoraMismatch if nothing fits, UnsupportedFormat, CheckpointError.
    """
    if not abs(weight) <= MAX_WEIGHT:
        raise CheckpointError(f"Invalid weight {weight} for {path.name}.", hint="Give a number, such as 0.8.")
    file = TensorFile(path)
    fit = fit_lora(path, file.header, targets, second=second)
    edits: Edits = {}
    for module in fit.modules:
        for stored, edit in ModuleReader(file, module, weight, fit.adapter).edits(values):
            edits.setdefault(stored, []).append(edit)
    return edits, fit.report
