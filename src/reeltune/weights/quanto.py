"""Quanto int8: one scale per output row, as huggingface/optimum-quanto's qint8 stores it.

    scale = absmax(row) / 127, rounded to the compute data type and stored so
    data  = clamp(round_half_to_even(weight / stored scale), -128, 127)        all in fp32

Where the scale rounds to 0 (a row of zeros or denormals) data is 0 and scale 1.
"""

from __future__ import annotations

import torch

from reeltune.errors import CheckpointError

_LEVELS = 127.0
CHUNK = 384 * 1024  # values at once: 1.5 MB in fp32, which stays in cache


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
    rows = max(1, CHUNK // max(1, weight.shape[1]))
    for first in range(0, weight.shape[0], rows):
        part = slice(first, first + rows)
        quantize_rows(weight[part].to(torch.float32, copy=True), data[part], scale[part], name)
    return data, scale


def quantize_rows(values: torch.Tensor, data: torch.Tensor, scale: torch.Tensor, name: str) -> None:
    """Fill `data` int8 [rows, in] and `scale` [rows, 1] from `values` fp32 [rows, in], which are overwritten.

    Few passes over few rows, so that all stays in cache. Raises as `quantize_tensor`.
    """
    absmax = largest(values, name)
    rounded = (absmax / _LEVELS).to(scale.dtype)
    if not bool(torch.isfinite(rounded).all()):
        raise CheckpointError(f"{name} is too large for {scale.dtype}.", hint="Use bf16.")
    scale.copy_(rounded.masked_fill_(rounded == 0, 1))  # of a row that small, every value rounds to 0
    values.div_(scale.to(torch.float32)).round_()
    if bool((rounded < torch.finfo(scale.dtype).tiny).any()):  # only there a rounded scale is off by more than 1 %
        values.clamp_(-128, 127)
    data.copy_(values)


def largest(values: torch.Tensor, name: str) -> torch.Tensor:
    """Largest magnitude in each row of `values` [rows, in], as [rows, 1]. Raises CheckpointError for NaN, infinity."""
    absmax = values.abs().amax(dim=1, keepdim=True)
    if not bool(torch.isfinite(absmax).all()):
        raise CheckpointError(f"{name} holds NaN or infinity: the file is damaged.", hint="Fetch it again.")
    return absmax


def off(values: torch.Tensor, data: torch.Tensor, scale: torch.Tensor) -> bool:
    """Whether any value is further than half a step from its quantized one, but for those beyond the last level.

    `values` fp32 [rows, in], `data` int8 [rows, in], `scale` [rows, 1].
    """
    step = scale.to(torch.float32)
    error = data.to(torch.float32).mul_(step).sub_(values).abs_()
    bound = step * (0.5 + 1e-4)
    if bool((error.amax(dim=1, keepdim=True) <= bound).all()):
        return False
    beyond = (values.abs() - _LEVELS * step).clamp_(min=0)
    return not bool((error <= bound + beyond).all())


def dequantize(data: torch.Tensor, scale: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """`data` int8 [out, in] times `scale` [out, 1], computed in fp32, as `dtype`."""
    return (data.to(torch.float32) * scale.to(torch.float32)).to(dtype)
