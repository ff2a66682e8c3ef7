"""Settings read from videos, images and settings files, and the input files that they name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reeltune.definitions import Definition
from reeltune.errors import MediaError, ReeltuneError, SettingsError
from reeltune.families.values import Settings
from reeltune.families.vocabulary import INPUT_KEYS
from reeltune.files import expand, is_file
from reeltune.media.kinds import display
from reeltune.media.origin import read_stored
from reeltune.service.uploads import MAX_BYTES, accepted_name, check_media, clean_name, copy_to_uploads
from reeltune.service.workspace import Workspace

_CONTENT = {"image": "image", "images": "image", "tracks": "tracks"}  # of an input's file; a video for all other kinds
_EMPTY: tuple[Any, ...] = (None, "", [])


@dataclass(frozen=True)
class FileSettings:
    """Settings from a file. `definition`: the id it names, may be empty. `unknown`: keys that can't be used."""

    definition: str
    architecture: str
    settings: Settings
    unknown: tuple[str, ...] = ()


def read_settings_of(path: Path) -> FileSettings:
    """The settings of a generated video or image, or of a settings file, recognized by its content.

    Raises MediaError for a file without settings, SettingsError for a settings file that can't be read.
    """
    try:
        origin = read_stored(path)
    except MediaError as error:
        raise MediaError(error.message.replace(display(path), path.name), hint=error.hint) from error
    return FileSettings(origin.definition, origin.architecture, dict(origin.settings), tuple(origin.unknown))


def checked_inputs(workspace: Workspace, definition: Definition, settings: Settings) -> Settings:
    """The settings with the paths of their images and videos relative to the root. Every file is decoded.

    Raises MediaError for a file of another kind, SettingsError for a file outside the outputs and uploads.
    """
    checked = dict(settings)
    for model_input in definition.architecture.inputs:
        value = settings.get(model_input.key)
        if value in _EMPTY:
            continue
        paths = [_inside(workspace, model_input.key, path) for path in (value if isinstance(value, list) else [value])]
        for path in paths:
            _check_media(path, _CONTENT.get(model_input.kind, "video"))
        relative_paths = [workspace.relative(path) for path in paths]
        checked[model_input.key] = relative_paths if model_input.kind == "images" else relative_paths[0]
    return checked


def _inside(workspace: Workspace, key: str, path: Any) -> Path:
    real_path = workspace.confined(path)
    if real_path is None or not is_file(real_path):
        message = f"{key}: {clean_name(str(path))!r} is not among the uploads and outputs."
        raise SettingsError(message, hint="Upload it again.")
    return real_path


def _check_media(path: Path, kind: str) -> None:
    try:
        check_media(path, kind)
    except MediaError as error:
        raise MediaError(error.message.replace(display(path), path.name), hint=error.hint) from error


def import_inputs(workspace: Workspace, settings: Settings) -> Settings:
    """The settings with images and videos from elsewhere on this machine copied to the uploads.

    Nothing is copied when other machines can reach the workspace. A file that can't be copied keeps its path.
    """
    imported = dict(settings)
    if not workspace.local:
        return imported
    for key in INPUT_KEYS:
        if key not in settings:
            continue
        value = settings[key]
        if isinstance(value, list):
            imported[key] = [_imported(workspace, path) for path in value]
        else:
            imported[key] = _imported(workspace, value)
    return imported


def _imported(workspace: Workspace, path: Any) -> Any:
    if not isinstance(path, str) or not path or workspace.confined(path) is not None:
        return path
    try:
        source = workspace.root / expand(path)
        if not is_file(source) or source.stat().st_size > MAX_BYTES:
            return path
        name = accepted_name(source, source.name)
        return path if name.endswith(".json") else str(copy_to_uploads(workspace, source, name))
    except (ReeltuneError, OSError, ValueError):
        return path


def missing_inputs(workspace: Workspace, definition: Definition, settings: Settings) -> list[str]:
    """The keys of inputs whose files no longer exist."""
    keys = [model_input.key for model_input in definition.architecture.inputs]
    return [key for key in keys if key in settings and not _exists(workspace, settings[key])]


def _exists(workspace: Workspace, value: Any) -> bool:
    paths = value if isinstance(value, list) else [value]
    real_paths = [workspace.confined(path) for path in paths if path not in (None, "")]
    return all(path is not None and is_file(path) for path in real_paths)
