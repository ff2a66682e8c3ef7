"""What a definition derives from: its architecture, and the base model whose settings and components it inherits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

from reeltune.definitions.entries import Entry
from reeltune.definitions.nearest import nearest_name
from reeltune.errors import DefinitionReference, Problem, UnknownArchitecture
from reeltune.families import ARCHITECTURES, Architecture
from reeltune.families.others import OTHER_ARCHITECTURES, makes


def architecture_of(entry: Entry, entries: Mapping[str, Entry]) -> Architecture:
    """The architecture a definition names, itself or by a base model.

    Raises UnknownArchitecture for one that this program doesn't have, DefinitionReference for what is none.
    """
    names = [row.model.architecture or "" for row in _bases(entry, entries)]
    for name in names:
        if name in ARCHITECTURES:
            return ARCHITECTURES[name]
    name = names[-1]
    end, passed = _end_of(name, entries)
    if end in ARCHITECTURES:
        _fail(entry, f"{name!r} is a finetune.", f"Write its architecture: {end!r}.")
    if len(set(passed)) > 1 and end in passed[:-1]:
        _fail(entry, f"It leads back to itself: {' -> '.join([*passed, end])}.", "Name an architecture.")
    meant = _meant(end, entries)
    raise UnknownArchitecture(_problem(entry, _unknown(end), _advice(end, meant)), architecture=end, meant=meant)


def _end_of(name: str, entries: Mapping[str, Entry]) -> tuple[str, list[str]]:
    """The name that no definition leads on from, or leads back to, and the ids of the definitions passed."""
    passed: dict[str, None] = {}
    while name in entries and name not in ARCHITECTURES and name not in passed:
        passed[name] = None
        name = entries[name].model.architecture or ""
    return name, list(passed)


def _meant(name: str, entries: Mapping[str, Entry]) -> str:
    """The architecture or base model that a name is a misspelling of; empty where it is none."""
    if name in OTHER_ARCHITECTURES:
        return ""
    return nearest_name(name, {*ARCHITECTURES, *(id for id, row in entries.items() if row.kind == "base")})


def _advice(name: str, meant: str) -> str:
    if meant:
        return f"Did you mean {meant!r}?"
    return "" if name in OTHER_ARCHITECTURES else f"It has {', '.join(sorted(ARCHITECTURES))}."


def _unknown(name: str) -> str:
    what = makes(name)
    made = f" (it makes {what})" if what in ("images", "sound") else ""
    return f"{name!r} is an architecture this program doesn't have{made}."


def two_transformers(architecture: Architecture) -> Architecture:
    """The architecture of two transformers of the same kind, where there is one; else the given one.

    Until August 2025 definitions of Wan 2.2 named the architecture of Wan 2.1 and listed `URLs2`.
    """
    return ARCHITECTURES.get(architecture.two_transformers, architecture)


def inherited_settings(entry: Entry, entries: Mapping[str, Entry]) -> dict[str, Any]:
    """The settings of the base models a definition derives from, the nearest one's last."""
    settings: dict[str, Any] = {}
    for base in reversed(_bases(entry, entries)[1:]):
        settings.update(base.settings)
    return settings


def inherited_components(entry: Entry, entries: Mapping[str, Entry]) -> str:
    """The `components` of the definition or the nearest base model that names any; else an empty string."""
    return next((row.model.components for row in _bases(entry, entries) if row.model.components), "")


def _bases(entry: Entry, entries: Mapping[str, Entry]) -> list[Entry]:
    """The definition, the base model it names as its architecture, the one that names, and so on."""
    chain = [entry]
    seen = {entry.id}
    while True:
        name = chain[-1].model.architecture or ""
        base = entries.get(name)
        if base is None or base.kind != "base" or name in seen:
            return chain
        chain.append(base)
        seen.add(name)


def _problem(entry: Entry, message: str, fix: str) -> Problem:
    return Problem(str(entry.files[-1]), "model.architecture", message, fix)


def _fail(entry: Entry, message: str, fix: str) -> NoReturn:
    raise DefinitionReference(_problem(entry, message, fix))
