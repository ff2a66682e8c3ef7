"""Settings that are stored somewhere, read tolerantly: one odd value never costs the others.

Definitions, settings files, queues, saved latents and the tags of videos all hold settings, of every date. They are
read here into their newest names; what a caller writes by hand is checked by `reeltune.settings.calls` instead.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from reeltune.errors import FileError, InvalidJSON, Problem, SettingsError
from reeltune.families.vocabulary import KEYS
from reeltune.files import read_bytes
from reeltune.settings.nearest import nearest_setting
from reeltune.settings.renames import DESCRIPTIVE, OLD_NAMES, convert
from reeltune.untrusted import parse_json

MAX_BYTES = 4_000_000  # of a settings file
_LISTED = 8  # keys or problems that a notice names
_LONGEST_NAME = 40


@dataclass(frozen=True)
class StoredSettings:
    """Settings by their newest names and in their kinds.

    `problems`: a value that can't be used each, which is left out. `unknown`: keys that are no settings and ask for
    something; those that are neutral are left out silently.
    """

    settings: Mapping[str, Any]
    problems: tuple[Problem, ...] = ()
    unknown: tuple[str, ...] = ()

    @property
    def definition(self) -> str:
        """The id of the definition that the settings are for; empty where they don't name one."""
        id = self.settings.get("model_type")
        return id if isinstance(id, str) else ""

    def notices(self) -> list[str]:
        """What a user should know of them: a line for odd values, a line for unknown keys."""
        unknown = [f"Unknown settings are ignored: {listed(self.unknown)}."] if self.unknown else []
        return [*self.problem_notices(), *unknown]

    def problem_notices(self) -> list[str]:
        """A line for all values that are left out; none where there are none."""
        if not self.problems:
            return []
        odd = [f"{problem.message.rstrip('.')} ({problem.fix.rstrip('.')})" for problem in self.problems[:_LISTED]]
        file = f"{Path(self.problems[0].file).name}: " if self.problems[0].file else ""
        return [f"{file}Left out: {_list(odd, len(self.problems), '; ')}."]


def read_settings(values: Mapping[str, Any], name: str = "") -> StoredSettings:
    """The settings of a mapping, of whatever date. `name` says in problems where it came from. Never raises."""
    version = _version(values.get("settings_version"))
    settings: dict[str, Any] = {}
    problems: list[Problem] = []
    unknown: list[str] = []
    for key, value in sorted(values.items(), key=lambda item: item[0] in OLD_NAMES):  # newer names come first
        if key not in KEYS and key not in OLD_NAMES:
            if key not in DESCRIPTIVE and not asks_nothing(value):
                unknown.append(str(key))
            continue
        try:
            found = convert(key, value, version)
        except SettingsError as error:
            problems.append(Problem(name, key, error.message, error.hint, "warning"))
            continue
        if twice := [new for new in found if new in settings and settings[new] != found[new]]:
            message = f"{key} is an older name of {twice[0]}, which the settings hold too."
            problems.append(Problem(name, key, message, "The newer one is used.", "warning"))
        settings = found | settings
    ordered = {key: settings[key] for key in KEYS if key in settings}
    return StoredSettings(MappingProxyType(ordered), tuple(problems), tuple(unknown))


def read_settings_file(path: Path) -> StoredSettings:
    """The settings of a JSON file. Raises SettingsError where it can't be read or holds no JSON object."""
    try:
        value = parse_json(read_bytes(path, MAX_BYTES), path.name, max_bytes=MAX_BYTES)
    except FileError as error:
        raise SettingsError(error.message, hint=error.hint) from error
    except InvalidJSON as error:
        raise SettingsError(str(error), hint="Correct or delete the file.") from error
    if not isinstance(value, dict):
        raise SettingsError(f"{path.name} must hold a JSON object.", hint="Correct or delete the file.")
    return read_settings(value, path.name)


def unknown_problem(unknown: tuple[str, ...], name: str) -> list[Problem]:
    """One warning for all unknown keys of a file, with what was probably meant; none where none is unknown."""
    if not unknown:
        return []
    near = [(key, nearest_setting(key)) for key in unknown[:_LISTED]]
    meant = [(key, found) for key, found in near if found]
    if len(unknown) == 1:
        fix = f"Did you mean {meant[0][1]!r}?" if meant else ""
        return [Problem(name, _cut(unknown[0]), "It is kept, not used: no setting has this name.", fix, "warning")]
    fix = " ".join(f"{_cut(key)} may be {found!r}." for key, found in meant)
    return [Problem(name, "", f"Unknown settings are kept, not used: {listed(unknown)}.", fix, "warning")]


def stored_settings(root: Path, id: str) -> StoredSettings:
    """The settings that a definition starts from in a working folder, if a user saved any there.

    Raises SettingsError where the file can't be read or holds no JSON object.
    """
    path = root / "settings" / f"{id}_settings.json"
    return read_settings_file(path) if os.path.lexists(path) else StoredSettings(MappingProxyType({}))


def asks_nothing(value: Any) -> bool:
    """Whether a value of an unknown setting is neutral: nothing, empty, off or zero."""
    return value is None or value is False or value == 0 or (isinstance(value, str | list | dict) and not value)


def listed(keys: tuple[str, ...] | list[str]) -> str:
    """Some names for a message, however many and however long there are."""
    return _list([_cut(key) for key in keys[:_LISTED]], len(keys), ", ")


def _cut(key: str) -> str:
    return key if len(key) <= _LONGEST_NAME else key[: _LONGEST_NAME - 1] + "…"


def _list(items: list[str], count: int, separator: str) -> str:
    more = f" and {count - len(items)} more" if count > len(items) else ""
    return separator.join(items) + more


def _version(value: Any) -> float:
    """The version of a settings file; 0, which is old, where it has none."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return 0.0
    try:
        version = float(value)
    except (ValueError, OverflowError):
        return 0.0
    return version if math.isfinite(version) else 0.0
