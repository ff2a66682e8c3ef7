"""Which definitions use which files: by URL where it is known where a file came from, else by name."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from reeltune.checkpoints.names import base_name
from reeltune.definitions import Catalog, Definition
from reeltune.errors import DefinitionError, FileError, InvalidJSON
from reeltune.files import expand, read_bytes
from reeltune.library.index import Index
from reeltune.net import file_key
from reeltune.untrusted import decode_text, parse_json

_MOST_BYTES = 4_000_000
_MOST_TEXT = 4096  # characters of a value that can be a URL
_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})")


class Uses:
    """Which definitions list which files and component repositories."""

    def __init__(self, catalog: Catalog, index: Index) -> None:
        self._root, self._index = catalog.root, index
        self._names: dict[str, set[tuple[str, str]]] = {}  # ids, each with the key of its URL, empty for a path
        self._keys: dict[str, set[str]] = {}
        self._loose: dict[str, set[str]] = {}
        self._repositories: dict[str, set[str]] = {}
        self._unreadable: list[tuple[str, str]] = []
        for id in catalog:
            try:
                self._take(catalog[id])
            except DefinitionError:
                self._unreadable += [(id, _haystack(_text(path))) for path in catalog.files_of(id)]
        self._unreadable += [(path.stem, _haystack(_text(path))) for path in catalog.broken]

    def _take(self, definition: Definition) -> None:
        versions = (*definition.preload, *(row for rows in definition.slots.values() for row in rows))
        texts = {version.url for version in versions}
        for path in definition.files:
            texts |= {text for text in _strings(_json(path)) if len(text) < _MOST_TEXT}
        for text in texts:
            key = file_key(text) if "://" in text else ""
            self._names.setdefault(_plain(base_name(text)), set()).add((definition.id, key))
            if key:
                self._keys.setdefault(key, set()).add(definition.id)
        local = real(self._root / expand(definition.components))
        for repository in (definition.components.replace("/", "--"), local):
            self._repositories.setdefault(repository, set()).add(definition.id)
        if definition.components == definition.architecture.components_repo:
            for name in (name for row in definition.architecture.parts for name in row.wangp_files):
                self._loose.setdefault(_plain(name), set()).add(definition.id)

    def of_file(self, path: Path) -> set[str]:
        """Ids that use a file: they list the URL it came from, its name where that isn't known, or a path to it."""
        sources = self._index.serves(path)
        names = {path.name, *map(base_name, sources)}
        users = self._unreadable_of(*names)
        for key in sources:
            users |= self._keys.get(key, set())
        users |= {id for id, key in self._names.get(_plain(path.name), set()) if not (key and sources)}
        relative = path.relative_to(self._root / "ckpts")
        for place in (relative, *relative.parents):
            users |= self._loose.get(_plain(place.as_posix()), set())
        return users

    def may_want(self, path: Path) -> bool:
        """Whether a definition lists another URL of a file's name, of which no file is here: it could be a mirror."""
        rows = self._names.get(_plain(path.name), set())
        return any(key and self._index.came_from(key) is None for _, key in rows)

    def _unreadable_of(self, *names: str) -> set[str]:
        return {id for id, text in self._unreadable for name in names if _plain(name) in text}

    def of_component(self, folder: Path) -> set[str]:
        """Ids whose components come from the repository a folder belongs to."""
        name = folder.parent.name
        doubtful = {id for id, text in self._unreadable if "--" in name and _plain(name.replace("--", "/", 1)) in text}
        by_path = self._repositories.get(real(folder.parent), set())
        return self._repositories.get(name, set()) | by_path | doubtful


def real(path: Path) -> str:
    """Where a path leads; as it is written where it is no path at all."""
    try:
        return str(path.resolve())
    except (OSError, ValueError, RuntimeError):
        return str(path)


def _plain(name: str) -> str:
    """A name as any file system compares it: case and composition of its signs don't count."""
    return unicodedata.normalize("NFC", name).casefold()


def _haystack(text: str) -> str:
    """A text in which names are looked for, whichever way they are written."""
    plain = _ESCAPE.sub(lambda found: chr(int(found[1], 16)), text)
    return _plain(f"{text}\n{plain}\n{unquote(plain)}")


def _text(path: Path) -> str:
    try:
        return decode_text(read_bytes(path, _MOST_BYTES))
    except FileError:
        return ""


def _json(path: Path) -> Any:
    try:
        return parse_json(_text(path), path.name)
    except InvalidJSON:
        return None


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _strings(inner)
