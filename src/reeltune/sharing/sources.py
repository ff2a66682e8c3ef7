"""Where installed definitions come from: `finetunes/x.source`, a JSON object, beside `finetunes/x.json`.

    {"source_version": 1, "url": "https://…/x.json", "text": "…"}

`text` is the definition as it was installed, so that later changes of the author can be told from the user's own.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from reeltune.errors import FileError, InvalidJSON
from reeltune.files import read_bytes, write_atomic
from reeltune.untrusted import parse_json

SUFFIX = ".source"
_VERSION = 1
_MAX_BYTES = 10_000_000


@dataclass(frozen=True)
class InstalledSource:
    """The URL that a definition was installed from, and its text at that time."""

    url: str
    text: str


def source_path(definition_file: Path) -> Path:
    """The path of the source file of a definition."""
    return definition_file.with_suffix(SUFFIX)


def read_source(definition_file: Path) -> InstalledSource | None:
    """Where a definition was installed from; None if it wasn't, or that can't be read."""
    path = source_path(definition_file)
    try:
        value = parse_json(read_bytes(path, _MAX_BYTES), path.name, max_bytes=_MAX_BYTES)
    except (FileError, InvalidJSON):
        return None
    if not isinstance(value, dict) or value.get("source_version") != _VERSION:
        return None
    url, text = value.get("url"), value.get("text")
    if not isinstance(url, str) or not isinstance(text, str) or not url.startswith(("http://", "https://")):
        return None
    return InstalledSource(url, text)


def write_source(definition_file: Path, source: InstalledSource) -> None:
    """Remember where a definition was installed from. Raises FileError."""
    value = {"source_version": _VERSION, "url": source.url, "text": source.text}
    write_atomic(source_path(definition_file), (json.dumps(value, ensure_ascii=False) + "\n").encode("utf-8"))
