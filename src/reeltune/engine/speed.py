"""Preferences that make passes faster: the attention kernel, compiled blocks, int8 and fp8 arithmetic."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from reeltune._quiet import quiet
from reeltune.engine.reporting import Reporter
from reeltune.preferences import Preferences
from reeltune.weights import fp8
from reeltune.weights._libraries import (
    is_fp8,
    is_int8,
    is_quantized,
    multiplying_in_fp8,
    quantized_parts,
    quantizes_activations,
    quantizing_activations,
    set_quantized_parts,
)

_BACKENDS: Mapping[str, str] = {
    "auto": "native", "sdpa": "native", "flash": "flash", "flash3": "_flash_3", "sage": "sage", "xformers": "xformers",
}  # fmt: skip
_COMPILER = ("torch._dynamo", "torch._inductor")
_FP8_CAPABILITY = (8, 9)
_FP8_MULTIPLE = 16  # of which both sizes of a matrix must be
_ALIGNED = 64  # bytes: where torch puts tensors of its own


def speed_up(model: nn.Module, preferences: Preferences, device: torch.device, reporter: Reporter) -> None:
    """Set up a transformer that was just loaded, as the preferences say, for a device.

    What isn't available is reported, and the usual way taken.
    """
    if preferences.int8 == "dynamic":
        dynamic_int8(model)
    if preferences.fp8 == "dynamic":
        dynamic_fp8(model, device, reporter)
    _attention(model, preferences.attention, reporter)
    if preferences.compile and _compile(model, reporter) and device.type == "cpu":
        align(model)


def dynamic_int8(model: nn.Module) -> int:
    """Multiply int8 weights with activations in int8 too, a scale for each token; returns how many layers do."""
    count = 0
    for module in model.modules():
        weight = getattr(module, "weight", None)
        if isinstance(module, nn.Linear) and is_int8(weight) and not quantizes_activations(weight):
            module.weight = nn.Parameter(quantizing_activations(weight), requires_grad=False)
            count += 1
    return count


def dynamic_fp8(model: nn.Module, device: torch.device, reporter: Reporter) -> int:
    """Multiply fp8 weights with activations in fp8 too, where a card computes that; returns how many layers do.

    In other layers, and on other devices, weights are decoded where they are used: weights of e5m2, layers whose sizes
    aren't multiples of 16, and runs in fp16, whose products a card gives in bf16 only.
    """
    layers = [module for module in model.modules() if isinstance(module, nn.Linear) and _can_multiply_in_fp8(module)]
    if not layers or not computes_fp8(device):
        return 0
    try:
        fp8.try_product(device)
    except RuntimeError as error:
        reason = str(error).strip().partition("\n")[0]
        reporter.notice(f"{device} doesn't multiply in fp8 here ({reason}): fp8 weights are multiplied in 16 bits.")
        return 0
    for layer in layers:
        layer.weight = nn.Parameter(multiplying_in_fp8(layer.weight), requires_grad=False)
    return len(layers)


def _can_multiply_in_fp8(layer: nn.Linear) -> bool:
    weight = layer.weight
    if not is_fp8(weight) or weight.dtype != torch.bfloat16:
        return False
    data, _ = quantized_parts(weight)
    return data.dtype == fp8.E4M3 and all(size % _FP8_MULTIPLE == 0 for size in data.shape)


def computes_fp8(device: torch.device) -> bool:
    """Whether a device has units for fp8: NVIDIA cards of compute capability 8.9 and later."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= _FP8_CAPABILITY


def _attention(model: Any, preferred: str, reporter: Reporter) -> None:
    """The backend of diffusers' dispatcher that computes attention; torch's own takes flash attention where it can."""
    try:
        with quiet():
            model.set_attention_backend(_BACKENDS[preferred])
    except (RuntimeError, ValueError, ImportError, AttributeError) as error:
        reason = str(error).strip().partition("\n")[0]
        reporter.notice(f"Attention by {preferred} isn't available here ({reason}): sdpa computes it.")
        with quiet():
            model.set_attention_backend("native")


def _compile(model: Any, reporter: Reporter) -> bool:
    """Have torch compile the blocks that repeat; the first step then takes a minute longer. Returns whether it can."""
    if compiled(model):
        return True
    try:
        from torch._inductor.cpp_builder import get_cpp_compiler

        get_cpp_compiler()
    except Exception as error:  # torch's own, from a private place
        reason = str(error).strip().partition("\n")[0]
        reporter.notice(f"The transformer's blocks can't be compiled here ({reason}).")
        return False
    reporter.notice("The transformer's blocks are compiled: the first step of each size takes longer.")
    model.compile_repeated_blocks()
    return True


def compilation_failed(error: BaseException) -> bool:
    """Whether an error comes from torch's compiler, which does its work in the first pass of each size."""
    return any(type(cause).__module__.startswith(_COMPILER) for cause in (error, error.__cause__) if cause is not None)


def compiled(model: nn.Module) -> bool:
    """Whether any of a model's blocks are compiled."""
    return any(getattr(module, "_compiled_call_impl", None) for module in model.modules())


def undo_compile(model: nn.Module) -> None:
    """Let a model's blocks run as they are from here on."""
    for module in model.modules():
        module._compiled_call_impl = None


def align(model: nn.Module) -> None:
    """Copy the weights that lie unaligned in their file: compiled for a CPU, quantized layers crash on them."""
    weight: Any
    for weight in model.parameters():
        data = weight.data
        if is_quantized(data):
            levels, scale = quantized_parts(weight)
            set_quantized_parts(weight, _aligned(levels), _aligned(scale))
        else:
            weight.data = _aligned(data)


def _aligned(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.clone() if tensor.data_ptr() % _ALIGNED else tensor
