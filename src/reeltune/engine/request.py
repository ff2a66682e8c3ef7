"""What one video takes, worked out before anything is loaded: complete settings, sizes the model can do."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reeltune.definitions import Definition
from reeltune.engine.inputs import asked
from reeltune.errors import NotRunnable, SettingsError
from reeltune.families import Architecture
from reeltune.families.base import LONGER
from reeltune.families.vocabulary import INPUT_KEYS, KEYS
from reeltune.settings import check_call, layer, neutral, read_settings_file, unused

_SEEDS = 2**31
_DEFAULT_SOLVER = 0
_SWITCH, _TIMESTEPS = 875, 1000


@dataclass(frozen=True)
class Request:
    """One video. `width`, `height` in pixels; `frames`, `steps`, `fps` counts; `settings`: as used, all of them.

    `boundary`: share of the noise, 0 to 1, below which a second transformer takes over, if there is one. `inputs`:
    files by the setting that names them.
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


def complete_settings(definition: Definition, call: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """All layers of settings for a call, and notices about what the model leaves unused.

    Raises SettingsError; NotRunnable when they ask for something that would change the video and isn't done.
    """
    path = definition.root / "settings" / f"{definition.id}_settings.json"
    stored, odd = read_settings_file(path) if path.exists() else ({}, [])
    given = check_call(call)
    _refuse_foreign_inputs(definition.architecture, given)
    settings = layer(definition.architecture, definition.settings, stored, given)
    if not neutral("activated_loras", settings):
        raise NotRunnable(
            f"The settings apply LoRAs ({settings['activated_loras']}), which is not supported yet.",
            hint="Set activated_loras to [] to go without.",
        )
    for key, why in definition.architecture.refused.items():
        if not neutral(key, settings):
            message = f"{definition.architecture.id} can't take {key}={settings[key]}: {why}."
            raise NotRunnable(message, hint=f"Set {key} to {KEYS[key].neutral[-1] if key in LONGER else 0}.")
    left = unused(settings, definition.architecture)
    notices = [f"{path.name}: unknown settings {', '.join(odd)} are ignored."] if odd else []
    if left:
        shown = ", ".join(f"{key}={settings[key]}" for key in left)
        notices.append(f"{definition.architecture.id} does not use: {shown}.")
    return settings, notices


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
    family, notices = architecture.family, list[str]()
    inputs = asked(architecture, settings, root) if inputs_needed else {}
    width, height = (int(part) for part in settings["resolution"].split("x"))
    step = architecture.side_step
    fitted = tuple(max(step, size // step * step) for size in (width, height))
    if fitted != (width, height):
        notices.append(f"{width}x{height} becomes {fitted[0]}x{fitted[1]}: sizes are multiples of {step}.")
    frames = max(0, round((settings["video_length"] - 1) / family.frame_step)) * family.frame_step + 1
    if frames != settings["video_length"]:
        wish = settings["video_length"]
        notices.append(f"{wish} frames become {frames}: counts are a multiple of {family.frame_step}, plus one.")
    if settings["guidance_scale"] <= 1 < settings.get("guidance2_scale", 1):
        notices.append(
            "guidance2_scale does nothing while guidance_scale is 1: that turns guidance off in both phases."
        )
    seed = settings["seed"] if settings["seed"] >= 0 else secrets.randbelow(_SEEDS)
    solver = settings.get("sample_solver") or family.solvers[_DEFAULT_SOLVER]
    if solver not in family.solvers:
        raise SettingsError(
            f"{solver!r} is no solver of {family.label}.", hint=f"Choose one of: {', '.join(family.solvers)}."
        )
    names = {key: _as_text(settings[key]) for key in INPUT_KEYS if key in settings}
    used = {**settings, **names, "seed": seed, "resolution": f"{fitted[0]}x{fitted[1]}", "video_length": frames}
    request = Request(
        prompt=settings["prompt"],
        negative_prompt=settings.get("negative_prompt", ""),
        width=fitted[0],
        height=fitted[1],
        frames=frames,
        steps=settings["num_inference_steps"],
        guidance=settings["guidance_scale"],
        shift=settings.get("flow_shift", 1.0),
        solver=solver,
        seed=seed,
        fps=_fps(settings.get("force_fps"), architecture),
        settings={key: value for key, value in used.items() if key in KEYS and not KEYS[key].display},
        boundary=settings.get("switch_threshold", _SWITCH) / _TIMESTEPS,
        inputs=inputs,
    )
    return request, notices


def _as_text(value: Any) -> Any:
    """Paths as text, so that the settings can be stored."""
    if isinstance(value, list | tuple):
        return [_as_text(row) for row in value]
    return str(value) if isinstance(value, Path) else value


def _fps(wish: Any, architecture: Architecture) -> int:
    if wish in (None, "", 0, "auto") and wish is not False:
        return architecture.frame_rate
    try:
        fps = int("no number" if isinstance(wish, bool) else wish)
    except (TypeError, ValueError, OverflowError):
        raise SettingsError(f"{wish!r} is no value for force_fps.", hint="It must be a number of frames.") from None
    if not 1 <= fps <= 240:
        raise SettingsError(f"force_fps is {fps}.", hint="It must lie between 1 and 240.")
    return fps
