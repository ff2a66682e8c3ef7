"""Quanto int8: one scale per output row, as huggingface/optimum-quanto's qint8 stores it.

    scale = absmax(row) / 127, rounded to the compute data type and stored so
    data  = clamp(round_half_to_even(weight / stored scale), -128, 127)        all in fp32

Where the scale rounds to 0 (a row of zeros or denormals) data is 0 and scale 1. Compiled where numba is there
(`kernels`), in plain torch where it isn't: the same bits.
"""

from __future__ import annotations

import functools
from types import ModuleType

import torch

from reeltune.errors import CheckpointError

_LEVELS = 127.0
CHUNK = 512 * 1024  # values at once in plain torch: 2 MB in fp32, which stays in cache


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
    data = torch.empty(weight.shape, dtype=torch.int8)
    scale = torch.empty((weight.shape[0], 1), dtype=dtype)
    quantize_rows(weight, data, scale, name)
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


def check_finite(values: torch.Tensor, name: str) -> None:
    """Raise CheckpointError where `values` [rows, in] hold NaN or infinity."""
    if (kernels := compiled()) is not None and kernels.takes(values):
        _refuse_bad(kernels.largest(values), name)
    else:
        _refuse_bad(values.to(torch.float32), name)


def _refuse_bad(values: torch.Tensor, name: str) -> None:
    if not bool(torch.isfinite(values).all()):
        raise CheckpointError(f"{name} holds NaN or infinity: the file is damaged.", hint="Fetch it again.")


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


def dequantize(data: torch.Tensor, scale: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """`data` int8 [out, in] times `scale` [out, 1], computed in fp32, as `dtype`."""
    return (data.to(torch.float32) * scale.to(torch.float32)).to(dtype)
