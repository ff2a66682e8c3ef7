"""The tensors of one module of a LoRA file as edits."""

from __future__ import annotations

import math
from pathlib import Path

import torch

from reeltune.checkpoints.loras.adapter import Adapter
from reeltune.checkpoints.loras.dialects import Part
from reeltune.checkpoints.loras.fitting import Change, FittingModule
from reeltune.checkpoints.loras.shapes import DOWNLOAD_AGAIN, LOKR, PAIR, ModuleShapes
from reeltune.errors import CheckpointError, UnsupportedFormat
from reeltune.weights.edits import Delta, Edit, Hadamard, Kronecker, LowRank, Whole
from reeltune.weights.lora.values import Values
from reeltune.weights.tensors import TensorFile

_REPLACED = (Part.SET, Part.SET_BIAS)
_CHECKED_AS_STORED = (torch.bfloat16, torch.float16, torch.float32, torch.float64)


def check_values(path: Path) -> None:
    """Read a LoRA file completely. Raises CheckpointError for NaN or infinity."""
    file = TensorFile(path)
    for name in file:
        values = file[name]
        if values.is_floating_point():
            _check_finite(values, f"{path.name}: {name}")
        file.release(name)


def _check_finite(values: torch.Tensor, place: str) -> None:
    numbers = values if values.dtype in _CHECKED_AS_STORED else values.to(torch.float32)
    if not bool(torch.isfinite(numbers).all()):
        raise CheckpointError(f"{place} contains NaN or infinity: the LoRA is damaged.", hint=DOWNLOAD_AGAIN)


class ModuleReader:
    """Reads the tensors of a module whose shapes fit the model."""

    def __init__(self, file: TensorFile, module: FittingModule, weight: float, adapter: Adapter) -> None:
        self._file, self._module, self._weight, self._adapter = file, module, weight, adapter
        self._place = f"{file.path.name}: {module.name or module.raw}"
        shapes = {part: file.header.tensors[key].shape for part, key in module.keys.items()}
        self._shapes = ModuleShapes(shapes, self._place)

    def edits(self, values: Values) -> list[tuple[str, Edit]]:
        """The edits, each with the name of the stored tensor that it changes.

        Raises CheckpointError for damaged values, UnsupportedFormat for data types that can't be read.
        """
        edits: list[tuple[str, Edit]] = []
        for change in self._module.changes:
            if change.part is Part.UP:
                edits += self._product(change, values)
            else:
                edits += self._whole(change)
        return edits

    def _whole(self, change: Change) -> list[tuple[str, Edit]]:
        """A difference that is added, or a weight that replaces the model's."""
        delta = Whole(self._matrix(change.part))
        scale = self._scale(self._rank()) if change.part is Part.UP_BIAS else 1.0
        replaces = change.part in _REPLACED
        return [
            (place.stored, Edit(delta, scale, self._weight, place.segments, replaces=replaces))
            for place in change.places
        ]

    def _product(self, change: Change, values: Values) -> list[tuple[str, Edit]]:
        """A pair of matrices, LoKr or LoHa, with or without a magnitude."""
        keys = self._module.keys
        rank: int | None
        if keys.keys() & PAIR:
            pair = self._low_rank(Part.UP, Part.DOWN)
            delta: Delta = pair
            rank = pair.down.shape[0]
        elif keys.keys() & LOKR:
            delta, rank = self._lokr()
        else:
            delta, rank = self._loha()
        scale = self._scale(rank)
        magnitude, lengths = None, None
        if Part.MAGNITUDE in keys:
            magnitude, lengths = self._magnitude(change, values, delta, scale)
        elif self._adapter.dora:
            message = f"{self._place} is described as DoRA, and its magnitude is missing."
            raise CheckpointError(message, hint=DOWNLOAD_AGAIN)
        return [
            (place.stored, Edit(delta, scale, self._weight, place.segments, magnitude, lengths))
            for place in change.places
        ]

    def _low_rank(self, up: Part, down: Part) -> LowRank:
        return LowRank(self._matrix(up), self._matrix(down))

    def _lokr(self) -> tuple[Delta, int | None]:
        left, left_rank = self._factor(Part.LOKR_W1, Part.LOKR_W1_A, Part.LOKR_W1_B, None)
        right, right_rank = self._factor(Part.LOKR_W2, Part.LOKR_W2_A, Part.LOKR_W2_B, Part.LOKR_T2)
        rank = right_rank or left_rank
        if rank is None and self._adapter.method == "LOKR":  # PEFT scales these too
            rank = self._adapter.rank
        return Kronecker(left, right), rank

    def _factor(self, whole: Part, up: Part, down: Part, core: Part | None) -> tuple[torch.Tensor, int | None]:
        """One factor of LoKr, fp32, and its rank if it is a product itself."""
        keys = self._module.keys
        if whole in keys:
            return self._matrix(whole).to(torch.float32), None
        rank = self._shapes.matrix(down)[0]
        if core is not None and core in keys:
            return self._tucker(core, up, down), rank
        return self._matrix(up).to(torch.float32) @ self._matrix(down).to(torch.float32), rank

    def _loha(self) -> tuple[Delta, int]:
        rank = self._shapes.matrix(Part.HADA_W1_B)[0]
        if Part.HADA_T1 not in self._module.keys:
            left = self._low_rank(Part.HADA_W1_A, Part.HADA_W1_B)
            return Hadamard(left, self._low_rank(Part.HADA_W2_A, Part.HADA_W2_B)), rank
        first = self._tucker(Part.HADA_T1, Part.HADA_W1_A, Part.HADA_W1_B)
        second = self._tucker(Part.HADA_T2, Part.HADA_W2_A, Part.HADA_W2_B)
        return Whole(first * second), rank

    def _tucker(self, core: Part, up: Part, down: Part) -> torch.Tensor:
        """A convolution's core [rank, rank, …] with its two matrices: fp32 [rows, columns and kernel together]."""
        tensors = [self._tensor(part).to(torch.float32) for part in (core, up, down)]
        whole = torch.einsum("ij...,ip,jr->pr...", *tensors)
        return whole.reshape(len(whole), -1)

    def _magnitude(
        self, change: Change, values: Values, delta: Delta, scale: float
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """DoRA's lengths, fp32: [rows, 1], or [1, columns] with those that the columns have once the delta is added."""
        rows, columns = change.shape
        magnitude = self._tensor(Part.MAGNITUDE).to(torch.float32)
        if self._shapes.magnitude_is_by_row(change.shape):
            return magnitude.reshape(rows, 1), None
        merged = values(change.places, change.shape)
        merged += delta.part(slice(0, rows), scale, torch.empty)
        lengths = merged.norm(dim=0, keepdim=True).clamp_(min=torch.finfo(torch.float32).tiny)
        return magnitude.reshape(1, columns), lengths

    def _scale(self, rank: int | None) -> float:
        """The factor of the matrices: alpha / rank; 1 if the file says nothing of it. Raises CheckpointError."""
        if rank is None:
            return 1.0
        if Part.ALPHA not in self._module.keys:
            return self._adapter.scale(self._adapter.alpha_of(self._module.raw), rank)
        values = self._file[self._module.keys[Part.ALPHA]]
        alpha = float(values.reshape(-1)[0]) if values.numel() == 1 else math.nan
        if not math.isfinite(alpha):
            raise CheckpointError(f"{self._place}: its alpha is not a number.", hint=DOWNLOAD_AGAIN)
        return alpha / rank

    def _rank(self) -> int | None:
        return self._shapes.matrix(Part.DOWN)[0] if Part.DOWN in self._module.keys else None

    def _matrix(self, part: Part) -> torch.Tensor:
        """A part as [rows, columns]: kernels flattened, vectors as columns."""
        return self._tensor(part).reshape(self._shapes.matrix(part))

    def _tensor(self, part: Part) -> torch.Tensor:
        """A part as it is stored. Raises UnsupportedFormat, and CheckpointError for NaN or infinity."""
        values = self._file[self._module.keys[part]]
        if not values.is_floating_point() or not values.numel():
            raise UnsupportedFormat(f"{self._place} is stored as {values.dtype} {list(values.shape)}.")
        _check_finite(values, self._place)
        return values
