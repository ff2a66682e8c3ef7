"""Named settings of a model: one settings file each, under `settings/presets/<model>/` of the root."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reeltune.errors import SettingsError
from reeltune.files import reason, write_atomic
from reeltune.service.studio import Studio
from reeltune.service.uploads import clean_name, export_text, settings_of

_MOST = 500  # presets of a model that are listed
_MOST_NAME = 60  # characters


def folder(studio: Studio, id: str) -> Path:
    """Where the presets of a model are."""
    return studio.root / "settings" / "presets" / clean_name(id)


def names(studio: Studio, id: str) -> list[str]:
    """The names of a model's presets, sorted; empty where there are none, or the folder can't be read."""
    try:
        with os.scandir(folder(studio, id)) as entries:
            found = [entry.name[:-5] for entry in entries if entry.name.endswith(".json") and entry.name[0] != "."]
    except OSError:
        return []
    return sorted(found, key=str.lower)[:_MOST]


def save(studio: Studio, id: str, name: str, settings: Mapping[str, Any]) -> str:
    """Store settings under a name, replacing those of that name; returns the name as it is kept.

    Raises SettingsError for a name without letters, FileError where it can't be written.
    """
    kept = _kept_name(name)
    write_atomic(folder(studio, id) / f"{kept}.json", export_text(settings, id).encode("utf-8"))
    return kept


def load(studio: Studio, id: str, name: str) -> tuple[dict[str, Any], list[str]]:
    """The settings of a preset, and the keys that can't be used. Raises ReeltuneError."""
    path = _file(studio, id, name)
    try:
        _, settings, unknown = settings_of(path)
    except OSError as error:
        raise SettingsError(f"The preset {name} can't be read: {reason(error)}.") from error
    return settings, unknown


def delete(studio: Studio, id: str, name: str) -> None:
    """Delete a preset. Raises SettingsError."""
    try:
        _file(studio, id, name).unlink()
    except OSError as error:
        raise SettingsError(f"The preset {name} can't be deleted: {reason(error)}.") from error


def _file(studio: Studio, id: str, name: str) -> Path:
    if name not in names(studio, id):
        raise SettingsError(f"There is no preset {name[:_MOST_NAME]!r}." if name else "Choose a preset first.")
    return folder(studio, id) / f"{name}.json"


def _kept_name(name: str) -> str:
    written = name.strip()
    if not any(character.isalnum() for character in written):
        raise SettingsError("A preset needs a name.", hint="Enter one of letters and digits.")
    plain = written.translate(str.maketrans("/\\.", "___"))  # no folders, and no ending
    return clean_name(plain)[:_MOST_NAME].strip()
