"""How a video was made: what is embedded in it, and what is read back, also from WanGP's videos and images.

origin = read_origin(Path("outputs/fox.mp4"))
origin.definition, origin.settings["prompt"]
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reeltune.errors import MediaError
from reeltune.families.vocabulary import KEYS
from reeltune.media.kinds import JSON_FILE, display, kind_of
from reeltune.media.tags import read_metadata
from reeltune.settings import portable, read_settings, read_settings_file

METADATA_VERSION = 1
_WANTED = "Choose a generated video or image, or a settings file."
_FEW = 3  # settings by which an object without a model's name is recognized


@dataclass(frozen=True)
class Origin:
    """How a video was made: `settings` complete, `files` by slot as (file name, sha256 or None).

    Of one that is read back, `unknown` holds the keys of its settings that this program doesn't have, or whose values
    it can't read; what a file doesn't hold is empty.
    """

    definition: str
    architecture: str
    program: str
    settings: Mapping[str, Any]
    files: Mapping[str, tuple[str, str | None]]
    unknown: tuple[str, ...] = ()

    def as_metadata(self) -> dict[str, Any]:
        """Plain values, embedded in the video file."""
        return {
            "schema_version": METADATA_VERSION,
            "program": self.program,
            "definition": self.definition,
            "architecture": self.architecture,
            "settings": portable(self.settings),
            "files": {slot: {"name": name, "sha256": sha256} for slot, (name, sha256) in self.files.items()},
        }


def read_origin(path: Path) -> Origin | None:
    """How a video or an image was made, by its tags; None where they don't hold it.

    Read are files of this program, and WanGP's, which hold the settings at the top level with the definition's id as
    `model_type`. Raises MediaError for a file that is neither a video nor an image, or can't be read.
    """
    metadata = read_metadata(path)
    if metadata is None:
        return None
    if isinstance(metadata.get("settings"), Mapping):
        return _own(metadata)
    if isinstance(metadata.get("model_type"), str) or len(KEYS.keys() & metadata.keys()) >= _FEW:
        return _wangp(metadata)
    return None


def read_stored(path: Path) -> Origin:
    """The settings of a generated video or image, or of a settings file: recognized by content, whatever the name.

    Raises MediaError for a file that holds none, SettingsError for a settings file that can't be read.
    """
    kind = kind_of(path)
    if kind.label == JSON_FILE:
        stored = read_settings_file(path)
        odd = (problem.where for problem in stored.problems)
        return Origin(stored.definition, "", "", stored.settings, {}, (*stored.unknown, *odd))
    if not kind.image and not kind.container:
        message = f"{display(path)} is {kind.label}, not a settings file, a video or an image."
        raise MediaError(message, hint=_WANTED)
    origin = read_origin(path)
    if origin is None:
        raise MediaError(f"{display(path)} holds no settings.", hint=_WANTED)
    return origin


def _own(metadata: Mapping[str, Any]) -> Origin:
    files: dict[str, tuple[str, str | None]] = {}
    listed = metadata.get("files")
    for slot, file in listed.items() if isinstance(listed, Mapping) else ():
        if isinstance(file, Mapping):
            files[slot] = (_word(file.get("name")), _word(file.get("sha256")) or None)
    settings, unknown = _settings(metadata["settings"])
    return Origin(
        definition=_word(metadata.get("definition")),
        architecture=_word(metadata.get("architecture")),
        program=_word(metadata.get("program")),
        settings=settings,
        files=files,
        unknown=unknown,
    )


def _wangp(metadata: Mapping[str, Any]) -> Origin:
    settings, unknown = _settings(metadata)
    return Origin(
        definition=_word(metadata.get("model_type")),
        architecture=_word(metadata.get("base_model_type")),
        program=_word(metadata.get("type")),
        settings=settings,
        files={},
        unknown=unknown,
    )


def _word(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _settings(values: Mapping[str, Any]) -> tuple[Mapping[str, Any], tuple[str, ...]]:
    """The settings this program has, and the keys of those that it hasn't, or whose values it can't read."""
    stored = read_settings(values)
    return stored.settings, (*stored.unknown, *(problem.where for problem in stored.problems))
