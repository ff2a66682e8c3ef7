"""Layering of generation settings, what a model leaves unused, and settings files.

Later layers win: architecture < base model < definition < `settings/<id>_settings.json` < the call.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from reeltune.errors import SettingsError
from reeltune.families import Architecture
from reeltune.families.vocabulary import ANY, KEYS, coerce


def layer(architecture: Architecture, *layers: Mapping[str, Any]) -> dict[str, Any]:
    """The architecture's defaults overlaid by each layer in turn."""
    merged = dict(architecture.defaults)
    for overlay in layers:
        merged.update(overlay)
    return merged


def neutral(key: str, settings: Mapping[str, Any]) -> bool:
    """Whether a setting asks for nothing: absent, neutral, or dependent on one that is."""
    row = KEYS[key]
    if row.display or key not in settings or settings[key] in row.neutral:
        return True
    return bool(row.only_with) and neutral(row.only_with, settings)


def unused(settings: Mapping[str, Any], architecture: Architecture) -> list[str]:
    """Settings that ask for something this architecture does not do."""
    return [key for key in settings if key not in architecture.settings and not neutral(key, settings)]


def videos_asked(settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One dictionary of settings for each video: lines of the prompt × repeats, seeds counting upwards.

    A seed of -1 stays -1: whoever generates picks it.
    """
    prompt = settings.get("prompt", "")
    each_line = settings.get("multi_prompts_gen_type", 0) == 0
    lines = [line for line in prompt.splitlines() if line.strip()] if each_line else [prompt]
    seed, repeats = settings.get("seed", -1), settings.get("repeat_generation", 1)
    return [
        {**settings, "prompt": line, "repeat_generation": 1, "seed": seed if seed < 0 else seed + repeat}
        for line in lines or [prompt]
        for repeat in range(repeats)
    ]


def read_settings_file(path: Path) -> tuple[dict[str, Any], list[str]]:
    """Settings of a JSON file, and its unknown keys. Raises SettingsError where it can't be read."""
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise SettingsError(f"{path} doesn't exist.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise SettingsError(f"{path} is not a settings file: {error}.", hint="Mend or delete it.") from error
    if not isinstance(value, dict):
        raise SettingsError(f"{path} must hold a JSON object.", hint="Mend or delete it.")
    try:
        return {key: coerce(key, item) for key, item in value.items() if key in KEYS}, [
            key for key in value if key not in KEYS
        ]
    except SettingsError as error:
        raise SettingsError(f"{path}: {error.message}", hint=error.hint) from error


def parse_assignments(pairs: Iterable[str]) -> dict[str, Any]:
    """Settings from `key=value` texts. Raises SettingsError for an unknown key, naming the nearest."""
    settings: dict[str, Any] = {}
    for pair in pairs:
        key, sign, value = pair.partition("=")
        if not sign:
            raise SettingsError(f"{pair!r} is no setting.", hint="Write key=value, such as num_inference_steps=20.")
        settings |= check_call({key.strip(): _from_text(key.strip(), value)})
    return settings


def _from_text(key: str, text: str) -> Any:
    """A list or object written as JSON for a setting of any kind; else the text itself."""
    if key in KEYS and KEYS[key].kind is ANY and text.lstrip()[:1] in ("[", "{"):
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            return text
    return text


def check_call(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings given by a caller, as their kinds. Raises SettingsError for an unknown key."""
    for key in values:
        if key not in KEYS:
            near = difflib.get_close_matches(key, KEYS, n=1, cutoff=0.6)
            hint = f"Did you mean {near[0]!r}?" if near else "`reeltune show ID` lists a model's settings."
            raise SettingsError(f"There is no setting {key!r}.", hint=hint)
    return {key: coerce(key, value) for key, value in values.items()}
