"""Presets: named settings of a model, one settings file each in `settings/presets/<model>/` of the root."""

from __future__ import annotations

import os
from pathlib import Path

from reeltune.errors import SettingsError
from reeltune.families.values import Settings
from reeltune.files import reason, write_atomic
from reeltune.service.settings_files import FileSettings, read_settings_of
from reeltune.service.uploads import clean_name
from reeltune.service.workspace import Workspace
from reeltune.settings import settings_text

_MAX_PRESETS = 500  # of a model
_MAX_NAME_LENGTH = 60
_SUFFIX = ".json"


def preset_folder(workspace: Workspace, id: str) -> Path:
    """The folder of a model's presets."""
    return workspace.root / "settings" / "presets" / clean_name(id)


def preset_names(workspace: Workspace, id: str) -> list[str]:
    """The names of a model's presets, sorted; none if the folder can't be read."""
    try:
        with os.scandir(preset_folder(workspace, id)) as entries:
            file_names = [entry.name for entry in entries if entry.name.endswith(_SUFFIX) and entry.name[0] != "."]
    except OSError:
        return []
    names = [file_name.removesuffix(_SUFFIX) for file_name in file_names]
    return sorted(names, key=str.lower)[:_MAX_PRESETS]


def save_preset(workspace: Workspace, id: str, name: str, settings: Settings) -> str:
    """Save settings under a name, replacing an existing preset; returns the name without unsafe characters.

    Raises SettingsError for a name without letters and digits, FileError if the file can't be written.
    """
    safe_name = _safe_name(name)
    path = preset_folder(workspace, id) / f"{safe_name}{_SUFFIX}"
    write_atomic(path, settings_text(id, settings).encode("utf-8"))
    return safe_name


def load_preset(workspace: Workspace, id: str, name: str) -> FileSettings:
    """The settings of a preset. Raises SettingsError, MediaError."""
    path = _preset_file(workspace, id, name)
    try:
        return read_settings_of(path)
    except OSError as error:
        raise SettingsError(f"The preset {name} can't be read: {reason(error)}.") from error


def delete_preset(workspace: Workspace, id: str, name: str) -> None:
    """Delete a preset. Raises SettingsError."""
    try:
        _preset_file(workspace, id, name).unlink()
    except OSError as error:
        raise SettingsError(f"The preset {name} can't be deleted: {reason(error)}.") from error


def _preset_file(workspace: Workspace, id: str, name: str) -> Path:
    if not name:
        raise SettingsError("Choose a preset first.")
    if name not in preset_names(workspace, id):
        raise SettingsError(f"There is no preset {name[:_MAX_NAME_LENGTH]!r}.")
    return preset_folder(workspace, id) / f"{name}{_SUFFIX}"


def _safe_name(name: str) -> str:
    stripped = name.strip()
    if not any(character.isalnum() for character in stripped):
        raise SettingsError("A preset needs a name.", hint="Enter a name with letters or digits.")
    without_separators = stripped.translate(str.maketrans("/\\.", "___"))  # neither a folder nor a suffix
    return clean_name(without_separators)[:_MAX_NAME_LENGTH].strip()
