"""Merge the weights of several finetunes, and LoRAs, into one file of 16 bits or int8, in one verified pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import torch

from reeltune.checkpoints.loras.targets import Place
from reeltune.dtypes import DType
from reeltune.events import CancelToken, Listener, Notice, ignore
from reeltune.weights.draft import prepare
from reeltune.weights.edits import RowEdit
from reeltune.weights.lora import Applied, FileValues, Values
from reeltune.weights.lora.values import gather
from reeltune.weights.merging import measuring
from reeltune.weights.merging.methods import DENSITY, Method, check_method, linear_factors, slerp_factors
from reeltune.weights.merging.mixtures import Sum, Ties
from reeltune.weights.merging.provenance import Provenance, hash_files
from reeltune.weights.merging.rows import Operand, Readers, align
from reeltune.weights.model_file import ModelFile, read_model
from reeltune.weights.quantize import Quantized, refuse_taken, write_draft


@dataclass(frozen=True)
class Ingredient:
    """A model to merge, and the weight that is given to it. `license`: what its definition says."""

    path: Path
    weight: float
    license: str = ""


def merge(
    models: Sequence[Ingredient],
    output: Path,
    *,
    method: str = Method.WEIGHTED,
    base: Path | None = None,
    density: float = DENSITY,
    loras: Sequence[tuple[str | Path, float]] = (),
    to: str = "auto",
    dtype: str = "auto",
    overwrite: bool = False,
    listener: Listener = ignore,
    cancel: CancelToken | None = None,
) -> Quantized:
    """Write one model made of several ones, in the layout and with the names of the first.

    `base`: the model that the others were finetuned from, for the methods that need it; `density`: the share of the
    differences that ties keeps; `loras`: files and weights, added to the merged model; `to`: as in `quantize`, or
    "auto" for 16 bits in the first model's data type. A method's formula is in `methods`.

    Raises TensorMismatch if the models don't have the same tensors, and as `quantize`; nothing is left behind then.
    """
    cancel = cancel or CancelToken()
    weights = [model.weight for model in models]
    chosen = check_method(method, weights, has_base=base is not None, density=density)
    used = [model for model in models if chosen is not Method.TIES or model.weight > 0]
    _report(chosen, models, listener)
    files = [*(model.path for model in used), *([] if base is None else [base])]
    refuse_taken(files, output, overwrite)
    opened = [read_model(path) for path in files]
    if to == "auto":
        to = DType.FP16 if opened[0].identity.dtype is DType.FP16 else DType.BF16
    with closing(Readers()) as readers:
        blend = _Blend(chosen, opened, [model.weight for model in used], density, readers, listener, cancel)
        blend.align()  # before the files are read as a whole
        hashes = hash_files([*files, *(Path(lora) for lora, _ in loras)], listener, cancel)
        blend.provenance = Provenance(chosen, density, tuple(used), base, hashes)
        draft = prepare(files[0], to=to, dtype=dtype, loras=loras, mixing=blend)
        for applied in draft.applied:
            listener(Notice(str(applied)))
        return write_draft(draft, files, output, overwrite=overwrite, listener=listener, cancel=cancel)


def _report(method: Method, models: Sequence[Ingredient], listener: Listener) -> None:
    """Report what the weights mean where it isn't obvious."""
    total = sum(model.weight for model in models)
    if method in (Method.WEIGHTED, Method.SLERP) and abs(total - 1) > 1e-6:
        listener(Notice(f"The weights are divided by their sum, {total:g}."))
    unused = [model.path.name for model in models if model.weight == 0]
    if unused:
        listener(Notice(f"The weight of {', '.join(unused)} is 0."))


class _Blend:
    """The models of a merge, as `prepare` mixes them into the first one. `opened`: the base model last, if any."""

    def __init__(
        self,
        method: Method,
        opened: Sequence[ModelFile],
        weights: Sequence[float],
        density: float,
        readers: Readers,
        listener: Listener,
        cancel: CancelToken,
    ) -> None:
        self._method, self._opened, self._weights, self._density = method, opened, weights, density
        self._readers, self._listener, self._cancel = readers, listener, cancel
        self._aligned: list[Mapping[str, Operand]] = []
        self._edits: dict[str, RowEdit] = {}
        self.provenance: Provenance | None = None

    def align(self) -> None:
        """Find the tensors of every model for each of the first one's. Raises TensorMismatch."""
        self._aligned = [align(self._opened[0], other, self._readers) for other in self._opened]

    def edits(self, model: ModelFile) -> Mapping[str, RowEdit]:
        """What mixes the other models into each stored tensor of the first one; measures them before, if needed."""
        operands = {stored: [aligned[stored] for aligned in self._aligned] for stored in model.own_names}
        shapes = {stored: model.tasks[stored].matrix for stored in operands}
        if self._method is Method.SLERP:
            self._edits = self._slerp(operands, shapes)
        elif self._method is Method.TIES:
            self._edits = self._ties(operands, shapes)
        else:
            factors = linear_factors(self._method, self._weights)[: len(self._opened)]
            self._edits = {stored: _sum(of_one, factors) for stored, of_one in operands.items()}
        return self._edits

    def _slerp(
        self, operands: Mapping[str, list[Operand]], shapes: Mapping[str, measuring.Shape]
    ) -> dict[str, RowEdit]:
        def measure(stored: str) -> list[float]:
            first, second = operands[stored]
            return slerp_factors(*measuring.dot_products(first, second, shapes[stored]), self._weights)

        factors = measuring.each_tensor(shapes, measure, "measure", self._listener, self._cancel)
        return {stored: _sum(of_one, factors[stored]) for stored, of_one in operands.items()}

    def _ties(self, operands: Mapping[str, list[Operand]], shapes: Mapping[str, measuring.Shape]) -> dict[str, RowEdit]:
        def measure(stored: str) -> list[float]:
            *models, base = operands[stored]
            return [measuring.threshold(model, base, shapes[stored], self._density) for model in models]

        thresholds = measuring.each_tensor(shapes, measure, "measure", self._listener, self._cancel)
        return {
            stored: Ties(base, others, self._weights, thresholds[stored])
            for stored, (_, *others, base) in operands.items()
        }

    def values(self, model: ModelFile) -> Values:
        """The numbers of the mixed model's parameters."""
        first = FileValues((model.source, model.parts.homes))

        def mixed(stored: str) -> torch.Tensor:
            block = first.matrix(stored).clone()
            self._edits[stored].ready(torch.empty)(block, 0)
            return block

        def values(places: Sequence[Place], shape: tuple[int, int]) -> torch.Tensor:
            return gather(mixed, places, shape)

        return values

    def metadata(self, model: ModelFile, applied: Sequence[Applied]) -> dict[str, str]:
        """The config of the first model, and what the new file is made of."""
        assert self.provenance is not None
        return self.provenance.metadata(self._opened, applied)


def _sum(operands: Sequence[Operand], factors: Sequence[float]) -> Sum:
    """The sum of a tensor of all models. A model whose factor is 0 is not read."""
    others = zip(operands[1:], factors[1:], strict=True)
    return Sum(factors[0], [(operand, factor) for operand, factor in others if factor])
