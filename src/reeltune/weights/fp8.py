"""Computing with fp8 weights (e4m3): decoding them, and products in fp8 on cards that compute them."""

from __future__ import annotations

import torch

E4M3 = torch.float8_e4m3fn
LARGEST = 448.0
_SHIFT = 7  # from e4m3's exponent and fraction to fp16's
_MAGNITUDE = 0x7F << _SHIFT
_SIGN = -(2**15)
_TO_FP16 = 2.0**8  # by which e4m3's bits, read as fp16, are too small
_DECODED = 256 * 1024  # values at once, which stay in the processor's cache
_LEAST_STEP = 1e-12  # of a token of zeros
_TRIED = 32  # the size of the product that is tried


def decode(data: torch.Tensor, scale: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """`data` fp8 [out, in] times `scale` fp32 [out, 1], computed in fp32, as `dtype`.

    torch converts fp8 number by number on CPUs. Shifted by 7 bits, a number's exponent and fraction are those of an
    fp16 number that is 2^8 times as small, so that conversions that torch does fast give the same numbers.
    """
    if data.device.type != "cpu" or data.dtype != E4M3 or torch.compiler.is_compiling():
        return (data.to(torch.float32) * scale).to(dtype)
    decoded = torch.empty(data.shape, dtype=dtype)
    larger_scale = scale * _TO_FP16
    step = max(1, _DECODED // max(1, data.shape[1]))
    for first in range(0, len(data), step):
        part = slice(first, first + step)
        bits = data[part].view(torch.int8).to(torch.int16)
        halves = (bits << _SHIFT).bitwise_and_(_MAGNITUDE)
        if halves.numel() and int(halves.amax()) == _MAGNITUDE:  # NaN, which has no such number
            decoded[part] = data[part].to(torch.float32) * scale[part]
            continue
        halves.bitwise_or_(bits.bitwise_and_(_SIGN))
        decoded[part] = halves.view(torch.float16).to(torch.float32).mul_(larger_scale[part])
    return decoded


def product(input: torch.Tensor, data: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """x W^T + b in fp8: x [..., in] in bf16, W as `data` e4m3 [out, in] times `scale` fp32 [out, 1], b [out] in bf16.

    Each token is divided by its largest magnitude over 448, as far as bf16 can tell that number; so no value is beyond
    450, and the conversion rounds what is above 448 to it. `torch._scaled_mm` with a scale for each row of both, bf16
    out: torch 2.13, on cards of compute capability 8.9 and later, where sizes are multiples of 16, and on CPUs.
    """
    rows = input.reshape(-1, input.shape[-1])
    largest = torch.linalg.vector_norm(rows, torch.inf, dim=1, keepdim=True)
    steps = (largest / LARGEST).clamp_(min=_LEAST_STEP)
    levels = (rows / steps).to(E4M3)
    result = torch._scaled_mm(
        levels,
        data.t(),
        scale_a=steps.to(torch.float32),
        scale_b=scale.t(),
        bias=bias,
        out_dtype=input.dtype,
        use_fast_accum=True,
    )
    return result.reshape(*input.shape[:-1], len(data))


def try_product(device: torch.device) -> None:
    """Compute a small product in fp8 on a device. Raises RuntimeError where torch or the device can't."""
    matrix = torch.ones(_TRIED, _TRIED, device=device, dtype=torch.bfloat16)
    scale = torch.ones(_TRIED, 1, device=device)
    product(matrix, matrix.to(E4M3), scale, matrix[0]).sum().item()
