"""What one video takes, worked out before anything is loaded: complete settings, sizes the model can do."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from reeltune.definitions import Definition
from reeltune.errors import NotRunnable, SettingsError
from reeltune.families import Family
from reeltune.families.vocabulary import KEYS
from reeltune.settings import check_call, layer, neutral, read_settings_file, unused

_SEEDS = 2**31
_DEFAULT_SOLVER = 0


@dataclass(frozen=True)
class Request:
    """One video. `width`, `height` in pixels; `frames`, `steps`, `fps` counts; `settings`: as used, all of them."""

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


def complete_settings(definition: Definition, call: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """All layers of settings for a call, and notices about what the model leaves unused.

    Raises SettingsError; NotRunnable when they ask for something that would change the video and isn't done.
    """
    path = definition.root / "settings" / f"{definition.id}_settings.json"
    stored, odd = read_settings_file(path) if path.exists() else ({}, [])
    settings = layer(definition.architecture, definition.settings, stored, check_call(call))
    if not neutral("activated_loras", settings):
        raise NotRunnable(
            f"The settings apply LoRAs ({settings['activated_loras']}), which is not supported yet.",
            hint="Set activated_loras to [] to go without.",
        )
    left = unused(settings, definition.architecture)
    notices = [f"{path.name}: unknown settings {', '.join(odd)} are ignored."] if odd else []
    if left:
        shown = ", ".join(f"{key}={settings[key]}" for key in left)
        notices.append(f"{definition.architecture.id} does not use: {shown}.")
    return settings, notices


def build_request(family: Family, settings: Mapping[str, Any]) -> tuple[Request, list[str]]:
    """One video's request, with sizes rounded to what the family can do and a notice for each rounding."""
    notices: list[str] = []
    width, height = (int(part) for part in settings["resolution"].split("x"))
    step = family.size_step
    fitted = tuple(max(step, size // step * step) for size in (width, height))
    if fitted != (width, height):
        notices.append(f"{width}x{height} becomes {fitted[0]}x{fitted[1]}: sizes are multiples of {step}.")
    frames = max(0, round((settings["video_length"] - 1) / family.frame_step)) * family.frame_step + 1
    if frames != settings["video_length"]:
        asked = settings["video_length"]
        notices.append(f"{asked} frames become {frames}: counts are a multiple of {family.frame_step}, plus one.")
    seed = settings["seed"] if settings["seed"] >= 0 else secrets.randbelow(_SEEDS)
    solver = settings.get("sample_solver") or family.solvers[_DEFAULT_SOLVER]
    if solver not in family.solvers:
        raise SettingsError(
            f"{solver!r} is no solver of {family.label}.", hint=f"Choose one of: {', '.join(family.solvers)}."
        )
    used = {**settings, "seed": seed, "resolution": f"{fitted[0]}x{fitted[1]}", "video_length": frames}
    request = Request(
        prompt=settings["prompt"],
        negative_prompt=settings.get("negative_prompt", ""),
        width=fitted[0],
        height=fitted[1],
        frames=frames,
        steps=settings["num_inference_steps"],
        guidance=settings["guidance_scale"],
        shift=settings["flow_shift"],
        solver=solver,
        seed=seed,
        fps=_fps(settings.get("force_fps"), family),
        settings={key: value for key, value in used.items() if key in KEYS and not KEYS[key].display},
    )
    return request, notices


def _fps(wish: Any, family: Family) -> int:
    if wish in (None, "", 0, "auto"):
        return family.fps
    try:
        fps = int(wish)
    except (TypeError, ValueError):
        raise SettingsError(f"{wish!r} is no value for force_fps.", hint="It must be a number of frames.") from None
    if not 1 <= fps <= 240:
        raise SettingsError(f"force_fps is {fps}.", hint="It must lie between 1 and 240.")
    return fps
