"""fp8: weight = stored * scale where it was scaled, and the stored number itself where it was merely cast.

A writer of scaled fp8 divides each weight by its largest magnitude over the data type's largest number, so that the
values reach it. Weights that were cast stay far below: of the models here none is larger than a few dozens. So a weight
whose scale is missing is recognized.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import torch

from reeltune.checkpoints.contents import Tensor
from reeltune.checkpoints.formats import StoredWeight
from reeltune.checkpoints.formats.fp8 import FP8_DTYPES, NOTE, is_matrix
from reeltune.dtypes import Quantization
from reeltune.errors import CheckpointError, UnsupportedFormat
from reeltune.weights.formats.base import (
    FLOAT_DTYPES,
    Decoder,
    FloatWeight,
    Weight,
    check_scales,
    dequantize,
    read_floats,
)
from reeltune.weights.tensors import TensorFile

_REACH = 0.5  # of the data type's largest number
_MOST_NOTE_BYTES = 4096
_KNOWN_STORAGE = ("float8_e4m3fn", "float8_e5m2")
_KNOWN_KEYS = frozenset({"format", "full_precision_matrix_mult"})


class Fp8Decoder(Decoder):
    """Reads fp8 as fp32, with or without scales."""

    quantization = Quantization.FP8
    readable = (*FLOAT_DTYPES, *FP8_DTYPES)

    def check_notes(self, path: Path, names: Iterable[str]) -> None:
        """Raise UnsupportedFormat where a note of ComfyUI's describes another storage than scaled fp8."""
        notes = [name for name in names if name.endswith(NOTE)]
        if not notes:
            return
        file = TensorFile(path)
        for name in notes:
            if not _is_known_storage(file[name]):
                message = f"{path}: {name} describes a storage that isn't known here."
                raise UnsupportedFormat(message, hint="Use a bf16 version.")

    def read(self, file: TensorFile, weight: StoredWeight) -> Weight:
        """A weight in fp32, or as it is stored where it isn't fp8."""
        if weight.scales is None:
            return FloatWeight(read_unscaled(file, weight.values))
        scales = file[weight.scales]
        check_scales(scales, f"{file.path}: {weight.scales} is")
        stored = file[weight.values]
        rows = scales.reshape(-1, *[1] * (stored.ndim - 1))
        return FloatWeight(dequantize(stored, rows, torch.float32))

    def decode_rows(
        self, tensor: Tensor, file_name: str, stored: torch.Tensor, scales: torch.Tensor | None, numbers: torch.Tensor
    ) -> None:
        """Fill `numbers` with `stored`, times its scales."""
        if scales is None and tensor.dtype in FP8_DTYPES and is_matrix(tensor.name, tensor.shape):
            _check_unscaled(stored, tensor.name, file_name)
        numbers.copy_(stored)
        if scales is not None:
            numbers.mul_(scales)


class Fp8ScaledDecoder(Fp8Decoder):
    """Files that hold scales: those of single weights may be missing in either kind."""

    quantization = Quantization.FP8_SCALED


def read_unscaled(file: TensorFile, name: str) -> torch.Tensor:
    """A tensor as it is stored, or fp32 where that is fp8. Raises CheckpointError where its scale is missing."""
    values = read_floats(file, name)
    if values.dtype.itemsize > 1:
        return values
    if is_matrix(name, tuple(values.shape)):
        _check_unscaled(values, name, file.path.name)
    return values.to(torch.float32)


def _check_unscaled(values: torch.Tensor, name: str, file_name: str) -> None:
    """Raise CheckpointError where fp8 `values`, of any shape, use the whole range of their data type."""
    if not values.numel():
        return
    largest = float(values.to(torch.float32).abs().amax())
    if largest > _REACH * torch.finfo(values.dtype).max:
        raise CheckpointError(
            f"{file_name}: {name} reaches {largest:g}, which no weight does: it was scaled, and its scale is missing.",
            hint="Download the file again, or use a bf16 version.",
        )


def _is_known_storage(note: torch.Tensor) -> bool:
    """Whether a note, JSON as bytes, describes fp8 with scales and nothing else."""
    text = bytes(note.view(torch.uint8).reshape(-1)[:_MOST_NOTE_BYTES].tolist())
    try:
        storage = json.loads(text)
    except (ValueError, RecursionError):
        return False
    if not isinstance(storage, dict):
        return False
    return storage.get("format") in _KNOWN_STORAGE and storage.keys() <= _KNOWN_KEYS
