"""RIFLEx (arXiv 2502.15894): videos longer than the model was trained on, which don't repeat themselves.

A rotary position turns each pair of features with a frequency of its own; the *intrinsic* one is that whose period is
where the model begins to repeat itself. Lowered until its period covers all L latent frames, 0.9 * 2 pi / L, nothing
comes round again.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from reeltune.engine.families.base import TemporalAxis

Inputs = tuple[torch.Tensor, ...]  # of the rotary embedding: the hidden states [batch, channels, frames, height, width]
Embedding = tuple[torch.Tensor, torch.Tensor]  # cosines and sines

_REPEATS = 50  # latent frames after which these models begin anew: frequency 6 of Wan's 22, 4 of Hunyuan's 8
_SHARE = 0.9  # of a whole turn, at most, within the video


@dataclass(frozen=True)
class Stretch:
    """Frequency number `index` (from 0) of the temporal ones becomes `frequency`, in radians a latent frame."""

    index: int
    frequency: float


def intrinsic(frequencies: list[float]) -> int:
    """Which frequency's period is nearest to where the model repeats."""
    return min(range(len(frequencies)), key=lambda index: abs(2 * math.pi / frequencies[index] - _REPEATS))


def stretch(axis: TemporalAxis, frames: int) -> Stretch | None:
    """The frequency to lower for `frames` latent frames; None where no frequency is too high."""
    frequencies = [axis.base ** (-2 * index / axis.size) for index in range(axis.size // 2)]
    index = intrinsic(frequencies)
    frequency = _SHARE * 2 * math.pi / frames
    return Stretch(index, frequency) if frequency < frequencies[index] else None


@contextmanager
def stretched(rope: nn.Module, axis: TemporalAxis, lower: Stretch | None) -> Iterator[None]:
    """Within the context, a model's rotary embedding uses the lowered frequency."""
    if lower is None:
        yield
        return

    def lower_outputs(rope: nn.Module, inputs: Inputs, outputs: Embedding) -> Embedding:
        frames = inputs[0].shape[2] // axis.patch
        return lowered(*outputs, lower, frames)

    hook = rope.register_forward_hook(lower_outputs)
    try:
        yield
    finally:
        hook.remove()


def lowered(cos: torch.Tensor, sin: torch.Tensor, lower: Stretch, frames: int) -> Embedding:
    """The embedding with one frequency replaced. `cos`, `sin`: [tokens, features] (Wan: [1, tokens, 1, features])."""
    tokens = cos.numel() // cos.shape[-1]
    frame = torch.arange(tokens) // (tokens // frames)  # each token's latent frame
    angle = (frame.double() * lower.frequency).reshape(*cos.shape[:-1], 1)  # on the CPU: Apple's GPU has no float64
    pair = slice(2 * lower.index, 2 * lower.index + 2)
    cos, sin = cos.clone(), sin.clone()
    cos[..., pair], sin[..., pair] = angle.cos().to(cos), angle.sin().to(sin)
    return cos, sin
