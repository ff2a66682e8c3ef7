"""LoRAs beside the layers of a loaded model, which stays as it is: in 16 bits or int8.

A linear layer is replaced by one with the same weight that adds what its LoRAs contribute (`terms`). All other
parameters, such as biases, norms and modulations, are small: their values are computed anew when the weights change.
Nothing of the model is copied but these, and everything is undone when the LoRAs are removed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from reeltune.checkpoints.contents import Header, Tensor
from reeltune.checkpoints.identify import identify
from reeltune.checkpoints.keys import map_names
from reeltune.checkpoints.loras import LoraReport, Targets
from reeltune.checkpoints.loras.targets import Place
from reeltune.checkpoints.source import WeightSource
from reeltune.errors import UnsupportedFormat
from reeltune.families import Family
from reeltune.weights._libraries import dequantized, is_quantized, offloaded_copies
from reeltune.weights.edits import Edit, LowRank
from reeltune.weights.lora.matching import read_edits
from reeltune.weights.lora.terms import ColumnDoraTerm, DoraTerm, LayerPass, Matrix, MatrixTerm, Pair, PairsTerm, Term
from reeltune.weights.lora.values import gather

_WEIGHT = ".weight"
_TINY = torch.finfo(torch.float32).tiny
_Numbered = tuple[int, Edit]  # the number of the LoRA, and what it changes


class LoraWeights:
    """The weights of a model's LoRAs in the current step, shared by all its layers.

    `values`: fp32 [LoRAs]. It is changed in place, so that compiled code stays valid.
    """

    def __init__(self, count: int) -> None:
        self.values = torch.zeros(count)

    def set(self, weights: Sequence[float], device: torch.device) -> None:
        """Use these weights from now on, on a device."""
        if self.values.device != device:
            self.values = self.values.to(device)
        self.values.copy_(torch.tensor(weights))


class LoraLinear(nn.Linear):
    """A linear layer with LoRAs beside it, which uses the weight and the bias of the layer that it replaces."""

    def __init__(self, layer: nn.Linear, terms: Sequence[Term], weights: LoraWeights) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.weight, self.bias = layer.weight, layer.bias
        self.terms = nn.ModuleList(terms)
        self.lora_weights = weights
        self.eval()

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """The output [..., out] for an input [..., in]."""
        output = functional.linear(input, self.weight, self.bias)
        run = LayerPass(input, output, self.weight, self.bias)
        for term in self.terms:
            output = output + term(run, self.lora_weights.values)
        return output

    def without_loras(self) -> nn.Linear:
        """A plain layer with the weight and the bias as they are now."""
        layer = nn.Linear(self.in_features, self.out_features, bias=self.bias is not None, device="meta")
        layer.weight, layer.bias = self.weight, self.bias
        return layer.eval()


@dataclass
class _Addition:
    """Changes of a small parameter. `original`: its values without LoRAs. `deltas`: by the number of the LoRA, fp32.

    Both are in the machine's memory.
    """

    name: str
    original: torch.Tensor
    deltas: Mapping[int, torch.Tensor]


class AttachedLoras:
    """The LoRAs of a loaded model, until they are removed. `reports`: what of each is applied."""

    def __init__(self, model: nn.Module, count: int) -> None:
        self.reports: tuple[LoraReport, ...] = ()
        self._model = model
        self._weights = LoraWeights(count)
        self._layers: list[str] = []
        self._additions: list[_Addition] = []

    def layers(self) -> list[nn.Module]:
        """The layers that have LoRAs beside them."""
        return [self._model.get_submodule(name) for name in self._layers]

    def add_layer(self, name: str, edits: Sequence[_Numbered]) -> None:
        """Put LoRAs beside a linear layer."""
        layer = self._model.get_submodule(name)
        assert isinstance(layer, nn.Linear)
        self._replace(name, LoraLinear(layer, _terms(layer, edits), self._weights))
        self._layers.append(name)

    def add_parameter(self, name: str, edits: Sequence[_Numbered]) -> None:
        """Change a small parameter, whose values are kept to restore them."""
        original = self._model.get_parameter(name).detach().to("cpu", copy=True)
        deltas: dict[int, torch.Tensor] = {}
        for number, edit in edits:
            delta = _delta(edit, original)
            deltas[number] = deltas[number] + delta if number in deltas else delta
        self._additions.append(_Addition(name, original, deltas))

    def set_weights(self, weights: Sequence[float], device: torch.device) -> None:
        """Use these weights, one for each LoRA, in the passes from now on. `device`: where the model computes."""
        self._weights.set(weights, device)
        resting = offloaded_copies(self._model) if self._additions else {}
        for addition in self._additions:
            values = addition.original.float()
            for number, delta in addition.deltas.items():
                values = values + delta * weights[number]
            self._write(addition.name, values, resting)

    def _write(self, name: str, values: torch.Tensor, resting: Mapping[torch.Tensor, torch.Tensor]) -> None:
        """Give a parameter other values: always, since moving weights may have brought older ones back."""
        parameter = self._model.get_parameter(name)
        parameter.data.copy_(values)
        if parameter in resting:  # what is sent to the device in the next pass
            resting[parameter].copy_(values)

    def remove(self) -> None:
        """Take all LoRAs off the model, which computes the same bits as before they were attached."""
        for name in self._layers:
            layer = self._model.get_submodule(name)
            assert isinstance(layer, LoraLinear)
            self._replace(name, layer.without_loras())
        resting = offloaded_copies(self._model) if self._additions else {}
        for addition in self._additions:
            self._write(addition.name, addition.original, resting)
        self._layers.clear()
        self._additions.clear()

    def _replace(self, name: str, layer: nn.Module) -> None:
        parent, _, child = name.rpartition(".")
        setattr(self._model.get_submodule(parent), child, layer)


def attach_loras(model: nn.Module, family: Family, files: Iterable[Path], *, second: bool = False) -> AttachedLoras:
    """Put LoRAs beside the layers of a model whose weights are in memory; their weights are 0 until they are set.

    `files`: the LoRA files. `second`: whether the model is the second of two transformers. Raises LoraMismatch,
    UnsupportedFormat and CheckpointError, and leaves the model as it was then.
    """
    paths = list(files)
    targets = model_targets(model, family)
    edits: dict[str, list[_Numbered]] = {}
    reports = []

    def values(places: Sequence[Place], shape: tuple[int, int]) -> torch.Tensor:
        return gather(lambda name: _numbers(model.get_parameter(name)), places, shape)

    for number, path in enumerate(paths):
        edits_of_file, report = read_edits(path, 1.0, targets, values, second=second)
        reports.append(report)
        for name, edits_of_parameter in edits_of_file.items():
            edits.setdefault(name, []).extend((number, edit) for edit in edits_of_parameter)
    attached = AttachedLoras(model, len(paths))
    attached.reports = tuple(reports)
    try:
        for name, numbered in edits.items():
            module = name.removesuffix(_WEIGHT)
            if name.endswith(_WEIGHT) and isinstance(model.get_submodule(module), nn.Linear):
                attached.add_layer(module, numbered)
            else:
                attached.add_parameter(name, numbered)
    except BaseException:
        attached.remove()
        raise
    return attached


def model_targets(model: nn.Module, family: Family) -> Targets:
    """The parameters of a loaded model, as the targets of LoRAs."""
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    tensors = {name: Tensor(name, "BF16", shape, 0, 0) for name, shape in shapes.items()}
    header = Header("the model", tensors, {}, 0, 0)
    return Targets(family, WeightSource(header, identify(header), map_names(tensors, family, "diffusers")))


def _terms(layer: nn.Linear, edits: Sequence[_Numbered]) -> list[Term]:
    """What LoRAs add to a layer's output. The plain pairs of all LoRAs are one term."""
    pairs: list[Pair] = []
    terms: list[Term] = []
    for number, edit in edits:
        rows = _rows(edit, layer.out_features)
        if isinstance(edit.delta, LowRank) and edit.magnitude is None and not edit.replaces:
            pairs.append(Pair(number, edit.delta.up[rows], edit.delta.down, edit.scale))
        else:
            terms.append(_term(number, edit, rows, layer))
    return [PairsTerm(pairs, layer.weight.dtype), *terms] if pairs else terms


def _term(number: int, edit: Edit, rows: torch.Tensor, layer: nn.Linear) -> Term:
    matrix = Matrix(edit.delta, rows, layer.weight.dtype)
    if edit.magnitude is None:
        return MatrixTerm(number, matrix, edit.scale, replaces=edit.replaces)
    if edit.lengths is not None:
        return ColumnDoraTerm(number, matrix, edit.scale, (edit.magnitude / edit.lengths).flatten())
    delta = edit.delta.part(slice(0, edit.delta.shape[0]), edit.scale, torch.empty)
    lengths = (_numbers(layer.weight) + delta[rows]).norm(dim=1).clamp_(min=_TINY)
    return DoraTerm(number, matrix, edit.scale, edit.magnitude.flatten()[rows] / lengths)


def _rows(edit: Edit, count: int) -> torch.Tensor:
    """The row of an edit's matrix that each row of a parameter is, [rows]."""
    rows = torch.full((count,), -1)
    for segment in edit.segments:
        numbers = torch.arange(segment.edit_row, segment.edit_row + segment.count)
        rows[segment.stored_row : segment.stored_row + segment.count] = numbers
    if not bool((rows >= 0).all()):
        message = "A LoRA that changes only some rows of a layer can't be computed beside it."
        raise UnsupportedFormat(message, hint="Merge it into the file with `reeltune quantize FILE --lora LORA`.")
    return rows


def _delta(edit: Edit, original: torch.Tensor) -> torch.Tensor:
    """What an edit adds to a parameter with a weight of 1: all kinds of edits are linear in the weight. fp32."""
    block = _numbers(original)
    before = block.clone()
    edit.ready(torch.empty)(block, 0)
    return (block - before).reshape(original.shape)


def _numbers(parameter: torch.Tensor) -> torch.Tensor:
    """A copy of a parameter on the CPU as fp32 [rows, columns]."""
    values = dequantized(parameter) if is_quantized(parameter) else parameter.detach()
    return values.to("cpu", torch.float32, copy=True).reshape(len(parameter) if parameter.ndim else 1, -1)
