"""fp8: weight = stored * scale where it was scaled, and the stored number itself where it was merely cast.

A writer of scaled fp8 divides each weight by its largest magnitude over the data type's largest number, so that the
values reach it. Weights that were cast stay far below: of the models here none is larger than a few dozens. So a weight
whose scale is missing is recognized.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import torch

from reeltune.checkpoints.contents import Tensor
from reeltune.checkpoints.formats import StoredWeight
from reeltune.checkpoints.formats.fp8 import FP8_DTYPES, is_matrix
from reeltune.dtypes import Quantization
from reeltune.errors import CheckpointError
from reeltune.weights._libraries import fp8_tensor
from reeltune.weights.formats.base import (
    FLOAT_DTYPES,
    Decoder,
    FloatWeight,
    Weight,
    check_scales,
    dequantize,
    read_floats,
    swap_halves,
)
from reeltune.weights.tensors import TensorFile

_REACH = 0.5  # of the data type's largest number


@dataclass(frozen=True)
class Fp8Weight:
    """A weight that can stay fp8. `values`: fp8 [out, in]; `scales`: fp32 [out, 1]."""

    values: torch.Tensor
    scales: torch.Tensor
    is_quantized: bool = False

    def rows(self, first: int, last: int) -> Self:
        """Some of its rows."""
        return type(self)(self.values[first:last], self.scales[first:last])

    def swapped(self) -> Self:
        """Itself with the lower half of the rows before the upper one."""
        return type(self)(swap_halves(self.values.view(torch.uint8)).view(self.values.dtype), swap_halves(self.scales))

    def decoded(self, dtype: torch.dtype) -> torch.Tensor:
        """Values times scales."""
        return dequantize(self.values, self.scales, dtype)

    def in_memory(self, dtype: torch.dtype) -> torch.Tensor:
        """The decoded numbers."""
        return self.decoded(dtype)

    def kept(self, dtype: torch.dtype) -> torch.Tensor:
        """torchao's fp8 weight on the same memory."""
        return fp8_tensor(self.values, self.scales, dtype)

    def blocks(self) -> Iterator[tuple[slice, torch.Tensor]]:
        """All of its rows at once, in fp32."""
        yield slice(0, len(self.values)), self.decoded(torch.float32)


class Fp8Decoder(Decoder):
    """Reads fp8 with or without scales."""

    quantization = Quantization.FP8
    readable: tuple[str, ...] = (*FLOAT_DTYPES, *FP8_DTYPES)

    def read(self, file: TensorFile, weight: StoredWeight) -> Weight:
        """A matrix of fp8 with its scales, 1 where it has none; other tensors in fp32 or as they are stored."""
        stored = read_floats(file, weight.values)
        is_fp8 = stored.dtype.itemsize == 1
        if weight.scales is None:
            if not is_fp8 or stored.ndim != 2:
                return FloatWeight(read_unscaled(file, weight.values))
            if is_matrix(weight.values, tuple(stored.shape)):
                _check_unscaled(stored, weight.values, file.path.name)
            return Fp8Weight(stored, torch.ones(len(stored), 1))
        scales = file[weight.scales]
        check_scales(scales, f"{file.path}: {weight.scales} is")
        rows = scales.to(torch.float32).reshape(-1, *[1] * (stored.ndim - 1))
        if not is_fp8 or stored.ndim != 2:
            return FloatWeight(dequantize(stored, rows, torch.float32))
        return Fp8Weight(stored, rows.expand(len(stored), 1))

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
