"""A step cache: where a step changes little, most of the transformer is skipped and its last effect is used again.

Settings name TeaCache or MagCache, and a speed factor; the cache is diffusers' First Block Cache, which measures the
change itself. A pass goes on beyond the first block only where that block's effect r differs from the one of the last
full pass, r', by more than a threshold: mean|r - r'| / mean|r'| > threshold.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import nn

from reeltune.request.values import StepSkipping
from reeltune.weights._libraries import enable_step_cache, step_cache_states, step_was_skipped

_THRESHOLD = 0.08  # for twice the speed, by rule of thumb: what was skipped is said after each video
States = dict[str, Any]  # by the name of the pass


@dataclass
class StepCache:
    """The cache of one video. `start`: the first step, counted from 0, it may skip in; `skipped`: passes it did."""

    threshold: float
    start: int
    skipped: int = 0
    passes: int = 0
    _on: list[nn.Module] = field(default_factory=list)

    def states(self, model: nn.Module) -> States | None:
        """What the cache remembers of the passes before; None before its first."""
        if model not in self._on:
            return None
        return step_cache_states(model)

    def arm(self, model: Any, step: int, states: States | None) -> None:
        """Have the model's next pass go through the cache, where its time has come, remembering `states`."""
        if model in self._on or step < self.start:
            return
        enable_step_cache(model, self.threshold, states or {})
        self._on.append(model)

    def disarm(self, model: Any) -> None:
        """Take the cache off a model."""
        if model in self._on:
            self._on.remove(model)
            model.disable_cache()

    def count(self, model: nn.Module, branch: str) -> None:
        """Note whether the pass that was made skipped."""
        self.passes += 1
        if model in self._on:
            self.skipped += step_was_skipped(model, branch)

    def close(self) -> None:
        """Take the cache off all models."""
        for model in list(self._on):
            self.disarm(model)


def step_cache(skipping: StepSkipping, steps: int) -> StepCache:
    """The cache of a video with so many steps."""
    return StepCache(threshold(skipping.speed), max(1, round(skipping.start * steps)))


def threshold(speed: float) -> float:
    """How much the first block's effect may differ, for a speed factor of 1 (never) and up."""
    return _THRESHOLD * (speed - 1)
