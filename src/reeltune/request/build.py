"""Build one request from complete settings: supported sizes, typed values and existing input files."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from reeltune.definitions import Definition
from reeltune.definitions.slots import TRANSFORMER_2
from reeltune.errors import SettingsError
from reeltune.families import Architecture, Family
from reeltune.families.base import LORA_SOURCES
from reeltune.families.values import MAX_FRAMES, OTHER_SOLVERS, RATE_SOURCES, SOLVERS, Settings, seconds_of
from reeltune.families.vocabulary import DEFAULTS, INPUT_KEYS, coerce, shown
from reeltune.media.inputs import video_rate
from reeltune.net import without_secrets
from reeltune.request.inputs import input_files
from reeltune.request.loras import loras_of
from reeltune.request.passes import passes_of, phases_of_passes
from reeltune.request.phases import phases_of
from reeltune.request.references import extra_latent_frames, with_clip
from reeltune.request.timesteps import timesteps
from reeltune.request.values import Guidance, InputFiles, Phase, Request, Riflex, SkippedLayers, StepSkipping
from reeltune.request.windows import mode_of, prompts_of, windows_of
from reeltune.settings import frame_count, frame_rate, is_neutral
from reeltune.untrusted import clean_text

_RANDOM_SEEDS = 2**31  # the number of seeds to choose from
_PERCENT = 100
_MIN_FPS = 1
_MAX_FPS = 240


def build_request(
    definition: Definition, settings: Settings, *, inputs_needed: bool = True
) -> tuple[Request, list[str]]:
    """The request of one video, and notices about values that are rounded, replaced or without effect.

    `inputs_needed`: False to decode stored latents, whose input files may no longer exist. Raises SettingsError if a
    required input is missing or its file doesn't exist.
    """
    notices: list[str] = []
    architecture = definition.architecture
    inputs = input_files(architecture, settings, definition.root, notices.append) if inputs_needed else InputFiles()
    width, height = _size(settings, architecture, notices)
    fps = _fps(settings, architecture, inputs, notices)
    mode = _mode(settings, architecture, inputs)
    length = _frames(settings, architecture, fps, notices)
    frames, window = windows_of(settings, architecture, length, mode, notices.append)
    prompts = prompts_of(settings, architecture)
    used = {key: value for key, value in settings.items() if key in architecture.settings}
    solver = _solver(settings.get("sample_solver") or "", architecture, notices)
    shift = settings.get("flow_shift", 1.0)
    inputs = with_clip(definition, settings, inputs, frames)
    latent_frames = (frames - 1) // architecture.family.frame_step + 1 + extra_latent_frames(inputs)
    passes = passes_of(architecture, settings, (width, height), latent_frames, solver, notices)
    phases = phases_of_passes(passes) if passes else _phases(definition, used, solver, shift, notices)
    notices += _effect_notices(used, phases, inputs)
    request = Request(
        prompt=prompts[0],
        negative_prompt=clean_text(settings.get("negative_prompt", "")),
        width=width,
        height=height,
        frames=frames,
        fps=fps,
        steps=sum(phase.steps for phase in phases),
        seed=chosen_seed(settings["seed"]),
        shift=shift,
        solver=solver,
        phases=phases,
        loras=loras_of(definition, used, phases, notices, solver),
        guidance=_guidance(used, architecture),
        step_skipping=step_skipping_of(used),
        riflex=_riflex(used, notices),
        inputs=inputs,
        settings={},
        passes=passes,
        config=definition.config,
        tone_mapping=architecture.scales.tone_mapping if architecture.scales else 0.0,
        mode=mode,
        window=window,
        later_prompts=prompts[1:],
    )
    notices += _unused_prompts(request)
    return replace(request, settings=_record(settings, request, architecture)), notices


def chosen_seed(seed: int) -> int:
    """The seed, or a random one for -1."""
    return seed if seed >= 0 else secrets.randbelow(_RANDOM_SEEDS)


def _record(settings: Settings, request: Request, architecture: Architecture) -> Settings:
    """The settings to store with the video: those that the model uses, and all others that have an effect.

    They have the values that the request has after rounding. Tokens in URLs of LoRAs are left out: videos are shared.
    """
    changed: dict[str, Any] = {"seed": request.seed, "resolution": f"{request.width}x{request.height}"}
    if not architecture.image_outputs:
        changed["video_length"] = request.frames
    if not request.passes:
        changed["num_inference_steps"] = request.steps
    if settings.get("force_fps") in RATE_SOURCES:
        changed["force_fps"] = request.fps  # the control video may no longer exist when the latents are decoded
    settings = {**settings, **changed}
    record = {}
    for key, value in settings.items():
        if key in architecture.settings or not is_neutral(key, settings):
            record[key] = _as_text(value) if key in INPUT_KEYS else value
    if record.get(LORA_SOURCES):
        record[LORA_SOURCES] = [without_secrets(source) for source in record[LORA_SOURCES]]
    return record


def _as_text(value: Any) -> Any:
    """Paths converted to text, so that they can be stored."""
    if isinstance(value, list | tuple):
        return [_as_text(item) for item in value]
    if isinstance(value, str | Path):
        return clean_text(str(value))
    return value


def _size(settings: Settings, architecture: Architecture, notices: list[str]) -> tuple[int, int]:
    """Width and height in pixels, rounded down to multiples of the architecture's step."""
    width, height = (int(side) for side in settings["resolution"].split("x"))
    step = architecture.size_multiple
    rounded_width = max(step, width // step * step)
    rounded_height = max(step, height // step * step)
    if (rounded_width, rounded_height) != (width, height):
        rounded = f"{rounded_width}x{rounded_height}"
        notices.append(f"{width}x{height} becomes {rounded}: width and height must be multiples of {step}.")
    return rounded_width, rounded_height


def _frames(settings: Settings, architecture: Architecture, fps: int, notices: list[str]) -> int:
    """The number of frames, rounded to a multiple of the family's step plus one. Raises SettingsError."""
    frames = frame_count(settings, architecture, fps)
    if architecture.image_outputs:
        return frames
    length = settings["video_length"]
    seconds = seconds_of(length)
    if seconds is not None and seconds * fps > MAX_FRAMES:
        message = f"video_length={length} is {seconds * fps:,.0f} frames; the limit is {MAX_FRAMES:,}."
        raise SettingsError(message, hint="Make several shorter videos.")
    if seconds is None and frames != length:
        step = architecture.family.frame_step
        notices.append(f"{length} frames become {frames}: the number must be a multiple of {step} plus one.")
    return frames


def _fps(settings: Settings, architecture: Architecture, inputs: InputFiles, notices: list[str]) -> int:
    """Frames per second: a number, or the frame rate of the control video if the settings refer to it."""
    rate = coerce("force_fps", settings.get("force_fps"))
    sources: Mapping[str, tuple[str, Path | None]] = {
        "control": ("video_guide", inputs.control_video),
        "source": ("video_source", None),  # continuing a video is not supported yet
    }
    if rate not in sources:
        return frame_rate({"force_fps": rate}, architecture)
    key, file = sources[rate]
    default = architecture.frame_rate
    if file is None:
        notices.append(f"force_fps is {rate!r}, but {key} is not set: {default} frames per second are used.")
        return default
    return min(_MAX_FPS, max(_MIN_FPS, round(video_rate(file, default))))


def _unused_prompts(request: Request) -> Iterator[str]:
    """A notice if there are more prompts than windows."""
    more = len(request.later_prompts) + 1 - request.windows
    if more > 0:
        windows = "one window" if request.windows == 1 else f"{request.windows} windows"
        prompts = "The last prompt is" if more == 1 else f"The last {more} prompts are"
        yield f"{prompts} not used: the video has {windows}."


def _mode(settings: Settings, architecture: Architecture, inputs: InputFiles) -> int:
    """The mode. Raises SettingsError for a start image in a mode that makes frames in blocks: it would be changed."""
    mode = mode_of(settings, architecture)
    if mode and inputs.start_image and architecture.windows is not None:
        message = f"model_mode={mode} can't be used with image_start."
        raise SettingsError(message, hint="Set model_mode=0, or leave out the start image.")
    return mode


def _solver(name: str, architecture: Architecture, notices: list[str]) -> str:
    """The solver with a name, or the one that replaces it. Raises SettingsError for an unknown name."""
    solver = architecture.solver(name)
    if name in ("", solver):
        return solver
    if name not in (*SOLVERS, *OTHER_SOLVERS):
        message = f"Invalid value {shown(name)} for sample_solver."
        raise SettingsError(message, hint=f"It must be one of {', '.join(architecture.usable_solvers)}.")
    label = architecture.id if architecture.solvers else architecture.family.label
    notices.append(f"sample_solver={name} is not supported for {label}: {solver} is used.")
    return solver


def _phases(
    definition: Definition, settings: Settings, solver: str, shift: float, notices: list[str]
) -> tuple[Phase, ...]:
    """The phases of a video that is made at its own size."""
    steps, family = settings["num_inference_steps"], definition.architecture.family
    times = _timesteps(steps, solver, shift, family, notices)
    return phases_of(settings, times, two_transformers=TRANSFORMER_2 in definition.slots)


def _timesteps(steps: int, solver: str, shift: float, family: Family, notices: list[str]) -> tuple[float, ...]:
    """The timestep of each step; fewer than `steps` if the solver can't make so many."""
    times = timesteps(solver, steps, shift, family.name)
    if len(times) < steps:
        notices.append(f"{steps} steps become {len(times)}: sample_solver={solver} makes no more.")
    return times


def _guidance(settings: Settings, architecture: Architecture) -> Guidance:
    """The guidance of a request; that of two scales is declared by the architecture."""
    if architecture.scales is not None:
        return Guidance(zero_star=architecture.scales.zero_star)
    return guidance_of(settings)


def guidance_of(settings: Settings) -> Guidance:
    """The guidance in settings that are limited to those that the architecture uses."""
    zero_star = not is_neutral("cfg_star_switch", settings)
    values = {**DEFAULTS, **settings}
    return Guidance(
        distilled_scale=settings.get("embedded_guidance_scale"),
        zero_star=zero_star,
        zero_steps=values["cfg_zero_step"] + 1 if zero_star else 0,
        skipped_layers=_skipped_layers(settings),
    )


def _skipped_layers(settings: Settings) -> SkippedLayers | None:
    if is_neutral("perturbation_switch", settings):
        return None
    values = {**DEFAULTS, **settings}
    layers = tuple(values["perturbation_layers"] or DEFAULTS["perturbation_layers"])
    begin = values["perturbation_start_perc"] / _PERCENT
    end = values["perturbation_end_perc"] / _PERCENT
    return SkippedLayers(layers, begin, end)


def step_skipping_of(settings: Settings) -> StepSkipping | None:
    """The step cache in the settings; None if it is off, or its speed factor is 1 or less."""
    values = {**DEFAULTS, **settings}
    speed = values["skip_steps_multiplier"]
    if is_neutral("skip_steps_cache_type", settings) or speed <= 1:
        return None
    return StepSkipping(speed, values["skip_steps_start_step_perc"] / _PERCENT)


def _riflex(settings: Settings, notices: list[str]) -> Riflex:
    """Whether RIFLEx is on; a number without a meaning turns it off, with a notice."""
    value = settings.get("RIFLEx_setting", Riflex.OFF.value)
    try:
        return Riflex(value)
    except ValueError:
        notices.append(
            f"RIFLEx_setting is {value}, which has no meaning: RIFLEx is off. Use 0 (auto), 1 (on) or 2 (off)."
        )
        return Riflex.OFF


def _effect_notices(settings: Settings, phases: Sequence[Phase], inputs: InputFiles) -> list[str]:
    """Notices about an empty prompt, and about values that have no effect because of others."""
    notices = []
    if not settings["prompt"].strip():
        random_part = "content" if inputs.none else "motion"
        notices.append(f"The prompt is empty: the {random_part} of the video will be random.")
    guided = any(phase.steps and phase.guidance_scale > 1 for phase in phases)
    if not guided and not is_neutral("negative_prompt", settings):
        notices.append("negative_prompt has no effect while guidance_scale is 1.")
    return notices
