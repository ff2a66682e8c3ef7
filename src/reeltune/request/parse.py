"""What one video takes, worked out before anything is loaded: complete settings, sizes the model can do."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reeltune.definitions import Definition
from reeltune.errors import NotRunnable, SettingsError
from reeltune.families import Architecture, Family
from reeltune.families.values import OTHER_SOLVERS, RATE_SOURCES, SOLVERS, seconds_of
from reeltune.families.vocabulary import ASSUMED, INPUT_KEYS, KEYS, coerce, shown
from reeltune.media.inputs import video_rate
from reeltune.request.inputs import asked
from reeltune.settings import (
    check_call,
    frame_count,
    frame_rate,
    layer,
    listed,
    neutral,
    refusals,
    split_prompts,
    stored_settings,
    unused,
)
from reeltune.untrusted import clean_text

_SEEDS = 2**31
_TIMESTEPS = 1000
_SLOWEST, _FASTEST = 1, 240  # frames a second


@dataclass(frozen=True)
class Request:
    """One video. `width`, `height` in pixels; `frames`, `steps`, `fps` counts; `settings`: as used, all of them but
    those that ask for nothing the architecture has.

    `boundary`: share of the noise, 0 to 1, below which a second transformer takes over, if there is one; 0 where the
    first one makes all the steps. `inputs`: files by the setting that names them.
    """

    prompt: str
    negative_prompt: str
    width: int
    height: int
    frames: int
    steps: int
    guidance: float
    shift: float
    solver: str
    seed: int
    fps: int
    settings: Mapping[str, Any]
    boundary: float
    inputs: Mapping[str, tuple[Path, ...]]


def check_runnable(definition: Definition) -> Definition:
    """The definition. Raises NotRunnable where this program can't run it."""
    if not definition.runnable:
        message = f"{definition.id} can't run here: {definition.reason}."
        raise NotRunnable(message, hint="`reeltune list` shows which do.")
    return definition


def complete_settings(definition: Definition, call: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """All layers of settings for a call, and notices about what the model leaves unused.

    Raises SettingsError; NotRunnable when they ask for something that would change the video and isn't done.
    """
    architecture = definition.architecture
    stored = stored_settings(definition.root, definition.id)
    given = check_call(call)
    _refuse_foreign_inputs(architecture, given)
    settings = layer(architecture, definition.settings, stored.settings, call=given)
    if reasons := refusals(settings, architecture):
        message = f"{definition.id} can't be used with these settings: {'; '.join(reasons)}."
        raise NotRunnable(message, hint=_hint(settings, architecture))
    left = [f"{key}={_short(settings[key])}" for key in unused(settings, architecture)]
    unknown = [f"{key} (unknown)" for key in stored.unknown]
    notices = stored.problem_notices()
    if left or unknown:
        notices.append(f"{architecture.id} does not use: {listed([*left, *unknown])}.")
    return settings, [*notices, *_windows(settings), *_single(definition, settings)]


def _single(definition: Definition, settings: Mapping[str, Any]) -> list[str]:
    """A notice where the second of two transformers is never used."""
    if "transformer_2" not in definition.slots or _boundary(settings) > 0:
        return []
    one = settings.get("guidance_phases", 1) <= 1
    why = f"guidance_phases is {settings.get('guidance_phases', 1)}" if one else "switch_threshold is 0"
    return [f"{why}: the first transformer makes all the steps."]


def _windows(settings: Mapping[str, Any]) -> list[str]:
    """A notice where prompts stand for windows of one video, and come to videos of their own."""
    mode = settings.get("multi_prompts_gen_type", "")
    if not mode.endswith("W") or len(split_prompts(settings["prompt"], mode)) == 1:
        return []
    each = "paragraph" if mode.startswith("P") else "line"
    return [f"multi_prompts_gen_type={mode} asks for sliding windows, which aren't done: each {each} is a video."]


def _short(value: Any) -> str:
    return value if isinstance(value, str) and len(value) <= 20 else shown(value)


def _hint(settings: Mapping[str, Any], architecture: Architecture) -> str:
    """How to go without what is refused, where going without makes sense."""
    if not neutral("activated_loras", settings):
        return "Merge them into a model file with `reeltune quantize FILE --lora LORA`, and use that one."
    off = [f"{key}={shown(KEYS[key].neutral[-1])}" for key in architecture.refused if not neutral(key, settings)]
    return f"Set {', '.join(off)} to go without." if off else "Choose another model, or other settings."


def _refuse_foreign_inputs(architecture: Architecture, call: Mapping[str, Any]) -> None:
    """An image or video that a caller gives and the model can't take would be missed: better said at once."""
    takes = [row.key for row in architecture.inputs]
    for key in INPUT_KEYS:
        if key not in takes and not neutral(key, call):
            listed = f"It takes {', '.join(takes)}." if takes else "It takes no images or videos."
            raise SettingsError(f"{architecture.id} takes no {key}.", hint=listed)


def build_request(
    architecture: Architecture, settings: Mapping[str, Any], root: Path, *, inputs_needed: bool = True
) -> tuple[Request, list[str]]:
    """One video's request, with sizes rounded to what the family can do and a notice for each rounding.

    Raises SettingsError where an input the architecture needs is missing, or isn't there; not where the denoising is
    done (`inputs_needed`).
    """
    notices: list[str] = []
    inputs = asked(architecture, settings, root, notices.append) if inputs_needed else {}
    width, height = _size(settings, architecture, notices)
    fps = _fps(settings, architecture, inputs, notices)
    frames = _frames(settings, architecture, fps, notices)
    _note_what_does_nothing(settings, inputs, notices)
    seed = settings["seed"] if settings["seed"] >= 0 else secrets.randbelow(_SEEDS)
    names = {key: _as_text(settings[key]) for key in INPUT_KEYS if key in settings}
    used = {**settings, **names, "seed": seed, "resolution": f"{width}x{height}", "video_length": frames}
    if settings.get("force_fps") in RATE_SOURCES:
        used["force_fps"] = fps  # the file it follows may be gone when the latents are decoded
    request = Request(
        prompt=clean_text(settings["prompt"]),
        negative_prompt=clean_text(settings.get("negative_prompt", "")),
        width=width,
        height=height,
        frames=frames,
        steps=settings["num_inference_steps"],
        guidance=settings["guidance_scale"],
        shift=settings.get("flow_shift", 1.0),
        solver=_solver(settings.get("sample_solver") or "", architecture.family, notices),
        seed=seed,
        fps=fps,
        settings={key: value for key, value in used.items() if key in architecture.settings or not neutral(key, used)},
        boundary=_boundary(settings),
        inputs=inputs,
    )
    return request, notices


def request_of_latents(definition: Definition, settings: Mapping[str, Any]) -> Request:
    """The request that latents were made for, from the settings that were kept with them. Raises SettingsError."""
    architecture = definition.architecture
    complete = layer(architecture, definition.settings, call=settings)
    return build_request(architecture, complete, definition.root, inputs_needed=False)[0]


def _size(settings: Mapping[str, Any], architecture: Architecture, notices: list[str]) -> tuple[int, int]:
    """Width and height in pixels, rounded down to what the model can do."""
    width, height = (int(part) for part in settings["resolution"].split("x"))
    step = architecture.side_step
    fitted = (max(step, width // step * step), max(step, height // step * step))
    if fitted != (width, height):
        notices.append(f"{width}x{height} becomes {fitted[0]}x{fitted[1]}: sizes are multiples of {step}.")
    return fitted


def _frames(settings: Mapping[str, Any], architecture: Architecture, fps: int, notices: list[str]) -> int:
    """The number of frames, rounded to what the family makes."""
    length, step = settings["video_length"], architecture.family.frame_step
    frames = frame_count(settings, architecture, fps)
    if seconds_of(length) is None and frames != length:
        notices.append(f"{length} frames become {frames}: counts are a multiple of {step}, plus one.")
    return frames


def _fps(
    settings: Mapping[str, Any],
    architecture: Architecture,
    inputs: Mapping[str, tuple[Path, ...]],
    notices: list[str],
) -> int:
    """Frames a second: a number, or those of the control video (or the source) where there is one."""
    follows = coerce("force_fps", settings.get("force_fps"))
    key = {"control": "video_guide", "source": "video_source"}.get(follows, "")
    if not key:
        return frame_rate({"force_fps": follows}, architecture)
    rate = architecture.frame_rate
    if key not in inputs:
        notices.append(f"force_fps is {follows!r}, and there is no {key}: it has {rate} frames a second, as usual.")
        return rate
    return min(_FASTEST, max(_SLOWEST, round(video_rate(inputs[key][0], rate))))


def _solver(name: str, family: Family, notices: list[str]) -> str:
    """The solver asked for, or what takes its place. Raises SettingsError for a name that nobody gives a solver."""
    used = family.solver(name)
    if used == (name or used):
        return used
    if name not in (*SOLVERS, *OTHER_SOLVERS):
        message = f"Invalid value {shown(name)} for sample_solver."
        raise SettingsError(message, hint=f"It must be one of {', '.join(family.solvers)}.")
    notices.append(f"sample_solver is {name!r}, which {family.label} doesn't have here: {used} replaces it.")
    return used


def _boundary(settings: Mapping[str, Any]) -> float:
    if settings.get("guidance_phases", 1) <= 1:
        return 0.0
    return float(settings.get("switch_threshold", ASSUMED["switch_threshold"])) / _TIMESTEPS


def _note_what_does_nothing(
    settings: Mapping[str, Any], inputs: Mapping[str, tuple[Path, ...]], notices: list[str]
) -> None:
    """Notices about values that leave the video to chance, or change nothing beside others."""
    if not settings["prompt"].strip():
        shows = "moves by chance" if inputs else "shows something arbitrary"
        notices.append(f"The prompt is empty: the video {shows}.")
    if settings["guidance_scale"] > 1:
        return
    if settings.get("guidance_phases", 1) > 1 and settings.get("guidance2_scale", 1) > 1:
        notices.append(
            "guidance2_scale does nothing while guidance_scale is 1: that turns guidance off in both phases."
        )
    elif not neutral("negative_prompt", settings):
        notices.append("negative_prompt does nothing while guidance_scale is 1.")


def _as_text(value: Any) -> Any:
    """Paths as text, so that the settings can be stored."""
    if isinstance(value, list | tuple):
        return [_as_text(row) for row in value]
    return clean_text(str(value)) if isinstance(value, str | Path) else value
