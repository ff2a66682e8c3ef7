"""How a video was made: written into its tags, and read back, also from videos and images of WanGP.

origin = read_origin(Path("outputs/fox.mp4"))
origin.definition, origin.settings["prompt"]
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reeltune.errors import MediaError
from reeltune.families.values import Settings
from reeltune.families.vocabulary import KEYS
from reeltune.media.kinds import JSON_FILE, display, kind_of
from reeltune.media.tags import read_metadata
from reeltune.settings import portable, read_settings, read_settings_file
from reeltune.untrusted import JsonObject

METADATA_VERSION = 1
_HINT = "Choose a generated video or image, or a settings file."
_MIN_SETTINGS = 3  # by which metadata without the name of a model is recognized


@dataclass(frozen=True)
class Origin:
    """How a video was made. Values that a file doesn't contain are empty.

    `definition`, `architecture`: ids. `program`: what made the video. `settings`: complete. `files`: the file name and
    sha256 (or None) of each slot's weights. `unknown`: keys of settings in a file that are unknown or have an invalid
    value.
    """

    definition: str
    architecture: str
    program: str
    settings: Settings
    files: Mapping[str, tuple[str, str | None]]
    unknown: tuple[str, ...] = ()

    def as_metadata(self) -> JsonObject:
        """A JSON object to embed in the video file."""
        return {
            "schema_version": METADATA_VERSION,
            "program": self.program,
            "definition": self.definition,
            "architecture": self.architecture,
            "settings": portable(self.settings),
            "files": {slot: {"name": name, "sha256": sha256} for slot, (name, sha256) in self.files.items()},
        }


def read_origin(path: Path) -> Origin | None:
    """How a video or an image was made, read from its tags; None if they don't contain it.

    Supported are files written by reeltune, and by WanGP, which has the settings at the top level and the definition's
    id in `model_type`. Raises MediaError for a file that is neither a video nor an image, or can't be read.
    """
    metadata = read_metadata(path)
    if metadata is None:
        return None
    if isinstance(metadata.get("settings"), Mapping):
        return _from_reeltune(metadata)
    if isinstance(metadata.get("model_type"), str) or len(KEYS.keys() & metadata.keys()) >= _MIN_SETTINGS:
        return _from_wangp(metadata)
    return None


def read_stored(path: Path) -> Origin:
    """The settings in a generated video or image, or in a settings file; the kind is recognized by the content.

    Raises MediaError for a file without settings, and SettingsError for a settings file that can't be read.
    """
    kind = kind_of(path)
    if kind.label == JSON_FILE:
        stored = read_settings_file(path)
        invalid = (problem.where for problem in stored.problems)
        return Origin(stored.definition, "", "", stored.settings, {}, (*stored.unknown, *invalid))
    if not kind.image and not kind.container:
        message = f"{display(path)} is {kind.label}, not a settings file, a video or an image."
        raise MediaError(message, hint=_HINT)
    origin = read_origin(path)
    if origin is None:
        raise MediaError(f"{display(path)} contains no settings.", hint=_HINT)
    return origin


def _from_reeltune(metadata: JsonObject) -> Origin:
    settings, unknown = _settings(metadata["settings"])
    return Origin(
        definition=_text(metadata.get("definition")),
        architecture=_text(metadata.get("architecture")),
        program=_text(metadata.get("program")),
        settings=settings,
        files=_files(metadata.get("files")),
        unknown=unknown,
    )


def _files(value: Any) -> dict[str, tuple[str, str | None]]:
    """The file name and sha256 of each slot; entries that are not objects are skipped."""
    if not isinstance(value, Mapping):
        return {}
    files: dict[str, tuple[str, str | None]] = {}
    for slot, file in value.items():
        if isinstance(file, Mapping):
            files[slot] = (_text(file.get("name")), _text(file.get("sha256")) or None)
    return files


def _from_wangp(metadata: JsonObject) -> Origin:
    settings, unknown = _settings(metadata)
    return Origin(
        definition=_text(metadata.get("model_type")),
        architecture=_text(metadata.get("base_model_type")),
        program=_text(metadata.get("type")),
        settings=settings,
        files={},
        unknown=unknown,
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _settings(values: Mapping[str, Any]) -> tuple[Settings, tuple[str, ...]]:
    """The valid settings, and the keys of unknown settings and of those with invalid values."""
    stored = read_settings(values)
    return stored.settings, (*stored.unknown, *(problem.where for problem in stored.problems))
