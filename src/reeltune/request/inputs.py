"""The input files of a request: which images and videos the settings name, and whether they are there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from reeltune.errors import SettingsError
from reeltune.families import Architecture, Input
from reeltune.files import expand, is_file, is_folder
from reeltune.media.kinds import display
from reeltune.request.letters import check_letters, flag

_MOST_IMAGES = 16
_WORDS = {"image": "an image", "images": "one image or more", "video": "a video", "mask": "a mask video"}


def asked(
    architecture: Architecture, settings: Mapping[str, Any], root: Path, say: Callable[[str], None]
) -> dict[str, tuple[Path, ...]]:
    """Files of each input the settings give. Raises SettingsError where one is missing, or isn't there."""
    found: dict[str, tuple[Path, ...]] = {}
    for row in architecture.inputs:
        paths = _paths(row, settings.get(row.key), root)
        if paths:
            found[row.key] = paths
        elif row.required:
            raise SettingsError(
                f"{architecture.id} needs {row.key}: {_WORDS[row.kind]}.",
                hint=f"Give {flag(row.key)} FILE, or {row.key}=… as a setting.",
            )
    for letters_key in dict.fromkeys(row.letters_key for row in architecture.inputs):
        letters = settings.get(letters_key) or ""
        for notice in check_letters(architecture, letters_key, letters, found, bool(settings.get("video_source"))):
            say(notice)
    if "video_mask" in found and "video_guide" not in found:
        raise SettingsError("video_mask needs a video_guide, whose frames it masks.", hint="Give --video-guide FILE.")
    return found


def _paths(row: Input, value: Any, root: Path) -> tuple[Path, ...]:
    values = value if isinstance(value, list | tuple) else [value] if value not in (None, "") else []
    if len(values) > (_MOST_IMAGES if row.kind == "images" else 1):
        raise SettingsError(f"{row.key} names {len(values)} files.", hint=f"Give {_WORDS[row.kind]}.")
    paths = []
    for name in values:
        if not isinstance(name, str | Path):
            raise SettingsError(f"{row.key} is {name!r}.", hint="Give the path of a file.")
        path = root / expand(name)
        if not is_file(path):
            problem = "is a folder" if is_folder(path) else "doesn't exist"
            raise SettingsError(f"{row.key}: {display(path)!r} {problem}.", hint="Check the path.")
        paths.append(path)
    return tuple(paths)
