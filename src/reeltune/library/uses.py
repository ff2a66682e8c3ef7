"""Which definitions use a file: decided by its URL if that is known, otherwise by its name."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from reeltune.checkpoints.names import base_name
from reeltune.definitions import Catalog, Definition
from reeltune.errors import DefinitionError, FileError, InvalidJSON
from reeltune.families import Component
from reeltune.families.components import KINDS
from reeltune.files import expand, read_bytes
from reeltune.library.index import Index, fold
from reeltune.net import file_key
from reeltune.untrusted import decode_text, parse_json

_MAX_BYTES = 4_000_000
_MAX_URL_LENGTH = 4096
_JSON_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})")


class FileUsers:
    """Which definitions of a catalog use which files and component repositories."""

    def __init__(self, catalog: Catalog, index: Index) -> None:
        self._root = catalog.root
        self._index = index
        self._by_name: dict[str, set[tuple[str, str]]] = {}  # (id, key of the URL, or empty for a path) by file name
        self._by_url: dict[str, set[str]] = {}
        self._by_other_program: dict[str, set[str]] = {}  # components by file name, or by path in `ckpts`
        self._by_repository: dict[str, set[str]] = {}
        self._unreadable: list[tuple[str, str]] = []  # (id, searchable text) of definitions that can't be resolved
        for id in catalog:
            try:
                self._add(catalog[id])
            except DefinitionError:
                self._unreadable += [(id, _searchable(_read_text(path))) for path in catalog.files_of(id)]
        self._unreadable += [(path.stem, _searchable(_read_text(path))) for path in catalog.broken]

    def _add(self, definition: Definition) -> None:
        for text in _listed_texts(definition):
            key = file_key(text) if "://" in text else ""
            self._by_name.setdefault(fold(base_name(text)), set()).add((definition.id, key))
            if key:
                self._by_url.setdefault(key, set()).add(definition.id)
        local = resolved_path(self._root / expand(definition.components))
        parts = definition.architecture.parts
        own = [component.repository.replace("/", "--") for component in parts if component.repository]
        for repository in (definition.components.replace("/", "--"), local, *own):
            self._by_repository.setdefault(repository, set()).add(definition.id)
        for component in parts:
            if component.repository or definition.components == definition.architecture.components_repo:
                for name in _names_elsewhere(component):
                    self._by_other_program.setdefault(fold(name), set()).add(definition.id)

    def of_file(self, path: Path) -> set[str]:
        """Ids of the definitions that use a file.

        They list the URL that the file was downloaded from, its name if that is unknown, or its path.
        """
        sources = self._index.sources_and_mirrors(path)
        users = self._unreadable_with({path.name, *map(base_name, sources)})
        for key in sources:
            users |= self._by_url.get(key, set())
        for id, key in self._by_name.get(fold(path.name), set()):
            if not key or not sources:
                users.add(id)
        relative = path.relative_to(self._root / "ckpts")
        for name in (path.name, *map(Path.as_posix, (relative, *relative.parents))):
            users |= self._by_other_program.get(fold(name), set())
        return users

    def may_be_used(self, path: Path) -> bool:
        """Whether a definition lists another URL with the file's name that has no file on disk: it may be a mirror."""
        listed = self._by_name.get(fold(path.name), set())
        return any(key and self._index.file_from_url(key) is None for _, key in listed)

    def of_component(self, folder: Path) -> set[str]:
        """Ids of the definitions that use the repository a component's folder belongs to."""
        name = folder.parent.name
        users = self._by_repository.get(name, set()) | self._by_repository.get(resolved_path(folder.parent), set())
        if "--" in name:
            users |= self._unreadable_with({name.replace("--", "/", 1)})
        return users

    def _unreadable_with(self, names: set[str]) -> set[str]:
        """Ids of the definitions that can't be resolved and whose text contains one of `names`."""
        folded = [fold(name) for name in names]
        return {id for id, text in self._unreadable if any(name in text for name in folded)}


def _names_elsewhere(component: Component) -> set[str]:
    """The files and folders in which other programs keep a component."""
    kinds = [component.kind, *(part.kind for part in component.assembled)]
    return {*component.folders, *(name for kind in kinds if kind for name in KINDS[kind].files)}


def _listed_texts(definition: Definition) -> set[str]:
    """Every text in a definition that may be a URL or path, whether or not its key is known."""
    texts = {version.url for version in definition.preload}
    for versions in definition.all_versions.values():
        texts |= {version.url for version in versions}
    for path in definition.files:
        texts |= {text for text in _strings(_read_json(path)) if len(text) < _MAX_URL_LENGTH}
    return texts


def resolved_path(path: Path) -> str:
    """A path with its links resolved; unchanged if that is not possible."""
    try:
        return str(path.resolve())
    except (OSError, ValueError, RuntimeError):
        return str(path)


def _searchable(text: str) -> str:
    """A definition's text in every form in which it may contain a file name: as is, unescaped and unquoted."""
    unescaped = _JSON_ESCAPE.sub(lambda match: chr(int(match[1], 16)), text)
    return fold(f"{text}\n{unescaped}\n{unquote(unescaped)}")


def _read_text(path: Path) -> str:
    try:
        return decode_text(read_bytes(path, _MAX_BYTES))
    except FileError:
        return ""


def _read_json(path: Path) -> Any:
    try:
        return parse_json(_read_text(path), path.name)
    except InvalidJSON:
        return None


def _strings(value: Any) -> Iterator[str]:
    """Every string inside a JSON value, keys excluded."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)
