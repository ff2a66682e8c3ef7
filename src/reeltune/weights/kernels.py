"""The arithmetic of `formats.quanto_int8` compiled by numba: one pass over each row, no other memory, no lock held.

All work on rows of 16-bit floats as they are stored (`uint16`) or of fp32, and give the bits that torch gives. 16-bit
floats are compared by their magnitudes' bits, which order as the numbers do; not-a-number and infinity come last.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numba
import numpy as np
import torch

_Function = TypeVar("_Function", bound=Callable[..., Any])
_DTYPES = (torch.bfloat16, torch.float16, torch.float32)
_FP16_BIAS = np.float32(2.0**112)  # from fp16's exponents to fp32's; a power of two: exact


def jitted(function: _Function) -> _Function:
    """A function as numba compiles it when it is first called."""
    compiled: _Function = numba.njit(nogil=True, cache=True, error_model="numpy")(function)
    return compiled


@jitted
def _largest_16(bits: Any, magnitudes: Any) -> None:
    for row in range(bits.shape[0]):
        most = np.uint16(0)
        for column in range(bits.shape[1]):
            most = max(most, np.uint16(bits[row, column] & np.uint16(0x7FFF)))
        magnitudes[row] = most


@jitted
def _largest_32(bits: Any, magnitudes: Any) -> None:
    for row in range(bits.shape[0]):
        most = np.uint32(0)
        for column in range(bits.shape[1]):
            most = max(most, np.uint32(bits[row, column] & np.uint32(0x7FFFFFFF)))
        magnitudes[row] = most


@jitted
def _from_bf16(bits: Any) -> Any:
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


@jitted
def _from_fp16(bits: Any) -> Any:
    wide = bits.astype(np.uint32)
    magnitude = ((wide & np.uint32(0x7FFF)) << np.uint32(13)).view(np.float32) * _FP16_BIAS
    return (magnitude.view(np.uint32) | ((wide & np.uint32(0x8000)) << np.uint32(16))).view(np.float32)


@jitted
def _divide(values: Any, step: Any, data: Any) -> None:
    for column in range(values.shape[0]):
        level = np.rint(values[column] / step)
        data[column] = np.int8(min(max(level, np.float32(-128)), np.float32(127)))


@jitted
def _off(values: Any, step: Any, data: Any) -> bool:
    """Whether any value is further than half a step away, but for those beyond the last level."""
    bound = step * np.float32(0.5 + 1e-4)
    worst = np.uint32(0)
    errors = np.abs(values - data.astype(np.float32) * step).view(np.uint32)
    for column in range(values.shape[0]):
        worst = max(worst, errors[column])
    if worst <= np.array([bound], np.float32).view(np.uint32)[0]:
        return False
    for column in range(values.shape[0]):
        beyond = max(np.float32(0), abs(values[column]) - np.float32(127) * step)
        if not errors.view(np.float32)[column] <= bound + beyond:
            return True
    return False


@jitted
def _numbers_of(bits: Any, fp16: bool) -> Any:
    """One row of 16-bit floats as fp32."""
    return _from_fp16(bits) if fp16 else _from_bf16(bits)


@jitted
def _quantize_16(bits: Any, fp16: bool, steps: Any, data: Any) -> None:
    for row in range(bits.shape[0]):
        _divide(_numbers_of(bits[row], fp16), steps[row], data[row])


@jitted
def _quantize_32(values: Any, steps: Any, data: Any) -> None:
    for row in range(values.shape[0]):
        _divide(values[row], steps[row], data[row])


@jitted
def _off_16(bits: Any, fp16: bool, steps: Any, data: Any) -> bool:
    wrong = False
    for row in range(bits.shape[0]):
        wrong |= _off(_numbers_of(bits[row], fp16), steps[row], data[row])
    return wrong


@jitted
def _off_32(values: Any, steps: Any, data: Any) -> bool:
    wrong = False
    for row in range(values.shape[0]):
        wrong |= _off(values[row], steps[row], data[row])
    return wrong


def takes(values: torch.Tensor) -> bool:
    """Whether a tensor [rows, in] can be worked on as it is."""
    return values.dtype in _DTYPES and values.is_contiguous() and values.device.type == "cpu"


def largest(values: torch.Tensor) -> torch.Tensor:
    """Largest magnitude in each row of `values` [rows, in], as [rows, 1] of the same dtype; NaN counts as largest."""
    bits = _bits(values)
    magnitudes = np.empty(len(bits), bits.dtype)
    if values.dtype == torch.float32:
        _largest_32(bits, magnitudes)
        signed = magnitudes.view(np.int32)
    else:
        _largest_16(bits, magnitudes)
        signed = magnitudes.view(np.int16)
    return torch.from_numpy(signed).view(values.dtype).view(-1, 1)


def divide(values: torch.Tensor, scale: torch.Tensor, data: torch.Tensor) -> None:
    """Fill `data` int8 [rows, in] with the levels of `values` [rows, in] at the steps `scale` [rows, 1]."""
    if values.dtype == torch.float32:
        _quantize_32(values.numpy(), _steps(scale), data.numpy())
    else:
        _quantize_16(_bits(values), values.dtype == torch.float16, _steps(scale), data.numpy())


def off(values: torch.Tensor, data: torch.Tensor, scale: torch.Tensor) -> bool:
    """As `quanto_int8.off`."""
    if values.dtype == torch.float32:
        return bool(_off_32(values.numpy(), _steps(scale), data.numpy()))
    return bool(_off_16(_bits(values), values.dtype == torch.float16, _steps(scale), data.numpy()))


def _bits(values: torch.Tensor) -> Any:
    if values.dtype == torch.float32:
        return values.view(torch.int32).numpy().view(np.uint32)
    return values.view(torch.int16).numpy().view(np.uint16)


def _steps(scale: torch.Tensor) -> Any:
    return scale.to(torch.float32).view(-1).numpy()
