"""Files that come through the page: looked into before anything uses them, and kept inside the root."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reeltune.definitions import Definition
from reeltune.errors import MediaError, ReeltuneError, SettingsError
from reeltune.families.vocabulary import INPUT_KEYS
from reeltune.files import expand, is_file, write_atomic
from reeltune.library.inventory import PARTIAL
from reeltune.media.inputs import read_clip, read_image
from reeltune.media.kinds import display, kind_of_bytes
from reeltune.media.origin import read_stored
from reeltune.service.media_types import head_of, suffixes_of
from reeltune.service.studio import Studio
from reeltune.settings import settings_text

MOST_BYTES = 2_000_000_000  # of one upload
MOST_JSON_BYTES = 20_000_000
_MOST_NAME, _MOST_NAME_BYTES = 100, 200
_SMALL = (16, 16)
_DECODING = threading.Lock()  # one file at a time, whatever the number of requests: it bounds the memory they take
_TAKEN = "Use a PNG, JPEG, WebP, BMP or GIF image, an MP4, WebM, MOV or MKV video, or a JSON file."
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)  # names that Windows keeps for devices
_UNSAFE = '<>:"|?*#%&'


def accepted_name(path: Path, name: str) -> str:
    """The name under which an uploaded file is kept, by what it holds.

    Raises MediaError for what is neither an image or a video that can be read, nor JSON.
    """
    shown = clean_name(name)
    kind = kind_of_bytes(head_of(path))
    if kind.image or kind.container:
        try:
            _decode(path, "image" if kind.image else "video")
        except MediaError as error:
            raise MediaError(error.message.replace(display(path), shown), hint=error.hint) from error
        return _with_suffix(shown, suffixes_of(kind))
    if kind.label != "a JSON file":
        raise MediaError(f"{shown} is {kind.label}, not an image, a video or a settings file.", hint=_TAKEN)
    if path.stat().st_size > MOST_JSON_BYTES:
        raise MediaError(f"{shown} is too large.", hint=f"At most {MOST_JSON_BYTES:,} bytes of JSON are read.")
    return _with_suffix(shown, (".json",))


def clean_name(name: str) -> str:
    """A file name that every system takes, without folders; never empty."""
    last = re.split(r"[/\\]", name)[-1]
    kept = "".join(character if character.isprintable() and character not in _UNSAFE else "_" for character in last)
    stem, dot, suffix = kept.strip(" .").rpartition(".")
    kept = f"{stem[:_MOST_NAME]}{dot}{suffix[:10]}" if stem else suffix[:_MOST_NAME]
    kept = kept.encode("utf-8", "replace")[:_MOST_NAME_BYTES].decode("utf-8", "ignore").strip(" .")
    return f"_{kept}" if _RESERVED.fullmatch(kept) or not kept else kept


def _with_suffix(name: str, suffixes: Sequence[str]) -> str:
    """The name with one of the endings its content asks for: components and readers go by them."""
    return name if name.lower().endswith(tuple(suffixes)) else f"{name.rpartition('.')[0] or name}{suffixes[0]}"


def _decode(path: Path, kind: str) -> None:
    """Raise MediaError unless the file holds an image, or a video, that can be read."""
    with _DECODING:
        if kind == "image":
            read_image(path)
        else:
            read_clip(path, 1, 1, _SMALL)


# --- what a job is given ----------------------------------------------------------------------------------------


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


def adopted(studio: Studio, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with images and videos that lie elsewhere on this machine copied to the uploads.

    Only where the page is for this machine alone; a file that can't be read, or copied, keeps its path.
    """
    found = dict(settings)
    for key in (row for row in INPUT_KEYS if studio.local and row in settings):
        value = settings[key]
        if isinstance(value, list):
            found[key] = [_adopted(studio, path) for path in value]
        else:
            found[key] = _adopted(studio, value)
    return found


def _adopted(studio: Studio, path: Any) -> Any:
    if not isinstance(path, str) or not path or studio.confined(path) is not None:
        return path
    source = studio.root / expand(path)
    try:
        if not is_file(source) or source.stat().st_size > MOST_BYTES:
            return path
        name = accepted_name(source, source.name)
        return path if name.endswith(".json") else str(_copied(studio, source, name))
    except (ReeltuneError, OSError, ValueError):
        return path


def store(studio: Studio, content: bytes, name: str) -> Path:
    """Keep a file among the uploads, where equal content is one file. Raises FileError."""
    target = studio.uploads / hashlib.sha256(content).hexdigest() / name
    if not target.exists():
        write_atomic(target, content)
    os.utime(target)
    return target


def _copied(studio: Studio, source: Path, name: str) -> Path:
    """As `store`, for a file that may be large. Raises OSError."""
    with source.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    target = studio.uploads / digest / name
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists():
        temporary = target.with_name(f"{target.name}{PARTIAL}")
        shutil.copyfile(source, temporary)
        temporary.replace(target)
    os.utime(target)
    return target


def _inside(studio: Studio, key: str, path: Any) -> Path:
    found = studio.confined(path) if isinstance(path, str | Path) else None
    if found is None or not found.is_file():
        message = f"{key}: {clean_name(str(path))!r} is not among the uploads and outputs."
        raise SettingsError(message, hint="Upload it again.")
    return found


def _look(path: Path, kind: str) -> None:
    try:
        _decode(path, kind)
    except MediaError as error:
        raise MediaError(error.message.replace(display(path), path.name), hint=error.hint) from error


def settings_of(path: Path) -> tuple[str, dict[str, Any], list[str]]:
    """Definition id (may be empty), settings and unknown keys of a generated video or image, or of a settings file.

    Told by content, whatever the name. Raises MediaError, SettingsError.
    """
    try:
        origin = read_stored(path)
    except MediaError as error:
        raise MediaError(error.message.replace(display(path), path.name), hint=error.hint) from error
    return origin.definition, dict(origin.settings), list(origin.unknown)


def export_text(settings: Mapping[str, Any], id: str) -> str:
    """A settings file: what a definition starts from, and what `reeltune settings export` writes."""
    return settings_text(id, settings)


def discard(paths: Sequence[str | Path], studio: Studio) -> None:
    """Delete uploaded JSON files, which were read and are not needed any more.

    Images and videos stay: equal content is one file, which a job or an open form may use. `cleanup` removes them.
    """
    for path in paths:
        found = studio.confined(path)
        if found is not None and found.is_relative_to(studio.uploads) and found.suffix == ".json":
            found.unlink(missing_ok=True)
