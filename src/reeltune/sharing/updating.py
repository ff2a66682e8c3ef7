"""`update`: what the author of an installed definition has changed since, in words, and applying it.

Values that the user changed are kept where the author changed something else.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reeltune._text import shortened
from reeltune.definitions import Catalog, Version
from reeltune.definitions.jsontext import parse_object
from reeltune.definitions.schema import MODEL_KEY, read_text
from reeltune.definitions.writer import KeyPath, edited_text
from reeltune.errors import DefinitionError
from reeltune.events import CancelToken
from reeltune.files import write_atomic
from reeltune.net import shown
from reeltune.preferences import Preferences
from reeltune.sharing.incoming import read_incoming
from reeltune.sharing.installing import SharedDefinition, describe
from reeltune.sharing.sources import InstalledSource, read_source, write_source
from reeltune.untrusted import JsonObject

_MAX_VALUE = 80  # characters of a value in a line
_ABSENT = object()


@dataclass(frozen=True)
class UpstreamChange:
    """A change of the author. `words`: for the user. `conflict`: the user has changed the same value otherwise."""

    key_path: KeyPath
    old: Any
    new: Any
    words: str
    conflict: bool = False

    @property
    def removes(self) -> bool:
        """Whether the author has removed the value."""
        return self.new is _ABSENT


@dataclass(frozen=True)
class Update:
    """What has changed upstream. `shared`: the new definition, checked. `edited`: whether the user changed the file."""

    id: str
    path: Path
    source: InstalledSource
    shared: SharedDefinition
    changes: tuple[UpstreamChange, ...]
    edited: bool


def installed(catalog: Catalog) -> dict[str, InstalledSource]:
    """The user's definitions that were installed from a URL, by id."""
    found: dict[str, InstalledSource] = {}
    for id in catalog:
        path = own_path(catalog, id)
        source = None if path is None else read_source(path)
        if source is not None:
            found[id] = source
    return found


def own_path(catalog: Catalog, id: str) -> Path | None:
    """The user's file of a definition; None for a built-in one. Raises DefinitionNotFound."""
    folder = catalog.root / "finetunes"
    return next((path for path in catalog.files_of(id) if path.parent == folder), None)


def find_update(
    catalog: Catalog, id: str, preferences: Preferences, cancel: CancelToken | None = None
) -> Update | None:
    """What has changed upstream since a definition was installed; None if nothing has.

    Raises DefinitionError if it wasn't installed from a URL, or the new one can't be used; FetchError.
    """
    path = own_path(catalog, id)
    source = None if path is None else read_source(path)
    if path is None or source is None:
        message = f"{id} was not installed from a URL."
        raise DefinitionError(message, hint=f"`reeltune add URL --id {id} --force` installs it from one.")
    incoming = read_incoming(source.url, preferences)
    if incoming.text == source.text:
        return None
    shared = describe(catalog, incoming, preferences, id=id, cancel=cancel)
    before = parse_object(source.text, path.name)[0]
    after = parse_object(shared.text, path.name)[0]
    own = parse_object(read_text(path), path.name)[0]
    changes = tuple(_changes(before, after, own))
    return Update(id, path, source, shared, changes, edited=own != before)


def apply_update(update: Update, *, force: bool = False) -> tuple[str, ...]:
    """Write an update; returns the places where the user's own values were kept.

    `force`: use the author's values there, too. Raises DefinitionError, FileError.
    """
    kept: list[str] = []
    if update.edited:
        applied = [change for change in update.changes if force or not change.conflict]
        kept = [_place(change.key_path) for change in update.changes if change.conflict and not force]
        values = {change.key_path: change.new for change in applied if not change.removes}
        removed = [change.key_path for change in applied if change.removes]
        text = edited_text(update.path, read_text(update.path), values, removed)
    else:
        text = update.shared.text
    write_atomic(update.path, text.encode("utf-8"))
    write_source(update.path, InstalledSource(update.source.url, update.shared.incoming.text))
    return tuple(kept)


def _changes(before: JsonObject, after: JsonObject, own: JsonObject) -> Iterator[UpstreamChange]:
    """The changes from one definition to another, key by key."""
    for key_path in _key_paths(before, after):
        old, new, current = (_value(definition, key_path) for definition in (before, after, own))
        if old == new:
            continue
        conflict = current not in (old, new)
        yield UpstreamChange(key_path, old, new, "; ".join(_words(_place(key_path), old, new)), conflict)


def _key_paths(*definitions: JsonObject) -> list[KeyPath]:
    """The places of all values: keys of the `model` object, and settings."""
    paths: dict[KeyPath, None] = {}
    for definition in definitions:
        section = definition.get(MODEL_KEY)
        if isinstance(section, Mapping):
            paths |= {(MODEL_KEY, key): None for key in section}
        paths |= {(key,): None for key in definition if key != MODEL_KEY}
    return list(paths)


def _value(definition: JsonObject, key_path: KeyPath) -> Any:
    value: Any = definition
    for key in key_path:
        if not isinstance(value, Mapping) or key not in value:
            return _ABSENT
        value = value[key]
    return value


def _place(key_path: KeyPath) -> str:
    return ".".join(key_path)


def _words(place: str, old: Any, new: Any) -> Iterator[str]:
    """A change in words; of lists, what was added and removed."""
    if old is _ABSENT:
        yield f"{place} is new: {_shown(new)}"
    elif new is _ABSENT:
        yield f"{place} is gone; it was {_shown(old)}"
    elif isinstance(old, list) and isinstance(new, list):
        yield from _list_words(place, old, new)
    elif isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in dict.fromkeys((*old, *new)):
            if old.get(key, _ABSENT) != new.get(key, _ABSENT):
                yield from _words(f"{place}.{key}", old.get(key, _ABSENT), new.get(key, _ABSENT))
    else:
        yield f"{place}: {_shown(old)} becomes {_shown(new)}"


def _list_words(place: str, old: Sequence[Any], new: Sequence[Any]) -> Iterator[str]:
    added = [item for item in new if item not in old]
    removed = [item for item in old if item not in new]
    yield from (f"{place}: {_shown(item)} is added" for item in added)
    yield from (f"{place}: {_shown(item)} is removed" for item in removed)
    if not added and not removed:
        yield f"{place}: the order has changed"


def _shown(value: Any) -> str:
    if isinstance(value, str) and Version(value).remote:
        return shown(value)
    return shortened(json.dumps(value, ensure_ascii=False), _MAX_VALUE)
