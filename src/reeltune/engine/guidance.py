"""Guidance beyond its scale: CFG-Zero* and skip-layer guidance, applied to the two passes of each step.

The pipeline mixes v = u + w (c - u) from a pass with the prompt, c, and one without, u. Both of these change only u,
or leave passes out, so its loop stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from reeltune.errors import SettingsError
from reeltune.request.values import Guidance


@dataclass(frozen=True)
class GuidanceSchedule:
    """What guidance does in each step of a video.

    `zero_star`: CFG-Zero*'s scale is on; `zero_steps`: first steps whose velocity is zero. `layers`: blocks left out of
    the pass without the prompt in steps `begin` to `end` (counted from 0, the end excluded).
    """

    zero_star: bool = False
    zero_steps: int = 0
    layers: tuple[int, ...] = ()
    begin: int = 0
    end: int = 0

    def skipped(self, step: int) -> tuple[int, ...]:
        """Blocks that the pass without the prompt leaves out in this step."""
        return self.layers if self.begin <= step < self.end else ()


def schedule_of(guidance: Guidance, steps: int, blocks: int) -> GuidanceSchedule:
    """The schedule of a request's guidance, for a model with so many blocks. Raises SettingsError."""
    zero_steps = min(guidance.zero_steps, steps)
    skipped = guidance.skipped_layers
    if skipped is None:
        return GuidanceSchedule(guidance.zero_star, zero_steps)
    if max(skipped.layers) >= blocks:
        message = f"perturbation_layers is {list(skipped.layers)}, and the model has {blocks} blocks."
        hint = f"Give numbers from 0 to {blocks - 1}, such as perturbation_layers=[{blocks // 3}]."
        raise SettingsError(message, hint=hint)
    begin, end = int(skipped.begin * steps), int(skipped.end * steps)
    return GuidanceSchedule(guidance.zero_star, zero_steps, skipped.layers, begin, end)


def optimal_scale(conditional: torch.Tensor, unconditional: torch.Tensor) -> torch.Tensor:
    """CFG-Zero*'s s = <c, u> / |u|^2 of each video (arXiv 2503.18886), fp32, shaped to multiply with u."""
    c, u = (row.float().flatten(1) for row in (conditional, unconditional))
    scale = (c * u).sum(1) / (u.square().sum(1) + 1e-8)
    return scale.view(-1, *[1] * (unconditional.ndim - 1))


def rescaled(conditional: torch.Tensor, unconditional: torch.Tensor) -> torch.Tensor:
    """s u: with it in place of u, the pipeline computes CFG-Zero*'s v = s u + w (c - s u)."""
    return (optimal_scale(conditional, unconditional) * unconditional.float()).to(unconditional.dtype)


def with_deviation(velocity: torch.Tensor, conditional: torch.Tensor, share: float) -> torch.Tensor:
    """A guided velocity, rescaled towards the standard deviation of the pass with the prompt (arXiv 2305.08891).

    `share`: 0 leaves it unchanged; 1 gives it exactly that deviation.
    """
    if not share:
        return velocity
    deviations = [row.float().flatten(1).std(1) for row in (conditional, velocity)]  # each [batch]
    factor = share * deviations[0] / deviations[1] + 1 - share
    return velocity * factor.view(-1, *[1] * (velocity.ndim - 1)).to(velocity.dtype)


@contextmanager
def without(blocks: nn.ModuleList, layers: tuple[int, ...]) -> Iterator[None]:
    """Leave some blocks out within the context: their inputs are returned unchanged.

    In place of v = u + w (c - u), the pass without the prompt being one without these blocks too (spatiotemporal skip
    guidance, arXiv 2411.18664, joined with the negative prompt).
    """
    left_out = {index: blocks[index] for index in layers}
    for index in left_out:
        blocks[index] = _PassedBy()
    try:
        yield
    finally:
        for index, block in left_out.items():
            blocks[index] = block


class _PassedBy(nn.Module):
    """A block that does nothing."""

    def forward(self, hidden_states: torch.Tensor, *_: object, **__: object) -> torch.Tensor:
        """The hidden states [batch, tokens, features] as they are."""
        return hidden_states
