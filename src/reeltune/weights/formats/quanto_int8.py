"""Quanto int8: one scale per output row, as huggingface/optimum-quanto's qint8 stores it.

    scale = absmax(row) / 127, rounded to the compute data type and stored so
    data  = clamp(round_half_to_even(weight / stored scale), -128, 127)        all in fp32

Where the scale rounds to 0 (a row of zeros or denormals) data is 0 and scale 1. Compiled where numba is there
(`kernels`), in plain torch where it isn't: the same bits.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Self

import torch

from reeltune.checkpoints.contents import Tensor
from reeltune.checkpoints.formats import StoredWeight
from reeltune.checkpoints.formats.base import ACTIVATION_SCALES
from reeltune.checkpoints.formats.quanto_int8 import DATA
from reeltune.dtypes import Quantization
from reeltune.errors import CheckpointError, UnsupportedFormat
from reeltune.weights._libraries import int8_tensor
from reeltune.weights.formats.base import (
    CHUNK,
    FLOAT_DTYPES,
    Decoder,
    FloatWeight,
    Weight,
    check_scales,
    dequantize,
    swap_halves,
)
from reeltune.weights.formats.fp8 import read_unscaled
from reeltune.weights.tensors import TensorFile

_LEVELS = 127.0


@dataclass(frozen=True)
class Int8Weight:
    """A quantized weight. `values`: int8 [out, in]; `scales`: [out, 1], any floating dtype."""

    values: torch.Tensor
    scales: torch.Tensor
    is_quantized: bool = True

    def rows(self, first: int, last: int) -> Self:
        """Some of its rows."""
        return type(self)(self.values[first:last], self.scales[first:last])

    def swapped(self) -> Self:
        """Itself with the lower half of the rows before the upper one."""
        return type(self)(swap_halves(self.values), swap_halves(self.scales))

    def decoded(self, dtype: torch.dtype) -> torch.Tensor:
        """Data times scales."""
        return dequantize(self.values, self.scales, dtype)

    def in_memory(self, dtype: torch.dtype) -> torch.Tensor:
        """torchao's int8 weight on the same memory."""
        return int8_tensor(self.values, self.scales, dtype)

    def kept(self, dtype: torch.dtype) -> torch.Tensor:
        """The same."""
        return self.in_memory(dtype)

    def blocks(self) -> Iterator[tuple[slice, torch.Tensor]]:
        """All of its rows at once, in fp32."""
        yield slice(0, len(self.values)), self.decoded(torch.float32)


class QuantoInt8Decoder(Decoder):
    """Reads quantized weights as they are stored, and everything else as in files of other formats."""

    quantization = Quantization.QUANTO_INT8
    readable = (*FLOAT_DTYPES, "I8")

    def read(self, file: TensorFile, weight: StoredWeight) -> Weight:
        """A weight. Raises where its scales are damaged, or activations are quantized too."""
        if weight.scales is None:
            return FloatWeight(read_unscaled(file, weight.values))
        module = weight.values.removesuffix(DATA)
        scales = file[weight.scales]
        check_scales(scales, f"{file.path}: scales of {module} are")
        for ending in ACTIVATION_SCALES:
            name = module + ending
            if name in file.header.tensors and not bool((file[name] == 1).all()):
                message = f"{file.path}: the activations of {module} are quantized too, which can't be run."
                raise UnsupportedFormat(message, hint="Use a version whose weights alone are quantized.")
        return Int8Weight(file[weight.values], scales.reshape(-1, 1))

    def decode_rows(
        self, tensor: Tensor, file_name: str, stored: torch.Tensor, scales: torch.Tensor | None, numbers: torch.Tensor
    ) -> None:
        """Fill `numbers` with `stored`, times its scales."""
        numbers.copy_(stored)
        if scales is not None:
            numbers.mul_(scales)


@functools.cache
def compiled() -> ModuleType | None:
    """numba's kernels, imported when something is quantized; None on a machine that numba has no build for."""
    try:
        from reeltune.weights import kernels
    except ImportError:
        return None
    return kernels


def quantize_tensor(
    weight: torch.Tensor, dtype: torch.dtype, name: str = "weight"
) -> tuple[torch.Tensor, torch.Tensor]:
    """Quantize a linear's weight.

    `weight`: any floating dtype, [out, in]; `dtype`: compute data type of the scales.
    Returns (data int8 [out, in], scale `dtype` [out, 1]). Raises CheckpointError for NaN or infinity, or where
    a scale does not fit the data type.
    """
    return quantize_weight(FloatWeight(weight), tuple(weight.shape), dtype, name)


def quantize_weight(
    weight: Weight, shape: tuple[int, ...], dtype: torch.dtype, name: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """As `quantize_tensor`, a weight of a file that may be decoded a few rows at a time. `shape`: [out, in]."""
    data = torch.empty(shape, dtype=torch.int8)
    scale = torch.empty((shape[0], 1), dtype=dtype)
    for part, block in weight.blocks():
        quantize_rows(block, data[part], scale[part], name)
    return data, scale


def quantize_rows(values: torch.Tensor, data: torch.Tensor, scale: torch.Tensor, name: str) -> None:
    """Fill `data` int8 [rows, in] and `scale` [rows, 1] from `values` [rows, in]. Raises as `quantize_tensor`."""
    if (kernels := compiled()) is not None and kernels.takes(values):
        scale.copy_(_scales(kernels.largest(values), scale.dtype, name))
        kernels.divide(values, scale, data)
        return
    rows = max(1, CHUNK // max(1, values.shape[1]))
    for first in range(0, values.shape[0], rows):
        part = slice(first, first + rows)
        block = values[part].to(torch.float32, copy=True)
        scale[part] = _scales(block.abs().amax(dim=1, keepdim=True), scale.dtype, name)
        data[part] = block.div_(scale[part].to(torch.float32)).round_().clamp_(-128, 127)


def _scales(absmax: torch.Tensor, dtype: torch.dtype, name: str) -> torch.Tensor:
    """Scales [rows, 1] for the largest magnitudes of rows [rows, 1]. Raises as `quantize_tensor`."""
    _refuse_bad(absmax, name)
    scale = (absmax.to(torch.float32) / _LEVELS).to(dtype)
    if not bool(torch.isfinite(scale).all()):
        raise CheckpointError(f"{name} is too large for {dtype}.", hint="Use bf16.")
    return scale.masked_fill_(scale == 0, 1)  # of a row that small, every value rounds to 0


def largest_of_rows(values: torch.Tensor, name: str) -> torch.Tensor:
    """Largest magnitudes [rows, 1] of `values` [rows, in]. Raises CheckpointError for NaN and infinity."""
    if (kernels := compiled()) is not None and kernels.takes(values):
        magnitudes: torch.Tensor = kernels.largest(values)
    else:
        magnitudes = values.abs().amax(dim=1, keepdim=True)
    _refuse_bad(magnitudes, name)
    return magnitudes


def check_finite(values: torch.Tensor, name: str) -> None:
    """Raise CheckpointError where `values` [rows, in] hold NaN or infinity."""
    if (kernels := compiled()) is not None and kernels.takes(values):
        _refuse_bad(kernels.largest(values), name)
    else:
        _refuse_bad(values.to(torch.float32), name)


def _refuse_bad(values: torch.Tensor, name: str) -> None:
    if not bool(torch.isfinite(values).all()):
        raise CheckpointError(f"{name} holds NaN or infinity: the file is damaged.", hint="Download it again.")


def off(values: torch.Tensor, data: torch.Tensor, scale: torch.Tensor) -> bool:
    """Whether any value is further than half a step from its quantized one, but for those beyond the last level.

    `values` [rows, in], `data` int8 [rows, in], `scale` [rows, 1].
    """
    if (kernels := compiled()) is not None and kernels.takes(values):
        return bool(kernels.off(values, data, scale))
    rows = max(1, CHUNK // max(1, values.shape[1]))
    for first in range(0, values.shape[0], rows):
        part = slice(first, first + rows)
        block, step = values[part].to(torch.float32), scale[part].to(torch.float32)
        error = data[part].to(torch.float32).mul_(step).sub_(block).abs_()
        beyond = (block.abs() - _LEVELS * step).clamp_(min=0)
        if not bool((error <= step * (0.5 + 1e-4) + beyond).all()):
            return True
    return False
