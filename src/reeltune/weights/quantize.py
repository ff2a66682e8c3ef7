"""Quanto int8: one scale per output row, as huggingface/optimum-quanto's qint8 stores it.

    scale = absmax(row) / 127, rounded to the compute data type and stored so
    data  = clamp(round_half_to_even(weight / stored scale), -128, 127)        all in fp32

Where the scale rounds to 0 (a row of zeros or denormals) data is 0 and scale 1.
"""

from __future__ import annotations

import torch

from reeltune.errors import CheckpointError

_LEVELS = 127.0


def quantize_tensor(
    weight: torch.Tensor, dtype: torch.dtype, name: str = "weight"
) -> tuple[torch.Tensor, torch.Tensor]:
    """Quantize a linear's weight.

    `weight`: any floating dtype, [out, in]; `dtype`: compute data type of the scales.
    Returns (data int8 [out, in], scale `dtype` [out, 1]). Raises CheckpointError for NaN or infinity, or where
    a scale does not fit the data type.
    """
    values = weight.to(torch.float32)
    absmax = values.abs().amax(dim=1, keepdim=True)  # [out, 1]
    scale = (absmax / _LEVELS).to(dtype)
    if not bool(torch.isfinite(absmax).all()):
        raise CheckpointError(f"{name} holds NaN or infinity: the file is damaged.", hint="Fetch it again.")
    if not bool(torch.isfinite(scale).all()):
        raise CheckpointError(f"{name} is too large for {dtype}.", hint="Use bf16.")
    empty = scale == 0
    scale = torch.where(empty, torch.ones_like(scale), scale)
    data = torch.round(values / scale.to(torch.float32)).clamp_(-128, 127)
    return torch.where(empty, torch.zeros_like(data), data).to(torch.int8), scale


def dequantize(data: torch.Tensor, scale: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """`data` int8 [out, in] times `scale` [out, 1], computed in fp32, as `dtype`."""
    return (data.to(torch.float32) * scale.to(torch.float32)).to(dtype)
