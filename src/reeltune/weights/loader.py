"""From the stored tensors of a file to the parameters of a model, one at a time."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType

import torch

from reeltune.checkpoints.formats.base import module_of
from reeltune.checkpoints.keys import matches
from reeltune.checkpoints.source import Shapes, WeightSource
from reeltune.weights._libraries import int8_tensor
from reeltune.weights.edits import Edit
from reeltune.weights.formats import Weight, decoder_of
from reeltune.weights.formats.base import FloatWeight
from reeltune.weights.formats.quanto_int8 import quantize_weight
from reeltune.weights.tensors import TensorFile


class Loader:
    """Turns a file's stored tensors into the model's.

    `run`: the data type that is computed in; `fp32`: modules kept in fp32; `quantizable`: linears, in original names,
    that become int8 where they aren't; `kept`: linears whose weights stay in 8 bits as they are stored, where they can;
    `edits`: LoRAs to merge, by stored name.
    """

    def __init__(
        self,
        file: TensorFile,
        source: WeightSource,
        run: torch.dtype,
        fp32: Collection[str] = (),
        quantizable: Collection[str] = (),
        edits: Mapping[str, Sequence[Edit]] = MappingProxyType({}),
        kept: Collection[str] = (),
    ) -> None:
        self._file = file
        self._source = source
        self._run = run
        self._fp32 = frozenset(fp32)
        self._quantizable = quantizable
        self._kept = kept
        self._edits = edits
        self._decoder = decoder_of(source.identity.quantization)

    def load(self, stored: str, expected: Shapes) -> dict[str, torch.Tensor]:
        """The parameters a stored tensor fills: one, or the layers it holds stacked.

        Raises UnsupportedFormat, and CheckpointError where it is damaged.
        """
        weight = self._decoder.read(self._file, self._source.stored_weight(stored))
        if stored in self._edits:
            weight = _edited(weight, self._edits[stored])
        all_copied = True
        parameters: dict[str, torch.Tensor] = {}
        for name, part in self._parts(stored, weight, expected).items():
            tensor = self._converted(stored, name, part, expected[name])
            if tensor is part.values:
                all_copied = False
            parameters[name] = tensor if tensor.shape == expected[name] else tensor.reshape(expected[name])
        if all_copied:
            self._file.release(stored)  # so that the file's copy does not pile up beside the model's
        return parameters

    def _parts(self, stored: str, weight: Weight, expected: Shapes) -> Mapping[str, Weight]:
        """What each parameter gets of a weight: all of it, or its rows where several are stacked."""
        places = self._source.names.diffusers[stored]
        names = [self._source.format.weight_name(name) for name in places.names]
        if places.swapped:
            return {name: weight.swapped() for name in names}
        if len(names) == 1:
            return {names[0]: weight}
        parts: dict[str, Weight] = {}
        first = 0
        for name in names:
            last = first + expected[name][0]
            parts[name] = weight.rows(first, last)
            first = last
        return parts

    def _converted(self, stored: str, name: str, weight: Weight, shape: tuple[int, ...]) -> torch.Tensor:
        """The tensor of a parameter: in fp32 where it is kept so, int8, as it is stored, or in the run's data type."""
        if not self._fp32.isdisjoint(name.split(".")):
            return weight.decoded(torch.float32)
        if weight.is_quantized:
            return weight.in_memory(self._run)
        if self._is_among(self._kept, stored) and (kept := weight.kept(self._run)) is not None:
            return kept
        if self._is_among(self._quantizable, stored):
            data, scale = quantize_weight(weight, shape, self._run, stored)
            return int8_tensor(data, scale, self._run)
        return weight.in_memory(self._run)

    def _is_among(self, linears: Collection[str], stored: str) -> bool:
        """Whether a stored tensor is the weight of one of some linears, in original names."""
        name = self._source.format.weight_name(self._source.names.original[stored])
        if not name.endswith(".weight"):
            return False
        return any(matches(module_of(name), pattern) for pattern in linears)


def _edited(weight: Weight, edits: Sequence[Edit]) -> Weight:
    """A weight with LoRAs merged in fp32."""
    numbers = weight.decoded(torch.float32)
    if numbers.data_ptr() == weight.values.data_ptr():
        numbers = numbers.clone()  # the file's own memory stays as it is
    block = numbers.view(len(numbers) if numbers.ndim else 1, -1)
    for edit in edits:
        edit.ready(torch.empty)(block, 0)
    return FloatWeight(numbers)
