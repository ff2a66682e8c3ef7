"""`configs`: named variants of a definition, which replace keys of its `model` object. A setting selects one.

    "configs": {
        "_name": "Text encoder",              the label of the choice
        "_default_label": "Usual",            the label of the definition without a variant
        "small": {"name": "Small", "URLs": ["https://h/small_bf16.safetensors"]}
    }

Instead of an object, it may be the id of another definition whose variants are used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from reeltune._text import shortened
from reeltune.definitions.entries import Entry
from reeltune.definitions.nearest import did_you_mean
from reeltune.definitions.schema import DefinitionFile, read_section
from reeltune.definitions.section import ModelSection
from reeltune.errors import DefinitionInvalid, Problem
from reeltune.families.vocabulary import shown
from reeltune.untrusted import JsonObject

KEY = "configs"
MAX_CONFIGS = 100
_MAX_ID = 100  # characters
_NAME, _DEFAULT_LABEL = "_name", "_default_label"
_SEPARATOR = ","  # of the choices in the setting; the last one is that of the definition
_NESTED = frozenset({KEY, "visible"})  # keys that a variant can't replace


@dataclass(frozen=True)
class NamedVariant:
    """A variant of a definition. `section`: the keys of the `model` object that it replaces."""

    id: str
    label: str
    section: ModelSection


@dataclass(frozen=True)
class Variants:
    """The variants of a definition. `name`: what is chosen; `default_label`: the definition without a variant."""

    name: str
    default_label: str
    choices: tuple[NamedVariant, ...]

    def find(self, id: str) -> NamedVariant | None:
        """The variant with an id."""
        return next((variant for variant in self.choices if variant.id == id), None)


def selected_id(value: str) -> str:
    """The id of a variant in the setting `config`; empty for the definition itself.

    WanGP stores the choices of up to three lists of the architecture before that of the definition, as in `,,,small`.
    """
    return value.rpartition(_SEPARATOR)[2].strip()


def read_variants(entry: Entry, entries: Mapping[str, Entry]) -> tuple[Variants | None, list[Problem]]:
    """The variants of a definition, None if it has none, and a warning for each value that is left out."""
    file = str(entry.files[-1])
    value: Any = entry.model.configs
    visited = [entry.id]
    while isinstance(value, str) and value:
        id = value.removesuffix(f"#{KEY}")
        if id in visited or id not in entries:
            reason = "The references are circular" if id in visited else f"There is no definition {id!r}"
            fix = did_you_mean(id, entries) or "Write an object with variants."
            return None, [Problem(file, f"model.{KEY}", f"{reason}. It is left out.", fix, "warning")]
        visited.append(id)
        value = entries[id].model.configs
    if not value:
        return None, []
    warnings: list[Problem] = []
    warn = warnings.append if len(visited) == 1 else lambda problem: None  # they are those of the other definition
    choices = [variant for id, item in value.items() if (variant := _variant(file, id, item, warn)) is not None]
    name = _label(file, value, _NAME, "Variant", warn)
    default_label = _label(file, value, _DEFAULT_LABEL, "Default", warn)
    return (Variants(name, default_label, tuple(choices)) if choices else None), warnings


def _variant(file: str, id: str, item: Any, warn: Callable[[Problem], None]) -> NamedVariant | None:
    """A variant without its invalid values; None if it can't be used."""
    if id in (_NAME, _DEFAULT_LABEL):
        return None
    where = f"model.{KEY}.{shortened(id, 40)}"
    if not id.strip() or _SEPARATOR in id or not id.isprintable() or len(id) > _MAX_ID:
        fix = f"Use an id without commas, of at most {_MAX_ID} characters."
        warn(Problem(file, where, "Invalid id of a variant. It is left out.", fix, "warning"))
        return None
    if not isinstance(item, dict):
        warn(Problem(file, where, f"Invalid value {shown(item)}. It is left out.", "It must be an object.", "warning"))
        return None
    nested = sorted(_NESTED & item.keys())
    if nested:
        message = f"A variant can't replace {', '.join(nested)}. It is left out."
        warn(Problem(file, where, message, severity="warning"))
    try:
        section, problems = read_section(file, {key: item[key] for key in item if key not in _NESTED})
    except DefinitionInvalid as error:
        for problem in error.problems:
            warn(_moved(problem, where, " The variant is left out."))
        return None
    for problem in problems:
        warn(_moved(problem, where, ""))
    label = section.name or id
    replaced = {key: value for key, value in section.model_dump(exclude_unset=True).items() if key != "name"}
    return NamedVariant(id, label, ModelSection.model_validate(replaced))


def _moved(problem: Problem, where: str, addition: str) -> Problem:
    """A problem of the `model` object as one of a variant."""
    place = problem.where.replace("model", where, 1)
    return Problem(problem.file, place, problem.message + addition, problem.fix, "warning")


def _label(file: str, value: JsonObject, key: str, default: str, warn: Callable[[Problem], None]) -> str:
    label = value.get(key)
    if label in (None, ""):
        return default
    if isinstance(label, str) and label.isprintable():
        return shortened(label, _MAX_ID)
    message = f"Invalid value {shown(label)}. It is left out."
    warn(Problem(file, f"model.{KEY}.{key}", message, "It must be text of one line.", "warning"))
    return default


def with_variant(entry: Entry, variant: NamedVariant) -> Entry:
    """The entry of a definition with the keys that a variant replaces."""
    file = DefinitionFile(entry.id, entry.files[-1], variant.section, {}, ())
    changed = entry.with_file(file)
    return Entry(entry.id, entry.kind, changed.model, entry.settings, changed.layers, entry.files, entry.notices)
