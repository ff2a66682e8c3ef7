"""Tolerant reading of stored settings: an invalid value is reported and left out, and the others are used.

Definitions, settings files, queues, stored latents and video tags contain settings of any version. They are converted
to the newest names and forms. Settings passed by a caller are checked by `reeltune.settings.calls` instead.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from reeltune._text import shortened
from reeltune.errors import FileError, InvalidJSON, Problem, SettingsError
from reeltune.families.base import LORA_SOURCES, LORA_WEIGHTS
from reeltune.families.values import Settings
from reeltune.families.vocabulary import KEYS
from reeltune.files import read_bytes
from reeltune.settings.nearest import nearest_setting
from reeltune.settings.renames import DESCRIPTIVE, OLD_NAMES, convert
from reeltune.untrusted import parse_json

MAX_BYTES = 4_000_000  # of a settings file
_MAX_LISTED = 8  # keys or problems that a notice lists
_MAX_NAME = 40  # characters of a key in a notice
_PRESET_NAMES = MappingProxyType({"loras": LORA_SOURCES, "loras_mult": LORA_WEIGHTS})  # in LoRA presets


@dataclass(frozen=True)
class StoredSettings:
    """Settings under their newest names and with normalized values.

    `problems`: one for each invalid value, which is left out. `unknown`: unknown keys, except those with empty values.
    """

    settings: Settings
    problems: tuple[Problem, ...] = ()
    unknown: tuple[str, ...] = ()

    @property
    def definition(self) -> str:
        """The id of the definition that the settings are for; empty if they don't contain it."""
        id = self.settings.get("model_type")
        return id if isinstance(id, str) else ""

    def notices(self) -> list[str]:
        """Notices for the user: one about invalid values and one about unknown keys, if there are any."""
        notices = self.problem_notices()
        if self.unknown:
            notices.append(f"Unknown settings are ignored: {listed(self.unknown)}.")
        return notices

    def problem_notices(self) -> list[str]:
        """One notice about all invalid values; empty if there are none."""
        if not self.problems:
            return []
        shown_problems = self.problems[:_MAX_LISTED]
        texts = [f"{problem.message.rstrip('.')} ({problem.fix.rstrip('.')})" for problem in shown_problems]
        file = f"{Path(self.problems[0].file).name}: " if self.problems[0].file else ""
        return [f"{file}Left out: {_join(texts, len(self.problems), '; ')}."]


def read_settings(values: Settings, name: str = "") -> StoredSettings:
    """The settings in a mapping of any version. `name`: its file or source, for problems. Never raises."""
    version = _version(values.get("settings_version"))
    settings: dict[str, Any] = {}
    problems: list[Problem] = []
    unknown: list[str] = []
    for key, value in sorted(values.items(), key=lambda item: item[0] in OLD_NAMES):  # newer names come first
        if key not in KEYS and key not in OLD_NAMES:
            if key not in DESCRIPTIVE and not is_empty(value):
                unknown.append(str(key))
            continue
        try:
            converted = convert(key, value, version)
        except SettingsError as error:
            problems.append(Problem(name, key, error.message, error.hint, "warning"))
            continue
        repeated = [newest for newest in converted if newest in settings and settings[newest] != converted[newest]]
        if repeated:
            message = f"{key} is an older name of {repeated[0]}, which is also set."
            problems.append(Problem(name, key, message, "The newer one is used.", "warning"))
        settings = {**converted, **settings}
    ordered = {key: settings[key] for key in KEYS if key in settings}
    return StoredSettings(MappingProxyType(ordered), tuple(problems), tuple(unknown))


def read_settings_file(path: Path) -> StoredSettings:
    """The settings in a JSON file: a settings file, a profile or a LoRA preset.

    Raises SettingsError if it can't be read or is not a JSON object.
    """
    try:
        value = parse_json(read_bytes(path, MAX_BYTES), path.name, max_bytes=MAX_BYTES)
    except FileError as error:
        raise SettingsError(error.message, hint=error.hint) from error
    except InvalidJSON as error:
        raise SettingsError(str(error), hint="Fix or delete the file.") from error
    if not isinstance(value, dict):
        raise SettingsError(f"{path.name} must contain a JSON object.", hint="Fix or delete the file.")
    if is_lora_preset(value):
        return read_lora_preset(value, path.name)
    return read_settings(value, path.name)


def is_lora_preset(values: Settings) -> bool:
    """Whether the object in a file is a LoRA preset, which WanGP writes with the suffix `.lset`."""
    return not values.keys().isdisjoint(_PRESET_NAMES) and values.keys().isdisjoint(_PRESET_NAMES.values())


def read_lora_preset(values: Settings, name: str = "") -> StoredSettings:
    """The settings in a LoRA preset. `name`: its file, for problems. Never raises.

    Its prompt is a setting if `full_prompt` is true. Otherwise it is a note for the user, reported as a problem.
    """
    complete = values.get("full_prompt") is True
    left_out = ("full_prompt",) if complete else ("full_prompt", "prompt")
    settings = {_PRESET_NAMES.get(key, key): value for key, value in values.items() if key not in left_out}
    stored = read_settings(settings, name)
    if complete or is_empty(values.get("prompt")):
        return stored
    note = Problem(name, "prompt", "The prompt is a note.", "It is used if full_prompt is true.", "warning")
    return replace(stored, problems=(*stored.problems, note))


def unknown_settings(unknown: tuple[str, ...], name: str) -> list[Problem]:
    """One warning about all unknown keys of a file, with the settings that were probably meant; empty for no keys."""
    if not unknown:
        return []
    suggestions = {key: nearest_setting(key) for key in unknown[:_MAX_LISTED]}
    if len(unknown) == 1:
        key = unknown[0]
        fix = f"Did you mean {suggestions[key]!r}?" if suggestions[key] else ""
        message = "Unknown setting; it is kept, but not used."
        return [Problem(name, shortened(key, _MAX_NAME), message, fix, "warning")]
    fixes = [f"{shortened(key, _MAX_NAME)} may be {nearest!r}." for key, nearest in suggestions.items() if nearest]
    message = f"Unknown settings are kept, but not used: {listed(unknown)}."
    return [Problem(name, "", message, " ".join(fixes), "warning")]


def stored_settings(root: Path, id: str) -> StoredSettings:
    """The settings that the user has saved for a definition in a working folder; empty if there are none.

    Raises SettingsError if the file can't be read or is not a JSON object.
    """
    path = root / "settings" / f"{id}_settings.json"
    return read_settings_file(path) if os.path.lexists(path) else StoredSettings(MappingProxyType({}))


def is_empty(value: Any) -> bool:
    """Whether the value of an unknown setting probably has no effect: None, False, zero or empty."""
    return value is None or value is False or value == 0 or (isinstance(value, str | list | dict) and not value)


def listed(keys: tuple[str, ...] | list[str]) -> str:
    """The first few keys for a message, and how many more there are."""
    return _join([shortened(key, _MAX_NAME) for key in keys[:_MAX_LISTED]], len(keys), ", ")


def _join(items: list[str], count: int, separator: str) -> str:
    more = f" and {count - len(items)} more" if count > len(items) else ""
    return separator.join(items) + more


def _version(value: Any) -> float:
    """The version of a settings file; 0, the oldest, if it has none."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return 0.0
    try:
        version = float(value)
    except (ValueError, OverflowError):
        return 0.0
    return version if math.isfinite(version) else 0.0
