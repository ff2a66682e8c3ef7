"""One module's tensors of a LoRA file, checked and turned into edits."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from reeltune.errors import CheckpointError, UnsupportedFormat
from reeltune.weights.edits import Delta, Edit, Hadamard, Kronecker, LowRank, Whole
from reeltune.weights.lora.adapter import Adapter
from reeltune.weights.lora.dialects import Part
from reeltune.weights.lora.targets import Place, Targets
from reeltune.weights.tensors import TensorFile

_AGAIN = "Download it again."
_MOST_RANK = 16_384
_Shape = tuple[int, int]
_Build = Callable[[Targets, list[Place]], list[tuple[str, Edit]]]


class DoesNotFit(Exception):
    """A part whose shape isn't that of the model's parameter; the text holds both."""


@dataclass(frozen=True)
class Unfit:
    """A part that changes nothing. `label`: empty for the matrices; `detail`: the shapes, where these differ."""

    label: str
    detail: str = ""


@dataclass(frozen=True)
class ModuleParts:
    """One module of a file: its name there, its name in the family's words, and the key of each of its parts."""

    raw: str
    name: str
    keys: Mapping[Part, str]


class Reader:
    """Turns a module's parts into edits of stored tensors."""

    def __init__(self, file: TensorFile, module: ModuleParts, weight: float, adapter: Adapter) -> None:
        self._file, self._module, self._weight, self._adapter = file, module, weight, adapter

    def edits(self, targets: Targets) -> tuple[list[tuple[str, Edit]], list[Unfit]]:
        """The edits by stored name, and every part that the model has no place for.

        Raises CheckpointError or UnsupportedFormat for parts that are damaged or incomplete.
        """
        edits: list[tuple[str, Edit]] = []
        left: list[Unfit] = []
        for label, ending, build in self._plans():
            places = targets.find(self._module.name + ending)
            if not places and label in (Part.DIFF, Part.SET):  # of a parameter that is no module's, such as modulation
                places = targets.find(self._module.name)
            if not places:
                left.append(Unfit(label))
                continue
            try:
                edits += build(targets, places)
            except DoesNotFit as error:
                left.append(Unfit(label, str(error)))
        return edits, left

    def _plans(self) -> list[tuple[str, str, _Build]]:
        """What there is to do: its label, the ending of the parameter, and how."""
        keys = self._module.keys
        plans: list[tuple[str, str, _Build]] = []
        if keys.keys() & (_PAIR | _LOKR | _LOHA):
            plans.append(("", ".weight", self._low_rank))
        elif Part.MAGNITUDE in keys:
            raise CheckpointError(f"{self._place} has a DoRA magnitude without its matrices.", hint=_AGAIN)
        for part, ending in ((Part.DIFF, ".weight"), (Part.DIFF_BIAS, ".bias"), (Part.UP_BIAS, ".bias")):
            if part in keys:
                plans.append((part, ending, self._added(part)))
        for part, ending in ((Part.SET, ".weight"), (Part.SET_BIAS, ".bias")):
            if part in keys:
                plans.append((part, ending, self._replaced(part)))
        return plans

    # --- kinds of changes -----------------------------------------------------------------------------------

    def _low_rank(self, targets: Targets, places: list[Place]) -> list[tuple[str, Edit]]:
        """A pair of matrices, LoKr or LoHa, with or without a magnitude."""
        keys = self._module.keys
        shape = targets.shape(places)
        rank: int | None
        if keys.keys() & _PAIR:
            delta, rank = self._pair(shape)
        elif keys.keys() & _LOKR:
            delta, rank = self._lokr(shape)
        else:
            delta, rank = self._loha(shape)
        scale = self._scale(rank)
        magnitude, lengths = None, None
        if Part.MAGNITUDE in keys:
            magnitude, lengths = self._magnitude(targets, places, delta, scale)
        elif self._adapter.dora:
            raise CheckpointError(f"{self._place} is described as DoRA, and its magnitude is missing.", hint=_AGAIN)
        edits = []
        for place in places:
            edits.append((place.stored, Edit(delta, scale, self._weight, place.segments, magnitude, lengths)))
        return edits

    def _added(self, part: Part) -> _Build:
        def build(targets: Targets, places: list[Place]) -> list[tuple[str, Edit]]:
            delta = self._whole(part, targets.shape(places))
            scale = self._scale(self._rank()) if part == Part.UP_BIAS else 1.0
            return [(place.stored, Edit(delta, scale, self._weight, place.segments)) for place in places]

        return build

    def _replaced(self, part: Part) -> _Build:
        def build(targets: Targets, places: list[Place]) -> list[tuple[str, Edit]]:
            delta = self._whole(part, targets.shape(places))
            return [(place.stored, Edit(delta, 1.0, self._weight, place.segments, replaces=True)) for place in places]

        return build

    # --- matrices -------------------------------------------------------------------------------------------

    def _pair(self, shape: _Shape) -> tuple[Delta, int]:
        up, down = self._needed(Part.UP, Part.DOWN)
        delta = self._product(up, down, shape)
        return delta, delta.down.shape[0]

    def _product(self, up: Part, down: Part, shape: _Shape) -> LowRank:
        """Two matrices to be multiplied. Raises DoesNotFit before anything is read."""
        (rows, rank), (low_rank, columns) = self._shape(up), self._shape(down)
        if rank != low_rank:
            raise CheckpointError(f"{self._place}: its matrices don't fit each other.", hint=_AGAIN)
        self._check_rank(rank)
        _check_shape((rows, columns), shape)
        return LowRank(self._matrix(up), self._matrix(down))

    def _lokr(self, shape: _Shape) -> tuple[Delta, int | None]:
        left, left_rank = self._factor(Part.LOKR_W1, Part.LOKR_W1_A, Part.LOKR_W1_B, None, shape)
        right, right_rank = self._factor(Part.LOKR_W2, Part.LOKR_W2_A, Part.LOKR_W2_B, Part.LOKR_T2, shape)
        delta = Kronecker(left, right)
        _check_shape(delta.shape, shape)
        rank = right_rank or left_rank
        if rank is None and self._adapter.method == "LOKR":  # PEFT scales these too
            rank = self._adapter.rank
        return delta, rank

    def _factor(
        self, whole: Part, up: Part, down: Part, core: Part | None, shape: _Shape
    ) -> tuple[torch.Tensor, int | None]:
        """One factor of LoKr, fp32, and its rank where it is a product itself."""
        if whole in self._module.keys:
            _check_divides(self._shape(whole), shape)
            return self._matrix(whole).to(torch.float32), None
        self._needed(up, down)
        (rows, rank), (_, columns) = self._shape(up), self._shape(down)
        self._check_rank(rank)
        if core is not None and core in self._module.keys:
            return self._tucker(core, up, down, shape), self._shape(down)[0]
        _check_divides((rows, columns), shape)
        if rank != self._shape(down)[0]:
            raise CheckpointError(f"{self._place}: its matrices don't fit each other.", hint=_AGAIN)
        return self._matrix(up).to(torch.float32) @ self._matrix(down).to(torch.float32), rank

    def _loha(self, shape: _Shape) -> tuple[Delta, int]:
        keys = self._module.keys
        self._needed(Part.HADA_W1_A, Part.HADA_W1_B, Part.HADA_W2_A, Part.HADA_W2_B)
        rank = self._shape(Part.HADA_W1_B)[0]
        if Part.HADA_T1 not in keys and Part.HADA_T2 not in keys:
            left = self._product(Part.HADA_W1_A, Part.HADA_W1_B, shape)
            return Hadamard(left, self._product(Part.HADA_W2_A, Part.HADA_W2_B, shape)), rank
        self._needed(Part.HADA_T1, Part.HADA_T2)
        first = self._tucker(Part.HADA_T1, Part.HADA_W1_A, Part.HADA_W1_B, shape)
        second = self._tucker(Part.HADA_T2, Part.HADA_W2_A, Part.HADA_W2_B, shape)
        if first.shape != second.shape:
            raise CheckpointError(f"{self._place}: its matrices don't fit each other.", hint=_AGAIN)
        delta = Whole(first * second)
        _check_shape(delta.shape, shape)
        return delta, rank

    def _tucker(self, core: Part, up: Part, down: Part, shape: _Shape) -> torch.Tensor:
        """A convolution's core [rank, rank, …] with its two matrices: fp32 [rows, columns and kernel together]."""
        tensors = [self._tensor(part) for part in (core, up, down)]
        try:
            on_meta = torch.einsum("ij...,ip,jr->pr...", *(tensor.to("meta") for tensor in tensors))
        except RuntimeError as error:
            raise CheckpointError(f"{self._place}: its matrices don't fit each other.", hint=_AGAIN) from error
        _check_divides((on_meta.shape[0], on_meta[0].numel()), shape)
        whole = torch.einsum("ij...,ip,jr->pr...", *(tensor.to(torch.float32) for tensor in tensors))
        return whole.reshape(len(whole), -1)

    def _magnitude(
        self, targets: Targets, places: list[Place], delta: Delta, scale: float
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """DoRA's lengths, fp32: [rows, 1], or [1, columns] with those the columns have once the delta is added."""
        rows, columns = targets.shape(places)
        values = self._tensor(Part.MAGNITUDE).to(torch.float32)
        by_row = values.numel() == rows and (values.ndim < 2 or values.shape[0] == rows)
        if by_row:
            return values.reshape(rows, 1), None
        if values.numel() != columns:
            raise DoesNotFit(f"of shape {list(values.shape)}, here [{rows}] or [1, {columns}]")
        merged = targets.values(places)
        merged += delta.part(slice(0, rows), scale, torch.empty)
        lengths = merged.norm(dim=0, keepdim=True).clamp_(min=torch.finfo(torch.float32).tiny)
        return values.reshape(1, columns), lengths

    # --- tensors --------------------------------------------------------------------------------------------

    def _scale(self, rank: int | None) -> float:
        """What the matrices count: alpha / rank, 1 where nothing tells it. Raises CheckpointError."""
        if rank is None:
            return 1.0
        if Part.ALPHA not in self._module.keys:
            return self._adapter.scale(self._adapter.alpha_of(self._module.raw), rank)
        values = self._file[self._module.keys[Part.ALPHA]]
        alpha = float(values.reshape(-1)[0]) if values.numel() == 1 else math.nan
        if not math.isfinite(alpha):
            raise CheckpointError(f"{self._place}: its alpha is not a number.", hint=_AGAIN)
        return alpha / rank

    def _rank(self) -> int | None:
        return self._shape(Part.DOWN)[0] if Part.DOWN in self._module.keys else None

    def _whole(self, part: Part, shape: _Shape) -> Whole:
        _check_shape(self._shape(part), shape)
        return Whole(self._matrix(part))

    def _needed(self, *parts: Part) -> Sequence[Part]:
        """The parts, all of which must be there. Raises CheckpointError."""
        missing = [part for part in parts if part not in self._module.keys]
        if missing and set(parts) <= _PAIR:
            raise CheckpointError(f"{self._place} has only one half of its pair.", hint=_AGAIN)
        if missing:
            raise CheckpointError(f"{self._place} lacks {', '.join(missing)}.", hint=_AGAIN)
        return parts

    def _shape(self, part: Part) -> _Shape:
        """A part's rows and columns, all dimensions but the first together."""
        sides = self._file.header.tensors[self._module.keys[part]].shape
        rows = sides[0] if sides else 1
        return rows, math.prod(sides) // max(1, rows)

    def _check_rank(self, rank: int) -> None:
        if not 0 < rank <= _MOST_RANK:
            raise CheckpointError(f"{self._place} has rank {rank}.", hint=_AGAIN)

    def _matrix(self, part: Part) -> torch.Tensor:
        """A part as [rows, columns]: kernels flattened, vectors as columns."""
        return self._tensor(part).reshape(self._shape(part))

    def _tensor(self, part: Part) -> torch.Tensor:
        """A part as it is stored. Raises UnsupportedFormat, and CheckpointError for NaN or infinity."""
        values = self._file[self._module.keys[part]]
        if not values.is_floating_point() or not values.numel():
            raise UnsupportedFormat(f"{self._place} is stored as {values.dtype} {list(values.shape)}.")
        if not bool(torch.isfinite(values.to(torch.float32)).all()):
            raise CheckpointError(f"{self._place} holds NaN or infinity: the LoRA is damaged.", hint=_AGAIN)
        return values

    @property
    def _place(self) -> str:
        return f"{self._file.path.name}: {self._module.name or self._module.raw}"


_PAIR = frozenset({Part.UP, Part.DOWN})
_LOKR = frozenset(part for part in Part if part.startswith("lokr_"))
_LOHA = frozenset(part for part in Part if part.startswith("hada_"))


def _check_shape(shape: _Shape, wanted: _Shape) -> None:
    if shape != wanted:
        raise DoesNotFit(f"{list(shape)}, here {list(wanted)}")


def _check_divides(shape: _Shape, wanted: _Shape) -> None:
    """Raise DoesNotFit for a factor that can't be one of a matrix of the wanted shape."""
    if 0 in shape or wanted[0] % shape[0] or wanted[1] % shape[1]:
        raise DoesNotFit(f"{list(shape)} as a factor of {list(wanted)}")
