"""What settings ask of guidance beyond its scale: CFG-Zero* and skip-layer guidance, by the two passes of each step.

The pipeline mixes v = u + w (c - u) from a pass with the prompt, c, and one without, u. Both of these change only u,
or leave passes out, so its loop stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from reeltune.errors import SettingsError
from reeltune.families.vocabulary import ASSUMED
from reeltune.settings import neutral


@dataclass(frozen=True)
class Guidance:
    """`zero_steps`: first steps whose velocity is zero; `optimized`: CFG-Zero*'s scale is on. `layers`: blocks left out
    of the pass without the prompt in steps `begin` to `end` (counted from 0, the end excluded).
    """

    optimized: bool = False
    zero_steps: int = 0
    layers: tuple[int, ...] = ()
    begin: int = 0
    end: int = 0

    def skipped(self, step: int) -> tuple[int, ...]:
        """Blocks that the pass without the prompt leaves out in this step."""
        return self.layers if self.begin <= step < self.end else ()


def guidance(settings: Mapping[str, Any], steps: int, blocks: int) -> Guidance:
    """What the settings ask for, of a model with so many blocks. Raises SettingsError."""
    settings = {**ASSUMED, **settings}
    optimized = not neutral("cfg_star_switch", settings)
    zero = settings["cfg_zero_step"] + 1 if optimized else 0
    layers = _layers(settings, blocks)
    begin, end = settings["perturbation_start_perc"] / 100, settings["perturbation_end_perc"] / 100
    return Guidance(optimized, min(zero, steps), layers, int(begin * steps), int(end * steps))


def _layers(settings: Mapping[str, Any], blocks: int) -> tuple[int, ...]:
    """Blocks that skip-layer guidance leaves out; none where it is off."""
    if neutral("perturbation_switch", settings):
        return ()
    layers = tuple(settings["perturbation_layers"] or ASSUMED["perturbation_layers"])
    if max(layers) >= blocks:
        message = f"perturbation_layers is {list(layers)}, and the model has {blocks} blocks."
        hint = f"Give numbers from 0 to {blocks - 1}, such as perturbation_layers=[{blocks // 3}]."
        raise SettingsError(message, hint=hint)
    return layers


def optimal_scale(conditional: torch.Tensor, unconditional: torch.Tensor) -> torch.Tensor:
    """CFG-Zero*'s s = <c, u> / |u|^2 of each video (arXiv 2503.18886), fp32, shaped to multiply with u."""
    c, u = (row.float().flatten(1) for row in (conditional, unconditional))
    scale = (c * u).sum(1) / (u.square().sum(1) + 1e-8)
    return scale.view(-1, *[1] * (unconditional.ndim - 1))


def rescaled(conditional: torch.Tensor, unconditional: torch.Tensor) -> torch.Tensor:
    """s u: the pipeline's mix makes of it CFG-Zero*'s v = s u + w (c - s u)."""
    return (optimal_scale(conditional, unconditional) * unconditional.float()).to(unconditional.dtype)


@contextmanager
def without(blocks: nn.ModuleList, layers: tuple[int, ...]) -> Iterator[None]:
    """Leave some blocks out meanwhile: what goes in comes out.

    In place of v = u + w (c - u), the pass without the prompt being one without these blocks too (spatiotemporal skip
    guidance, arXiv 2411.18664, joined with the negative prompt).
    """
    with ExitStack() as stack:
        for index in layers:
            stack.enter_context(_passed_by(blocks[index]))
        yield


@contextmanager
def _passed_by(block: nn.Module) -> Iterator[None]:
    own = vars(block).get("forward")
    block.forward = lambda hidden_states, *_, **__: hidden_states
    try:
        yield
    finally:
        if own is None:
            del block.forward
        else:
            block.forward = own
