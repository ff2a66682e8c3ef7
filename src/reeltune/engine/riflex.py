"""RIFLEx (arXiv 2502.15894): videos longer than the model was trained on, without beginning anew.

A rotary position turns each pair of features with a frequency of its own; the *intrinsic* one is that whose period is
where the model begins to repeat itself. Lowered until its period covers all L latent frames, 0.9 * 2 pi / L, nothing
comes round again.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

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


def stretch(rope: Any, frames: int) -> Stretch | None:
    """What has to be lowered for `frames` latent frames; None where it turns slowly enough already."""
    if hasattr(rope, "t_dim"):  # Wan
        size, base = rope.t_dim, 10_000.0
    else:
        size, base = rope.rope_dim[0], rope.theta
    frequencies = [base ** (-2 * index / size) for index in range(size // 2)]
    index = intrinsic(frequencies)
    wanted = _SHARE * 2 * math.pi / frames
    return Stretch(index, wanted) if wanted < frequencies[index] else None


@contextmanager
def stretched(rope: nn.Module, by: Stretch | None) -> Iterator[None]:
    """Let a model's rotary embedding answer with the lowered frequency meanwhile."""
    if by is None:
        yield
        return
    own, inner = vars(rope).get("forward"), rope.forward

    def forward(hidden_states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        cos, sin = inner(hidden_states)
        return lowered(cos, sin, by, hidden_states.shape[2] // _patch(rope))

    rope.forward = forward
    try:
        yield
    finally:
        if own is None:
            del rope.forward
        else:
            rope.forward = own


def lowered(cos: torch.Tensor, sin: torch.Tensor, by: Stretch, frames: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The embedding with one frequency replaced. `cos`, `sin`: [tokens, features] (Wan: [1, tokens, 1, features])."""
    tokens = cos.numel() // cos.shape[-1]
    frame = torch.arange(tokens) // (tokens // frames)  # each token's latent frame
    angle = (frame.double() * by.frequency).reshape(*cos.shape[:-1], 1)  # on the CPU: Apple's GPU has no float64
    pair = slice(2 * by.index, 2 * by.index + 2)
    cos, sin = cos.clone(), sin.clone()
    cos[..., pair], sin[..., pair] = angle.cos().to(cos), angle.sin().to(sin)
    return cos, sin


def _patch(rope: Any) -> int:
    return int(rope.patch_size[0]) if hasattr(rope, "t_dim") else int(rope.patch_size_t)
