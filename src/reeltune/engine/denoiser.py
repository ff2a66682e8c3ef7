"""A stand-in for the transformer in a pipeline: it loads the transformers when they are needed, and steers each pass.

The loop over the steps is diffusers' own. What settings change about it (phases, guidance, LoRAs, step cache,
positions), and what a memory profile does, happens around single passes, here.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch

from reeltune.definitions.slots import Slot
from reeltune.engine.families import runtime_of
from reeltune.engine.families.base import Arguments, Change, Conditions, FamilyRuntime, TemporalAxis, Tensors
from reeltune.engine.guidance import GuidanceSchedule, rescaled, schedule_of, with_deviation, without
from reeltune.engine.models import LoadedTransformer
from reeltune.engine.placing import Placement
from reeltune.engine.reporting import Reporter
from reeltune.engine.riflex import stretch, stretched
from reeltune.engine.speed import compilation_failed, compiled, undo_compile
from reeltune.engine.stepcache import StepCache, step_cache
from reeltune.errors import SettingsError
from reeltune.families import Architecture
from reeltune.families.base import blocks_of
from reeltune.families.scales import GuidanceRange
from reeltune.request.values import Phase, Request, Riflex

_COND, _UNCOND = "cond", "uncond"  # the passes with and without the prompt
_PERTURBED = "perturbed"  # the pass with the prompt, and with self-attention that does nothing in some blocks
_BARE = "bare"  # the pass without the prompt and without the condition


@dataclass
class Steering:
    """How the passes of one video are steered.

    `phases`, `scales`: the phase and the guidance of each step. `temporal_axis`: the axis that RIFLEx stretches, of a
    transformer's rotary embedding; None where it is off. `stretched`: whether it changed something. `step` counts from
    0.
    """

    phases: tuple[Phase, ...]
    scales: tuple[GuidanceRange, ...]
    guidance: GuidanceSchedule
    cache: StepCache | None = None
    temporal_axis: Callable[[Any], TemporalAxis] | None = None
    stretched: bool = False
    step: int = 0

    @property
    def phase(self) -> Phase:
        """The phase of the current step."""
        return self.phases[self.step]

    @property
    def scale(self) -> GuidanceRange:
        """The guidance of the current step."""
        return self.scales[self.step]

    def close(self) -> None:
        """Take the step cache off the models; in further steps it starts over."""
        if self.cache is not None:
            self.cache.close()


def steering(architecture: Architecture, request: Request, config: Any, reporter: Reporter) -> Steering:
    """How a request steers the passes of a transformer with that config. Raises SettingsError."""
    schedule = schedule_of(request.guidance, request.steps, blocks_of(config))
    cache = None if request.step_skipping is None else step_cache(request.step_skipping, request.steps)
    if cache and blocks_of(config) == 1:  # the first block is always computed
        message = "The step cache can't be used with a model of one block."
        raise SettingsError(message, hint="Leave skip_steps_cache_type empty.")
    if cache and {0, blocks_of(config) - 1} & set(schedule.layers):
        message = "The step cache can't be used where perturbation_layers leave out the first or the last block."
        raise SettingsError(message, hint="Take these off perturbation_layers, or leave skip_steps_cache_type empty.")
    if (schedule.zero_star or schedule.layers) and not request.guided:
        reporter.notice(
            "guidance_scale is 1, which turns guidance off: CFG-Zero* and skip-layer guidance change nothing."
        )
    lengthened = _lengthened(architecture, request, reporter)
    phases = tuple(request.phase(step) for step in range(request.steps))
    scales = tuple(_possible(request.guidance_of_step(step), blocks_of(config)) for step in range(request.steps))
    if any(request.guidance_of_step(step) != scales[step] for step in range(request.steps)):
        off = "partly off" if any(scale.perturbation for scale in scales) else "off"
        reporter.notice(
            f"Spatiotemporal guidance is {off}: the model has {blocks_of(config)} blocks, and not all those that the "
            "settings name."
        )
    return Steering(phases, scales, schedule, cache, runtime_of(architecture).temporal_axis if lengthened else None)


def _possible(guidance: GuidanceRange, blocks: int) -> GuidanceRange:
    """The guidance of a step without the blocks that the model doesn't have."""
    existing = tuple(block for block in guidance.blocks if block < blocks)
    if existing == guidance.blocks:
        return guidance
    return replace(guidance, blocks=existing, perturbation=guidance.perturbation if existing else 0.0)


def _lengthened(architecture: Architecture, request: Request, reporter: Reporter) -> bool:
    """Whether RIFLEx is on, with a notice where it was chosen by the length of the video."""
    trained = architecture.family.trained_frames
    if request.riflex is not Riflex.AUTO or request.frames <= trained:
        return request.riflex is Riflex.ON
    reporter.notice(f"RIFLEx is on: {request.frames} frames are more than the {trained} of training.")
    return True


class Velocity(NamedTuple):
    """What a pass returns: a tuple for most pipelines, with a name for Kandinsky's."""

    sample: torch.Tensor


class Denoiser:
    """Stands in for the transformers in a pipeline: returns the velocity of a step, guided as its phase says.

    In a pipeline that guides, it returns what a single pass does.

    `config`, `dtype`: the transformers'. `load` returns the transformer of a slot; a second call returns the same one
    from memory. `negative`: the arguments of the pass without the prompt that differ from those of the pass with it,
    empty if there is none. `conditions`: what the passes are shown.
    """

    conditions = Conditions()

    def __init__(
        self,
        config: Any,
        dtype: torch.dtype,
        load: Callable[[Slot], LoadedTransformer],
        placement: Placement,
        steering: Steering,
        negative: Tensors,
        reporter: Reporter,
        runtime: FamilyRuntime,
    ) -> None:
        self.config, self.dtype = config, dtype
        self._load, self._placement, self._steering, self._reporter = load, placement, steering, reporter
        self._perturbed, self._unconditional, self._guides = runtime.perturbed, runtime.unconditional, runtime.guides
        self._branch = _COND
        self._last: tuple[torch.Tensor, ...] = ()
        self._negative = {name: _in_run_dtype(value, dtype) for name, value in negative.items()}

    @property
    def visual_cond(self) -> bool:
        """Whether the model takes a start image beside the latents: Kandinsky's pipelines read it here."""
        return bool(self.config.visual_cond)

    @property
    def rope(self) -> Any:
        """The model's rotary embedding, which tells LTX-2's pipelines the positions of the video."""
        return self._load(self._steering.phase.transformer).model.rope

    @property
    def audio_rope(self) -> Any:
        """The same for the sound."""
        return self._load(self._steering.phase.transformer).model.audio_rope

    def cache_context(self, name: str = _COND, **_: Any) -> AbstractContextManager[None]:
        """Take note of the pass: each of them enters the context itself, as some pipelines don't."""
        self._branch = name
        return nullcontext()

    def _set_ar_attention(self, causal_block_size: int) -> None:
        """Have blocks of so many latent frames see only themselves and those before; the pipeline of SkyReels calls it.

        With 1, all frames see each other.
        """
        model: Any = self._load(self._steering.phase.transformer).model
        model.register_to_config(num_frame_per_block=causal_block_size)

    def __call__(self, **options: Any) -> tuple[torch.Tensor, ...]:
        """The velocity in the current step, as a pass of the transformer returns it."""
        steering = self._steering
        if self._guides:
            return self._guided_by_pipeline(options)
        if steering.step < steering.guidance.zero_steps:
            return Velocity(self._zeros(options["hidden_states"]))
        shown = self.conditions
        conditional = velocity = self._pass(_COND, _shown(options, shown.prompted))[0]
        scale = steering.scale
        if scale.scale > 1 and self._negative:
            changed = {} if self._unconditional is None else self._unconditional(options)
            unprompted = {**options, **self._negative, **changed}
            unconditional = self._pass(_UNCOND, _shown(unprompted, shown.unprompted))[0]
            if steering.guidance.zero_star:
                unconditional = rescaled(conditional, unconditional)
            if shown.bare is None:
                velocity = unconditional + scale.scale * (conditional - unconditional)
            else:
                bare = self._pass(_BARE, _shown(unprompted, shown.bare))[0]
                velocity = bare + shown.scale * (unconditional - bare) + scale.scale * (conditional - unconditional)
        if scale.perturbation:
            perturbed = self._pass(_PERTURBED, _shown(options, shown.prompted))[0]
            velocity = velocity + scale.perturbation * (conditional - perturbed)
            velocity = with_deviation(velocity, conditional, scale.rescaling)
        return Velocity(velocity)

    def _guided_by_pipeline(self, options: Arguments) -> tuple[torch.Tensor, ...]:
        """The velocities of a pass, of video and sound. Spatiotemporal guidance has no effect in steps without it:
        they get the velocities of the pass with the prompt, the last of its batch, for those of the perturbed one.
        """
        if options.get("spatio_temporal_guidance_blocks") and not self._steering.scale.perturbation:
            return self._last
        velocities = self._pass(self._branch, options)
        self._last = tuple(row[-1:] for row in velocities)
        return velocities

    def _pass(self, branch: str, options: Arguments) -> tuple[torch.Tensor, ...]:
        steering, cache = self._steering, self._steering.cache
        loaded = self._load(steering.phase.transformer)
        model: Any = loaded.model
        states = cache.states(model) if cache else None
        skipped = steering.guidance.skipped(steering.step) if branch == _UNCOND else ()

        def forward() -> tuple[torch.Tensor, ...]:
            loaded.set_lora_weights(steering.step, self._placement.device)
            if cache:
                cache.arm(model, steering.step, states)
            with ExitStack() as stack:
                if skipped:
                    stack.enter_context(without(model.blocks, skipped))
                if branch == _PERTURBED and self._perturbed is not None:
                    stack.enter_context(self._perturbed(model, steering.scale.blocks))
                if steering.temporal_axis is not None:
                    axis = steering.temporal_axis(model.rope)
                    lower = stretch(axis, options["hidden_states"].shape[2])
                    steering.stretched |= lower is not None
                    stack.enter_context(stretched(model.rope, axis, lower))
                stack.enter_context(model.cache_context(branch))
                output: tuple[torch.Tensor, ...] = model(**options)[:]  # a tuple, or an object with names
                return output

        def undo() -> None:
            if cache:
                cache.disarm(model)

        try:
            output = self._placement.run([model], forward, undo)
        except Exception as error:
            if not (compiled(model) and compilation_failed(error)):
                raise
            self._reporter.notice(f"The transformer's blocks run without being compiled: {_first_line(error)}")
            undo_compile(model)
            undo()
            output = self._placement.run([model], forward, undo)
        if cache:
            cache.count(model, branch)
        return output

    def _zeros(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """A velocity of zero, [batch, channels, frames, height, width]; Kandinsky's has the channels last."""
        if "out_visual_dim" in self.config:
            return hidden_states.new_zeros((*hidden_states.shape[:-1], self.config.out_visual_dim))
        batch, _, *sides = hidden_states.shape
        return hidden_states.new_zeros((batch, self.config.out_channels, *sides))


def _shown(options: Arguments, change: Change) -> Arguments:
    """The arguments of a pass, with what it is shown."""
    return {**options, "hidden_states": change(options["hidden_states"])}


def _in_run_dtype(value: torch.Tensor | None, dtype: torch.dtype) -> torch.Tensor | None:
    """Embeddings in the data type of the run; positions are whole numbers, and stay so."""
    return value.to(dtype) if value is not None and value.is_floating_point() else value


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
