"""Rows of weights to fp8 (e4m3), for new files.

    scale = absmax / 448, in fp32, of a row or of the whole weight; 1 where that is 0
    data  = weight / scale, rounded to the nearest number of e4m3

From 2^-6 to 448, an e4m3 number has 3 bits behind the leading one; smaller ones are multiples of 2^-9.
"""

from __future__ import annotations

import torch

from reeltune.errors import CheckpointError
from reeltune.weights.formats.base import CHUNK
from reeltune.weights.formats.quanto_int8 import largest_of_rows
from reeltune.weights.fp8 import LARGEST

_HALF_STEP = 2.0**-4  # of a number, relative to it
_LEAST_HALF_STEP = 2.0**-10  # of the numbers below 2^-6
_MARGIN = 1 + 1e-4  # for fp32's rounding of the quotient


def row_scales(values: torch.Tensor, name: str) -> torch.Tensor:
    """Scales fp32 [rows, 1] of `values` [rows, in], any floating dtype. Raises CheckpointError for NaN and infinity."""
    return scales_of(largest_of_rows(values, name))


def scales_of(largest: torch.Tensor) -> torch.Tensor:
    """Scales in fp32 for the largest magnitudes, any shape."""
    scales = largest.to(torch.float32) / LARGEST
    return scales.masked_fill_(scales == 0, 1)


def to_fp8(values: torch.Tensor, scale: torch.Tensor, data: torch.Tensor) -> None:
    """Fill `data` fp8 [rows, in] from `values` [rows, in] over `scale` fp32 [rows, 1] or [1, 1]."""
    step = max(1, CHUNK // max(1, values.shape[1]))
    for first in range(0, len(values), step):
        part = slice(first, first + step)
        block = values[part].to(torch.float32, copy=True)
        data[part] = block.div_(_of_rows(scale, part)).clamp_(-LARGEST, LARGEST)


def off(values: torch.Tensor, data: torch.Tensor, scale: torch.Tensor) -> bool:
    """Whether any value [rows, in] is further than half a step from its fp8 number `data` times `scale`."""
    step = max(1, CHUNK // max(1, values.shape[1]))
    for first in range(0, len(values), step):
        part = slice(first, first + step)
        scales = _of_rows(scale, part)
        block = values[part].to(torch.float32)
        error = data[part].to(torch.float32).mul_(scales).sub_(block).abs_()
        bound = (block.abs() * _HALF_STEP).maximum(scales * _LEAST_HALF_STEP).mul_(_MARGIN)
        if not bool((error <= bound).all()):
            return True
    return False


def refuse_too_large(values: torch.Tensor, name: str) -> None:
    """Raise CheckpointError where `values` [rows, in] hold what fp8 can't store without scales, NaN and infinity."""
    if bool((largest_of_rows(values, name) > LARGEST).any()):
        raise CheckpointError(f"{name} is too large for fp8 without scales.", hint="Store it with scales.")


def _of_rows(scale: torch.Tensor, part: slice) -> torch.Tensor:
    return scale[part] if len(scale) > 1 else scale
