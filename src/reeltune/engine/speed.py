"""Preferences that make passes faster: the attention kernel, compiled blocks, int8 arithmetic."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from reeltune._quiet import quiet
from reeltune.engine.reporting import Reporter
from reeltune.preferences import Preferences
from reeltune.weights._libraries import (
    int8_parts,
    is_int8,
    quantizes_activations,
    quantizing_activations,
    set_int8_parts,
)

_BACKENDS: Mapping[str, str] = {
    "auto": "native", "sdpa": "native", "flash": "flash", "flash3": "_flash_3", "sage": "sage", "xformers": "xformers",
}  # fmt: skip
_COMPILER = ("torch._dynamo", "torch._inductor")
_ALIGNED = 64  # bytes: where torch puts tensors of its own


def speed_up(model: nn.Module, preferences: Preferences, device: torch.device, reporter: Reporter) -> None:
    """Set up a transformer that was just loaded, as the preferences say, for a device.

    What isn't available is reported, and the usual way taken.
    """
    if preferences.int8 == "dynamic":
        dynamic_int8(model)
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
    """Copy the weights that lie unaligned in their file: compiled for a CPU, int8 layers crash on them."""
    weight: Any
    for weight in model.parameters():
        data = weight.data
        if is_int8(data):
            levels, scale = int8_parts(weight)
            set_int8_parts(weight, _aligned(levels), _aligned(scale))
        else:
            weight.data = _aligned(data)


def _aligned(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.clone() if tensor.data_ptr() % _ALIGNED else tensor
