"""The passes of a video that is made at two scales: their sizes, their timesteps, and the guidance of each step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

from reeltune.definitions.slots import TRANSFORMER
from reeltune.families import Architecture
from reeltune.families.scales import GuidanceRange, ScaleSteps, TwoScales
from reeltune.families.values import Settings
from reeltune.families.vocabulary import DEFAULTS
from reeltune.request.phases import phase_count
from reeltune.request.timesteps import timesteps
from reeltune.request.values import Pass, Phase

_TRAINING_STEPS = 1000  # a timestep is a level of noise times this number
_LEAST_STEPS = 2  # one for each scale
_SHIFTS = ((1024, 0.95), (4096, 2.05))  # tokens of a video, and the logarithm of the shift for so many, for LTX-2
_SPATIOTEMPORAL = 2  # of perturbation_switch
Size = tuple[int, int]  # width and height in pixels
_LEAST_LATENTS = 2  # on each side of the first scale: their standard deviation is needed


def passes_of(
    architecture: Architecture, settings: Settings, size: Size, frames: int, solver: str, notices: list[str]
) -> tuple[Pass, ...]:
    """The passes of a video; empty for an architecture without two scales.

    `size`: width and height in pixels. `frames`: their number, and one for each image beside them. Adds a notice about
    a number of steps that isn't used.
    """
    scales = architecture.scales
    if scales is None:
        return ()
    if scales.from_settings:
        return _from_settings(architecture, scales, settings, size, frames, solver, notices)
    width, height = size
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


def _from_settings(
    architecture: Architecture,
    scales: TwoScales,
    settings: Settings,
    size: Size,
    frames: int,
    solver: str,
    notices: list[str],
) -> tuple[Pass, ...]:
    """One or two passes, the first with the guidance of the settings."""
    single = phase_count(settings) == 1
    if (settings.get("guidance_phases") or 1) > 2:
        notices.append(f"guidance_phases is {settings['guidance_phases']}: {architecture.id} makes two passes at most.")
    width, height = size if single else (int(size[0] * scales.shrink), int(size[1] * scales.shrink))
    times = tuple(level * _TRAINING_STEPS for level in scales.first.levels)
    if not times:
        side, steps = architecture.family.size_step, settings["num_inference_steps"]
        tokens = (width // side) * (height // side) * frames
        times = timesteps(solver, steps, _shift(tokens), architecture.family.name)
        if len(times) != steps:
            notices.append(f"num_inference_steps has no effect: {solver} makes {len(times)} steps in its first pass.")
    layers = settings.get("perturbation_layers") or architecture.defaults.get("perturbation_layers", [])
    filled = {**settings, "perturbation_layers": layers}
    guidance = [_guidance(scales, filled, step / len(times)) for step in range(len(times))]
    first = Pass(0, width, height, times, tuple(guidance))
    return (first,) if single else (first, _pass(first.steps, size, scales.second, ()))


def _shift(tokens: int) -> float:
    """The shift of LTX-2's schedule, which grows with the number of tokens of the video."""
    (least, low), (most, high) = _SHIFTS
    slope = (high - low) / (most - least)
    return math.exp(tokens * slope + (low - slope * least))


def _guidance(scales: TwoScales, settings: Settings, share: float) -> GuidanceRange:
    """The guidance of a step, of the settings; `share`: of the steps before it. A distilled model has none."""
    if scales.distilled:
        return scales.first.guidance[0]
    values = {**DEFAULTS, **settings}
    begin, end = (values[f"perturbation_{key}_perc"] / 100 for key in ("start", "end"))
    perturbed = values.get("perturbation_switch", 0) == _SPATIOTEMPORAL and begin <= share < end
    return GuidanceRange(
        level=0.0,
        scale=values["guidance_scale"],
        perturbation=float(perturbed),
        rescaling=values["alt_scale"],
        blocks=tuple(values["perturbation_layers"]) if perturbed else (),
        sound_scale=values["audio_guidance_scale"],
        modality_scale=values["alt_guidance_scale"],
    )


def phases_of_passes(passes: Sequence[Pass]) -> tuple[Phase, ...]:
    """A phase for each pass, with the highest guidance scale of its steps."""
    return tuple(
        Phase(scale.first_step, scale.steps, TRANSFORMER, max(entry.strongest for entry in scale.guidance))
        for scale in passes
    )
