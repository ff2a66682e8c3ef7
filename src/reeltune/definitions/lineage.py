"""What a definition derives from: its architecture, and the base models whose settings and components it inherits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

from reeltune.definitions.entries import Entry
from reeltune.definitions.nearest import nearest_name
from reeltune.errors import DefinitionReference, Problem, UnknownArchitecture
from reeltune.families import ARCHITECTURES, Architecture
from reeltune.families.others import OTHER_ARCHITECTURES, makes


def architecture_of(entry: Entry, entries: Mapping[str, Entry]) -> Architecture:
    """The architecture of a definition, which it names directly or through base models.

    Raises UnknownArchitecture for an unsupported architecture, and DefinitionReference for the id of a finetune or a
    circular reference.
    """
    names = [base.model.architecture or "" for base in bases(entry, entries)]
    for name in names:
        if name in ARCHITECTURES:
            return ARCHITECTURES[name]
    name = names[-1]
    end, visited = _end_of_chain(name, entries)
    if end in ARCHITECTURES:
        _fail(entry, f"{name!r} is a finetune.", f"Use its architecture: {end!r}.")
    if len(set(visited)) > 1 and end in visited[:-1]:
        _fail(entry, f"The references are circular: {' -> '.join([*visited, end])}.", "Use an architecture.")
    meant = _misspelled_name(end, entries)
    raise UnknownArchitecture(_problem(entry, _unknown(end), _hint(end, meant)), architecture=end, meant=meant)


def _end_of_chain(name: str, entries: Mapping[str, Entry]) -> tuple[str, list[str]]:
    """The last name in a chain of definitions, and the ids in it; in a circular chain, the first repeated id."""
    visited: dict[str, None] = {}
    while name in entries and name not in ARCHITECTURES and name not in visited:
        visited[name] = None
        name = entries[name].model.architecture or ""
    return name, list(visited)


def _misspelled_name(name: str, entries: Mapping[str, Entry]) -> str:
    """The architecture or base model that a name is a misspelling of; empty if there is none."""
    if name in OTHER_ARCHITECTURES:
        return ""
    base_models = [id for id, entry in entries.items() if entry.kind == "base"]
    return nearest_name(name, {*ARCHITECTURES, *base_models})


def _hint(name: str, meant: str) -> str:
    if meant:
        return f"Did you mean {meant!r}?"
    if name in OTHER_ARCHITECTURES:
        return ""
    return f"Supported are {', '.join(sorted(ARCHITECTURES))}."


def _unknown(name: str) -> str:
    result = makes(name)
    details = f" (it makes {result})" if result in ("images", "sound") else ""
    return f"{name!r} is an architecture that reeltune doesn't support{details}."


def two_transformers(architecture: Architecture) -> Architecture:
    """The variant of an architecture with two transformers, if there is one; else the architecture itself.

    Until August 2025, definitions of Wan 2.2 named the architecture of Wan 2.1 and listed `URLs2`.
    """
    return ARCHITECTURES.get(architecture.two_transformers, architecture)


def inherited_settings(entry: Entry, entries: Mapping[str, Entry]) -> dict[str, Any]:
    """The settings of the base models that a definition derives from; a nearer one overrides those behind it."""
    settings: dict[str, Any] = {}
    for base in reversed(bases(entry, entries)[1:]):
        settings.update(base.settings)
    return settings


def inherited_components(entry: Entry, entries: Mapping[str, Entry]) -> str:
    """The `components` of the definition or of its nearest base model with any; empty if none has any."""
    for base in bases(entry, entries):
        if base.model.components:
            return base.model.components
    return ""


def inherited_value(entry: Entry, entries: Mapping[str, Entry], key: str) -> Any:
    """The value of a key of the `model` object in the definition or its nearest base model; None if none has it."""
    for base in bases(entry, entries):
        value = getattr(base.model, key, None)
        if value is not None:
            return value
    return None


def profile_folders(entry: Entry, entries: Mapping[str, Entry], architecture: Architecture) -> tuple[str, ...]:
    """The folders of profiles that the definition or its nearest base model names, else its architecture's.

    Empty if the definition names none on purpose, by an empty text or list.
    """
    for base in bases(entry, entries):
        named = base.model.profiles_dir if base.model.profiles_dir is not None else base.model.profile_dirs
        if named is not None:
            names = [named] if isinstance(named, str) else named
            return tuple(dict.fromkeys(name for name in names if name))
    return (architecture.profiles,) if architecture.profiles else ()


def bases(entry: Entry, entries: Mapping[str, Entry]) -> list[Entry]:
    """The definition, the base model that it derives from, the base model of that one, and so on."""
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
