"""A step cache: where a step changes little, most of the transformer is skipped and its last effect is used again.

Settings name TeaCache or MagCache, and a speed factor; the cache is diffusers' First Block Cache, which measures the
change itself. A pass goes on beyond the first block only where that block's effect r differs from the one of the last
full pass, r', by more than a threshold: mean|r - r'| / mean|r'| > threshold.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

from diffusers.hooks import FirstBlockCacheConfig
from torch import nn

from reeltune.request.values import StepSkipping

_THRESHOLD = 0.08  # for twice the speed, by rule of thumb: what was skipped is said after each video
_HEAD = "fbc_leader_block_hook"
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
        return {name: copy.copy(state) for name, state in _manager(model)._state_cache.items()}

    def arm(self, model: Any, step: int, states: States | None) -> None:
        """Have the model's next pass go through the cache, where its time has come, remembering `states`."""
        if model in self._on or step < self.start:
            return
        model.enable_cache(FirstBlockCacheConfig(threshold=self.threshold))
        self._on.append(model)
        _manager(model)._state_cache.update({name: copy.copy(state) for name, state in (states or {}).items()})

    def disarm(self, model: Any) -> None:
        """Take the cache off a model."""
        if model in self._on:
            self._on.remove(model)
            model.disable_cache()

    def count(self, model: nn.Module, branch: str) -> None:
        """Note whether the pass that was made skipped."""
        self.passes += 1
        if model in self._on:
            self.skipped += not _manager(model)._state_cache[branch].should_compute

    def close(self) -> None:
        """Take the cache off all models."""
        for model in list(self._on):
            self.disarm(model)


def _manager(model: nn.Module) -> Any:
    """Where the first block's hook keeps its states."""
    registries: list[Any] = [getattr(module, "_diffusers_hook", None) for module in model.modules()]
    return next(row.hooks[_HEAD].state_manager for row in registries if row is not None and _HEAD in row.hooks)


def step_cache(skipping: StepSkipping, steps: int) -> StepCache:
    """The cache of a video with so many steps."""
    return StepCache(threshold(skipping.speed), max(1, round(skipping.start * steps)))


def threshold(speed: float) -> float:
    """How much the first block's effect may differ, for a speed factor of 1 (never) and up."""
    return _THRESHOLD * (speed - 1)
