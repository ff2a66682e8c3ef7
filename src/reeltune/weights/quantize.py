"""Quanto int8: one scale per output row, as huggingface/optimum-quanto's qint8 stores it.

    scale = absmax(row) / 127, rounded to the compute data type and stored so
    data  = clamp(round_half_to_even(weight / stored scale), -128, 127)        all in fp32

Where the scale rounds to 0 (a row of zeros or denormals) data is 0 and scale 1.
"""

from __future__ import annotations

import torch

from reeltune.errors import CheckpointError

_LEVELS = 127.0
_CHUNK = 256 * 1024  # values at once: 1 MB in fp32, which stays in cache


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
    rows = max(1, _CHUNK // max(1, weight.shape[1]))
    for first in range(0, weight.shape[0], rows):
        part = slice(first, first + rows)
        _quantize_rows(weight[part], data[part], scale[part], name)
    return data, scale


def _quantize_rows(weight: torch.Tensor, data: torch.Tensor, scale: torch.Tensor, name: str) -> None:
    """Fill `data` [rows, in] and `scale` [rows, 1] from `weight` [rows, in]; few rows, so that all stays in cache."""
    values = weight.to(torch.float32, copy=True)
    absmax = values.abs().amax(dim=1, keepdim=True)  # [rows, 1]
    if not bool(torch.isfinite(absmax).all()):
        raise CheckpointError(f"{name} holds NaN or infinity: the file is damaged.", hint="Fetch it again.")
    rounded = (absmax / _LEVELS).to(scale.dtype)
    if not bool(torch.isfinite(rounded).all()):
        raise CheckpointError(f"{name} is too large for {scale.dtype}.", hint="Use bf16.")
    empty = rounded == 0
    scale.copy_(rounded.masked_fill_(empty, 1))
    values.div_(scale.to(torch.float32)).round_().clamp_(-128, 127).masked_fill_(empty, 0)
    data.copy_(values)


def dequantize(data: torch.Tensor, scale: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """`data` int8 [out, in] times `scale` [out, 1], computed in fp32, as `dtype`."""
    return (data.to(torch.float32) * scale.to(torch.float32)).to(dtype)
