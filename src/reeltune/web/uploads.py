"""Files that come through the page: looked into before anything uses them, and kept inside the root."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reeltune.definitions import Definition
from reeltune.errors import MediaError, SettingsError
from reeltune.media.inputs import read_clip, read_image
from reeltune.media.origin import read_origin
from reeltune.settings import read_settings_file
from reeltune.web.studio import Studio

MOST_BYTES = 2_000_000_000  # of one file
_MOST_SETTINGS_BYTES = 1_000_000
_MOST_IMAGE_BYTES = 100_000_000
_SMALL = (16, 16)


def checked_inputs(studio: Studio, definition: Definition, settings: dict[str, Any]) -> dict[str, Any]:
    """The settings with the paths of their inputs made relative to the root, every file looked into.

    Raises MediaError for a file that isn't what it should be, SettingsError for one outside outputs and uploads.
    """
    checked = dict(settings)
    for row in definition.architecture.inputs:
        value = settings.get(row.key)
        if value in (None, "", []):
            continue
        paths = [_inside(studio, row.key, path) for path in (value if isinstance(value, list) else [value])]
        for path in paths:
            _look(path, "image" if row.kind.startswith("image") else "video")
        relative = [studio.relative(path) for path in paths]
        checked[row.key] = relative if row.kind == "images" else relative[0]
    return checked


def _inside(studio: Studio, key: str, path: Any) -> Path:
    found = studio.confined(path) if isinstance(path, str | Path) else None
    if found is None or not found.is_file():
        message = f"{key}: {Path(str(path)).name!r} is no file among the uploads and outputs."
        raise SettingsError(message, hint="Upload it again.")
    return found


def _look(path: Path, kind: str) -> None:
    """Raise MediaError unless the file holds an image, or a video, that can be read."""
    if kind == "image":
        if path.stat().st_size > _MOST_IMAGE_BYTES:
            raise MediaError(f"{path.name} has {path.stat().st_size:,} bytes, too many for an image.")
        read_image(path)
    else:
        read_clip(path, 1, 1, _SMALL)


def settings_of(path: Path) -> tuple[str, dict[str, Any], list[str]]:
    """Definition id (may be empty), settings and unknown keys of a generated video or image, or of a settings file.

    Told by content, whatever the name. Raises MediaError, SettingsError.
    """
    with path.open("rb") as file:
        head = file.read(64).lstrip(b"\xef\xbb\xbf \t\r\n")
    if head.startswith(b"{"):
        if path.stat().st_size > _MOST_SETTINGS_BYTES:
            raise SettingsError(f"{path.name} is too large for a settings file.")
        settings, unknown = read_settings_file(path)
        return _id(settings.get("model_type")), settings, unknown
    origin = read_origin(path)
    if origin is None:
        raise MediaError(f"{path.name} holds no settings.", hint="Choose a generated video, or a settings file.")
    return origin.definition, dict(origin.settings), list(origin.unknown)


def _id(value: Any) -> str:
    return value if isinstance(value, str) else ""


def export_text(settings: Mapping[str, Any], id: str) -> str:
    """A settings file: what a definition starts from, and what `reeltune settings export` writes."""
    return json.dumps({"model_type": id, **settings}, indent=4, ensure_ascii=False) + "\n"


def discard(paths: Sequence[str | Path], studio: Studio) -> None:
    """Delete uploads that were refused."""
    for path in paths:
        found = studio.confined(path)
        if found is not None and found.is_relative_to(studio.uploads):
            found.unlink(missing_ok=True)
