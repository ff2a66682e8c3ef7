"""What stands in the pipeline's place of a transformer: loads it when it comes to it, and steers each of its passes.

The pipeline's loop is diffusers' own. All that settings change about it (guidance, step cache, positions), and all that
memory asks for, happens around single passes, here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from reeltune.engine.guidance import Guidance, guidance, rescaled, without
from reeltune.engine.placing import Places
from reeltune.engine.riflex import stretch, stretched
from reeltune.engine.speed import compilation_failed, compiled, undo_compile
from reeltune.engine.stepcache import StepCache, step_cache
from reeltune.errors import SettingsError
from reeltune.families import Architecture
from reeltune.request.parse import Request

_AUTO, _ON, _OFF = range(3)  # RIFLEx_setting
_BRANCHES = ("cond", "uncond")  # in the order of the pipelines' passes


@dataclass
class Steering:
    """What one video's settings ask of the passes. `step` counts from 0 and is moved on by whoever hears of steps."""

    guidance: Guidance = field(default_factory=Guidance)
    cache: StepCache | None = None
    lengthened: bool = False  # RIFLEx
    stretched: bool = False  # and it changed something
    step: int = 0
    passes: int = 0  # made in this step
    conditional: torch.Tensor | None = None  # of this step

    def next_step(self, done: int) -> None:
        """A step is over; `done` of them are."""
        self.step, self.passes, self.conditional = done, 0, None

    def close(self) -> None:
        """The video is over, made or not."""
        self.conditional = None
        if self.cache is not None:
            self.cache.close()


def steering(architecture: Architecture, request: Request, config: Any, say: Callable[[str], None]) -> Steering:
    """What a request's settings ask of the passes of a transformer with that config. Raises SettingsError."""
    settings = {key: value for key, value in request.settings.items() if key in architecture.settings}
    asked = guidance(settings, request.steps, config.num_layers)
    cache = step_cache(settings, request.steps)
    if cache and {0, config.num_layers - 1} & set(asked.layers):
        message = "The step cache can't be used where perturbation_layers leave out the first or the last block."
        raise SettingsError(message, hint="Take these off perturbation_layers, or leave skip_steps_cache_type empty.")
    if (asked.optimized or asked.layers) and request.guidance <= 1:
        say("guidance_scale is 1, which turns guidance off: CFG-Zero* and skip-layer guidance change nothing.")
    return Steering(asked, cache, _lengthened(architecture, settings, request, say))


def _lengthened(
    architecture: Architecture, settings: Mapping[str, Any], request: Request, say: Callable[[str], None]
) -> bool:
    """Whether RIFLEx is on: 1, or 0 (auto) for a video longer than the family was trained on."""
    wish = settings.get("RIFLEx_setting", _OFF)
    longer = request.frames > architecture.family.trained_frames
    if wish == _AUTO and longer:
        say(
            f"RIFLEx is on: {request.frames} frames are more than the {architecture.family.trained_frames} of training."
        )
    return wish == _ON or (wish == _AUTO and longer)


class Denoiser:
    """Answers for a transformer. `load` gives it, the second time from memory; `config`, `dtype` are the model's."""

    def __init__(
        self,
        config: Any,
        dtype: torch.dtype,
        load: Callable[[], nn.Module],
        places: Places,
        steering: Steering,
        say: Callable[[str], None],
    ) -> None:
        self.config, self.dtype = config, dtype
        self._load, self._places, self._steering, self._say = load, places, steering, say

    def cache_context(self, *_: Any, **__: Any) -> AbstractContextManager[None]:
        """Nothing: each pass says itself which one it is, as some pipelines don't."""
        return nullcontext()

    def __call__(self, **options: Any) -> tuple[torch.Tensor]:
        """A forward pass, as the settings want it."""
        steering = self._steering
        branch = _BRANCHES[min(steering.passes, 1)]
        steering.passes += 1
        if steering.step < steering.guidance.zero_steps:
            return (self._zeros(options["hidden_states"]),)
        output = self._pass(branch, options)
        if steering.guidance.optimized:
            if branch == "cond":
                steering.conditional = output
            elif steering.conditional is not None:
                output = rescaled(steering.conditional, output)
        return (output,)

    def _pass(self, branch: str, options: dict[str, Any]) -> torch.Tensor:
        model: Any = self._load()
        steering, cache = self._steering, self._steering.cache
        states = cache.states(model) if cache else None
        skipped = steering.guidance.skipped(steering.step) if branch == "uncond" else ()

        def forward() -> torch.Tensor:
            if cache:
                cache.arm(model, steering.step, states)
            with ExitStack() as stack:
                if skipped:
                    stack.enter_context(without(model.blocks, skipped))
                if steering.lengthened:
                    by = stretch(model.rope, options["hidden_states"].shape[2])
                    steering.stretched |= by is not None
                    stack.enter_context(stretched(model.rope, by))
                stack.enter_context(model.cache_context(branch))
                return model(**options)[0]  # type: ignore[no-any-return]

        def undo() -> None:
            if cache:
                cache.disarm(model)

        try:
            output = self._places.run([model], forward, undo)
        except Exception as error:
            if not (compiled(model) and compilation_failed(error)):
                raise
            self._say(f"The transformer's blocks run without being compiled: {_first_line(error)}")
            undo_compile(model)
            undo()
            output = self._places.run([model], forward, undo)
        if cache:
            cache.count(model, branch)
        return output

    def _zeros(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """A velocity of zero, [batch, channels, frames, height, width]."""
        batch, _, *sides = hidden_states.shape
        return hidden_states.new_zeros((batch, self.config.out_channels, *sides))


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
