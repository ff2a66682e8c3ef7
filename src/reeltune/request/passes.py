"""The passes of a video that is made at two scales: their sizes, their timesteps, and the guidance of each step."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from reeltune.definitions.slots import TRANSFORMER
from reeltune.families import Architecture
from reeltune.families.scales import ScaleSteps, TwoScales
from reeltune.families.values import Settings
from reeltune.request.timesteps import timesteps
from reeltune.request.values import Pass, Phase

_TRAINING_STEPS = 1000  # a timestep is a level of noise times this number
_LEAST_STEPS = 2  # one for each scale
_LEAST_LATENTS = 2  # on each side of the first scale: their standard deviation is needed


def passes_of(
    architecture: Architecture, settings: Settings, width: int, height: int, notices: list[str]
) -> tuple[Pass, ...]:
    """The passes of a video of `width` x `height` pixels; empty for an architecture without two scales.

    Adds a notice about a number of steps that is too small.
    """
    scales = architecture.scales
    if scales is None:
        return ()
    times = _all_timesteps(scales, settings, architecture.family.name, notices)
    first_size = (_side(width, scales, architecture), _side(height, scales, architecture))
    second_size = (2 * first_size[0], 2 * first_size[1])
    first = _pass(0, first_size, scales.first, times)
    return first, _pass(first.steps, second_size, scales.second, times)


def _all_timesteps(scales: TwoScales, settings: Settings, family: str, notices: list[str]) -> tuple[float, ...]:
    """The timesteps that both scales are made of; empty if each scale has its own."""
    if scales.distilled:
        return ()
    steps = settings["num_inference_steps"]
    if steps < _LEAST_STEPS:
        notices.append(f"{steps} step becomes {_LEAST_STEPS}: one for each of two scales.")
    return timesteps("euler", max(_LEAST_STEPS, steps), 1.0, family)


def _side(side: int, scales: TwoScales, architecture: Architecture) -> int:
    """A side of the first scale in pixels."""
    step = architecture.resolution_step
    return max(_LEAST_LATENTS * step, int(side * scales.shrink) // step * step)


def _pass(first_step: int, size: tuple[int, int], scale: ScaleSteps, times: Sequence[float]) -> Pass:
    if scale.levels:
        own = tuple(level * _TRAINING_STEPS for level in scale.levels)
    else:
        begin = min(_rounded(scale.begin, times), len(times) - 1)
        own = tuple(times[begin : max(begin + 1, _rounded(scale.end, times))])
    guidance = tuple(scale.guidance_at(time / _TRAINING_STEPS) for time in own)
    return Pass(first_step, *size, own, guidance)


def _rounded(share: Fraction, times: Sequence[float]) -> int:
    return round(share * len(times))


def phases_of_passes(passes: Sequence[Pass]) -> tuple[Phase, ...]:
    """A phase for each pass, with the highest guidance scale of its steps."""
    return tuple(
        Phase(scale.first_step, scale.steps, TRANSFORMER, max(entry.scale for entry in scale.guidance))
        for scale in passes
    )
