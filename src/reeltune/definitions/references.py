"""The lists of files that definitions name, with references to other definitions followed.

    "URLs": "t2v"                    the list under the same key of the definition t2v
    "URLs2": "t2v_2_2#URLs"          the list under another of its keys
    "modules": ["vace_14B", [...]]   the one module of vace_14B, and one that is listed here

A file that overrides a definition and names that same definition means the list that it overrides. Chains of references
may have any length: they are followed in a loop, and what was found is kept.
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

Urls = tuple[Version, ...]
Passed = dict["_Place", None]  # in order
_FIELDS = tuple(key for key in LISTS if key in ModelSection.model_fields)
_Found = TypeVar("_Found")
_ENDS_SHOWN = 3  # ids of a long chain that a message names at each end


@dataclass(frozen=True)
class _Place:
    """A list: the definition, the key, and the layer of its files up to which it is looked for."""

    id: str
    key: str
    layer: int


class References:
    """Lists of files by definition and key. `entries` may grow until the first list is asked for."""

    def __init__(self, entries: Mapping[str, Entry]) -> None:
        self._entries = entries
        self._lists: dict[_Place, Urls | DefinitionReference] = {}
        self._modules: dict[_Place, tuple[Urls, ...] | DefinitionReference] = {}

    def urls(self, id: str, key: str) -> Urls:
        """The list under a key. Raises DefinitionReference where a reference leads nowhere, or back to itself."""
        return self._list(_Place(id, key, self._entries[id].top))

    def modules(self, id: str) -> tuple[Urls, ...]:
        """The modules, a list of versions each. Raises DefinitionReference as above."""
        place = _Place(id, "modules", self._entries[id].top)
        return _follow(place, self._modules, self._modules_step)

    def _list(self, place: _Place) -> Urls:
        """The list at a place; that of `modules` is its only module."""
        return _follow(place, self._lists, self._list_step)

    def _modules_step(self, place: _Place, passed: Passed) -> tuple[Urls, ...] | _Place:
        """The modules at a place, or the place that is named there."""
        self._refuse_circle(place, passed)
        entry = self._entries[place.id]
        value, layer = entry.value("modules", place.layer)
        if isinstance(value, str) and value:
            named = self._referred(entry, "modules", layer, value)
            return named if named.key == "modules" else (self._list(named),)
        return tuple(self._module(entry, layer, item) for item in value or ())

    def _module(self, entry: Entry, layer: int, item: list[str] | str) -> Urls:
        """The versions of one item of a `modules` list."""
        if isinstance(item, list):
            return tuple(map(Version, item))
        place = self._referred(entry, "modules", layer, item)
        named, _ = self._entries[place.id].value(place.key, place.layer)
        if place.key == "modules" and not isinstance(named, str):
            self._only(entry, item, named or [])
        return self._list(place)

    def _list_step(self, place: _Place, passed: Passed) -> Urls | _Place:
        """The list at a place, or the place that is named there."""
        self._refuse_circle(place, passed)
        entry = self._entries[place.id]
        value, layer = entry.value(place.key, place.layer)
        if place.key == "modules" and not isinstance(value, str):
            value = self._only(entry, place.id, value or [])
        if isinstance(value, str) and value:
            return self._referred(entry, place.key, layer, value)
        return tuple(map(Version, value or ()))

    def _only(self, entry: Entry, named: str, items: list[list[str] | str]) -> list[str] | str:
        """The only one of the modules of a definition that `entry` names."""
        if len(items) != 1:
            message = f"{named!r} has {len(items)} modules, so that it can't be named as one."
            self._fail(entry, "modules", message, "Name a definition with exactly one module, or list its URLs.")
        return items[0]

    def _refuse_circle(self, place: _Place, passed: Passed) -> None:
        if place not in passed:
            return
        order = list(passed)
        ids = [row.id for row in order[order.index(place) :]] + [place.id]
        if len(ids) > 2 * _ENDS_SHOWN:
            ids = [*ids[:_ENDS_SHOWN], "…", *ids[-_ENDS_SHOWN:]]
        message = f"The references form a circle: {' -> '.join(ids)}."
        self._fail(self._entries[order[-1].id], place.key, message, "Give one of them a list of URLs.")

    def _referred(self, entry: Entry, key: str, layer: int, reference: str) -> _Place:
        """The list that a reference in a layer of a definition names."""
        id, target = reference, key
        if reference not in self._entries and "#" in reference:
            id, _, target = reference.rpartition("#")
            if target not in _FIELDS:
                fix = f"Name one of its lists: {', '.join(_FIELDS)}."
                self._fail(entry, key, f"{reference!r} names no list of a definition.", fix)
        if id not in self._entries:
            self._fail(
                entry, key, f"It refers to the definition {id!r}, which doesn't exist or is broken.", self._fix(id)
            )
        if id == entry.id and target == key and layer > 0:
            return _Place(id, key, layer - 1)  # a file that overrides a definition means what it overrides
        return _Place(id, target, self._entries[id].top)

    def _fix(self, id: str) -> str:
        if "/" in id or "\\" in id or "." in id.rpartition("/")[2]:
            return f'If it is a URL or a path, write a list: ["{id}"].'
        return did_you_mean(id, self._entries) or "`reeltune list` shows all ids."

    def _fail(self, entry: Entry, key: str, message: str, fix: str) -> NoReturn:
        raise DefinitionReference(Problem(str(entry.files[-1]), f"model.{key}", message, fix))


def _follow(
    place: _Place,
    known: dict[_Place, _Found | DefinitionReference],
    step: Callable[[_Place, Passed], _Found | _Place],
) -> _Found:
    """What a place leads to, however many places lie between; all of them then know it, errors too."""
    passed: Passed = {}
    found: _Found | DefinitionReference | None
    try:
        while (found := known.get(place)) is None:
            reached = step(place, passed)
            passed[place] = None
            if not isinstance(reached, _Place):
                found = reached
                break
            place = reached
    except DefinitionReference as error:
        found = error
        passed[place] = None
    known.update(dict.fromkeys(passed, found))
    if isinstance(found, DefinitionReference):
        raise found.with_traceback(None)
    return found
