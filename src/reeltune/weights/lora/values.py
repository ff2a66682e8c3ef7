"""The numbers of a model's parameters, which DoRA needs to know their lengths."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

from reeltune.checkpoints.loras.targets import Place
from reeltune.checkpoints.source import WeightSource
from reeltune.weights.formats import decoder_of
from reeltune.weights.tensors import TensorFile

Values = Callable[[Sequence[Place], tuple[int, int]], torch.Tensor]
Matrix = Callable[[str], torch.Tensor]


def gather(matrix: Matrix, places: Sequence[Place], shape: tuple[int, int]) -> torch.Tensor:
    """A parameter as fp32 [rows, columns]. `matrix`: a stored tensor as [rows, columns], by name."""
    values = torch.empty(shape)
    for place in places:
        stored = matrix(place.stored)
        for segment in place.segments:
            rows = slice(segment.stored_row, segment.stored_row + segment.count)
            values[segment.edit_row : segment.edit_row + segment.count] = stored[rows]
    return values


class FileValues:
    """Reads parameters from the files of a model. `sources`: its files, and those of its modules, with their names."""

    def __init__(self, *sources: tuple[WeightSource, Mapping[str, Path]]) -> None:
        """A source comes with the file of each of its stored tensors."""
        self._homes = {stored: (source, home) for source, homes in sources for stored, home in homes.items()}
        self._files: dict[Path, TensorFile] = {}

    def __call__(self, places: Sequence[Place], shape: tuple[int, int]) -> torch.Tensor:
        """A parameter as fp32 [rows, columns]."""
        return gather(self.matrix, places, shape)

    def matrix(self, stored: str) -> torch.Tensor:
        """A stored tensor as fp32 [rows, columns]."""
        source, home = self._homes[stored]
        if home not in self._files:
            self._files[home] = TensorFile(home)
        decoder = decoder_of(source.identity.quantization)
        tensor = decoder.read(self._files[home], source.stored_weight(stored)).decoded(torch.float32)
        return tensor.reshape(len(tensor) if tensor.ndim else 1, -1)
