"""The lists of files in definitions, with references to other definitions resolved.

    "URLs": "t2v"                    the list under the same key of the definition t2v
    "URLs2": "t2v_2_2#URLs"          the list under another of its keys
    "modules": ["vace_14B", [...]]   the only module of vace_14B, and a module with its own list

A file that overrides a definition and refers to that same definition means the list that it overrides. Chains of
references can have any length: they are followed in a loop, not by recursion, and the results are cached.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NoReturn, TypeVar

from reeltune.definitions.entries import Entry
from reeltune.definitions.model import Version
from reeltune.definitions.nearest import did_you_mean
from reeltune.definitions.section import LISTS, ModelSection
from reeltune.errors import DefinitionReference, Problem
from reeltune.net import without_secrets

Urls = tuple[Version, ...]
_Visited = dict["_ListKey", None]  # in order
_FIELDS = tuple(key for key in LISTS if key in ModelSection.model_fields)
_Resolved = TypeVar("_Resolved")
_MAX_SHOWN = 3  # ids that a message shows at each end of a long chain


@dataclass(frozen=True)
class _ListKey:
    """Identifies a list: the definition, the key, and the last of its files (`layer`) that is considered."""

    id: str
    key: str
    layer: int


class References:
    """The resolved lists of all definitions. `entries` must be complete before the first list is requested."""

    def __init__(self, entries: Mapping[str, Entry]) -> None:
        self._entries = entries
        self._lists: dict[_ListKey, Urls | DefinitionReference] = {}
        self._modules: dict[_ListKey, tuple[Urls, ...] | DefinitionReference] = {}

    def urls(self, id: str, key: str) -> Urls:
        """The list under a key. Raises DefinitionReference for a missing or circular reference."""
        return self._list(_ListKey(id, key, self._entries[id].top))

    def modules(self, id: str) -> tuple[Urls, ...]:
        """The modules, each with its versions. Raises DefinitionReference for a missing or circular reference."""
        list_key = _ListKey(id, "modules", self._entries[id].top)
        return _follow(list_key, self._modules, self._modules_step)

    def _list(self, list_key: _ListKey) -> Urls:
        """The list with a key; the list of `modules` is its only module."""
        return _follow(list_key, self._lists, self._list_step)

    def _modules_step(self, list_key: _ListKey, visited: _Visited) -> tuple[Urls, ...] | _ListKey:
        """The modules with a key, or the key that they refer to."""
        self._refuse_circle(list_key, visited)
        entry = self._entries[list_key.id]
        value, layer = entry.value("modules", list_key.layer)
        if isinstance(value, str) and value:
            named = self._referred(entry, "modules", layer, value)
            return named if named.key == "modules" else (self._list(named),)
        return tuple(self._module(entry, layer, item) for item in value or ())

    def _module(self, entry: Entry, layer: int, item: list[str] | str) -> Urls:
        """The versions of one item of a `modules` list."""
        if isinstance(item, list):
            return tuple(map(Version, item))
        list_key = self._referred(entry, "modules", layer, item)
        named, _ = self._entries[list_key.id].value(list_key.key, list_key.layer)
        if list_key.key == "modules" and not isinstance(named, str):
            self._only(entry, item, named or [])
        return self._list(list_key)

    def _list_step(self, list_key: _ListKey, visited: _Visited) -> Urls | _ListKey:
        """The list with a key, or the key that it refers to."""
        self._refuse_circle(list_key, visited)
        entry = self._entries[list_key.id]
        value, layer = entry.value(list_key.key, list_key.layer)
        if list_key.key == "modules" and not isinstance(value, str):
            value = self._only(entry, list_key.id, value or [])
        if isinstance(value, str) and value:
            return self._referred(entry, list_key.key, layer, value)
        return tuple(map(Version, value or ()))

    def _only(self, entry: Entry, named: str, items: list[list[str] | str]) -> list[str] | str:
        """The only module of a definition that `entry` refers to."""
        if len(items) != 1:
            message = f"{named!r} has {len(items)} modules, and a reference needs exactly one."
            self._fail(entry, "modules", message, "Refer to a definition with one module, or list its URLs.")
        return items[0]

    def _refuse_circle(self, list_key: _ListKey, visited: _Visited) -> None:
        if list_key not in visited:
            return
        order = list(visited)
        ids = [key.id for key in order[order.index(list_key) :]] + [list_key.id]
        message = f"The references are circular: {chain(ids)}."
        self._fail(self._entries[order[-1].id], list_key.key, message, "Write a list of URLs in one of them.")

    def _referred(self, entry: Entry, key: str, layer: int, reference: str) -> _ListKey:
        """The list that a reference in a layer of a definition refers to."""
        id, target = reference, key
        if reference not in self._entries and "#" in reference:
            id, _, target = reference.rpartition("#")
            if target not in _FIELDS:
                fix = f"Use one of the lists {', '.join(_FIELDS)}."
                self._fail(entry, key, f"{without_secrets(reference)!r} doesn't refer to a list of a definition.", fix)
        if id not in self._entries:
            shown = without_secrets(id)
            message = f"It refers to the definition {shown!r}, which doesn't exist or is broken."
            self._fail(entry, key, message, self._fix(shown))
        if id == entry.id and target == key and layer > 0:
            return _ListKey(id, key, layer - 1)  # a file that overrides a definition means what it overrides
        return _ListKey(id, target, self._entries[id].top)

    def _fix(self, id: str) -> str:
        if "/" in id or "\\" in id or "." in id.rpartition("/")[2]:
            return f'If it is a URL or a path, write it as a list: ["{id}"].'
        return did_you_mean(id, self._entries) or "`reeltune list` shows all ids."

    def _fail(self, entry: Entry, key: str, message: str, fix: str) -> NoReturn:
        raise DefinitionReference(Problem(str(entry.files[-1]), f"model.{key}", message, fix))


def chain(ids: list[str]) -> str:
    """The ids of a chain of references for a message; a long chain without its middle."""
    if len(ids) > 2 * _MAX_SHOWN:
        ids = [*ids[:_MAX_SHOWN], "…", *ids[-_MAX_SHOWN:]]
    return " -> ".join(ids)


def _follow(
    list_key: _ListKey,
    cache: dict[_ListKey, _Resolved | DefinitionReference],
    step: Callable[[_ListKey, _Visited], _Resolved | _ListKey],
) -> _Resolved:
    """The result of a chain of references, cached for every key in the chain. Raises DefinitionReference."""
    visited: _Visited = {}
    result: _Resolved | DefinitionReference | None = cache.get(list_key)
    try:
        while result is None:
            next_or_result = step(list_key, visited)
            visited[list_key] = None
            if isinstance(next_or_result, _ListKey):
                list_key = next_or_result
                result = cache.get(list_key)
            else:
                result = next_or_result
    except DefinitionReference as error:
        result = error
        visited[list_key] = None
    cache.update(dict.fromkeys(visited, result))
    if isinstance(result, DefinitionReference):
        raise result.with_traceback(None)
    return result
