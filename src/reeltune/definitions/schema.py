"""One definition file: parsed, validated, every oddity named with its place and its fix.

The format is WanGP's (https://github.com/deepbeepmeep/Wan2GP, docs/FINETUNES.md), read unchanged: the top
level holds settings, `model` says what the model is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from reeltune.definitions.jsontext import MAX_BYTES, decode, parse_object
from reeltune.definitions.keys import is_known
from reeltune.definitions.nearest import nearest_name
from reeltune.definitions.repair import Repaired, repaired
from reeltune.definitions.section import ESSENTIAL, SHA256, WANTED, ModelSection
from reeltune.errors import DefinitionInvalid, DefinitionSyntaxError, FileError, Problem
from reeltune.families.vocabulary import KEYS, shown
from reeltune.files import read_bytes
from reeltune.settings import listed, read_settings, unknown_settings
from reeltune.settings.renames import RENAMED
from reeltune.untrusted import clean_text

MODEL_KEY = "model"
_FIELDS = frozenset(ModelSection.model_fields)
_MOST_PROBLEMS = 20  # of one file that are named
_MOST_GUESSES = 8  # unknown keys for which the known one is looked for that was meant


class _File(BaseModel):
    """A whole file, for the exported JSON Schema."""

    model_config = ConfigDict(extra="allow", title="reeltune finetune definition")

    model: ModelSection


@dataclass(frozen=True)
class DefinitionFile:
    """One file, parsed: its `model` section, its settings by key, and what is odd about it."""

    id: str
    path: Path
    model: ModelSection
    settings: Mapping[str, Any]
    notices: tuple[Problem, ...]


def read_definition(path: Path) -> DefinitionFile:
    """Parse a file. Raises DefinitionSyntaxError, or DefinitionInvalid with its problems."""
    if clean_text(path.name) != path.name:  # no id of it could be stored, shown or sent
        problem = Problem(clean_text(str(path)), "", "The file's name is not valid UTF-8.", "Rename it.")
        raise DefinitionSyntaxError(problem)
    if not path.name.isprintable():
        problem = Problem(str(path), "", "The file's name holds control characters.", "Rename it.")
        raise DefinitionSyntaxError(problem)
    return parse_definition(path, read_text(path))


def parse_definition(path: Path, text: str) -> DefinitionFile:
    """Parse a file's text. Raises as `read_definition`; where it was pasted together, the error shows what to write."""
    try:
        return build_definition(path, *parse_object(text, str(path)))
    except DefinitionSyntaxError as error:
        if found := repaired(text):
            raise DefinitionSyntaxError(_how_to_repair(error.problem, found)) from error
        raise
    except DefinitionInvalid as error:
        if [row.where for row in error.problems] == [MODEL_KEY] and (found := repaired(text)):
            raise DefinitionInvalid([_how_to_repair(error.problems[0], found)]) from error
        raise


def _how_to_repair(problem: Problem, found: Repaired) -> Problem:
    message = f"The file must hold one JSON object: {'; '.join(found.faults)}."
    return replace(problem, message=message, fix=f"Write {found.outline}. `reeltune check --fix` does it.")


def read_text(path: Path) -> str:
    """The text of a definition file. Raises DefinitionSyntaxError."""
    try:
        raw = read_bytes(path, MAX_BYTES)
    except FileError as error:
        message = error.message.removeprefix(f"{path} ")
        raise DefinitionSyntaxError(Problem(str(path), "", f"The file {message}", error.hint)) from error
    return decode(raw, str(path))


def build_definition(path: Path, value: dict[str, Any], notices: list[Problem]) -> DefinitionFile:
    """Validate a parsed object. Raises DefinitionInvalid with its problems."""
    file, section = str(path), value.get(MODEL_KEY)
    if not isinstance(section, dict):
        fix = 'Add "model": {"name": …, "architecture": …, "URLs": […]}.'
        raise DefinitionInvalid([Problem(file, MODEL_KEY, "A definition needs a `model` object.", fix)])
    model, odd = _section(file, section)
    settings, odd_settings = _settings(file, value)
    unknown = _unknown(file, model.model_extra or {})
    return DefinitionFile(path.stem, path, model, settings, (*notices, *odd, *unknown, *odd_settings))


def _section(file: str, section: dict[str, Any]) -> tuple[ModelSection, list[Problem]]:
    """The section without what can't be used of it, and a warning for each such value.

    Raises DefinitionInvalid where it can't be used as a whole.
    """
    try:
        return ModelSection.model_validate(section), []
    except ValidationError as error:
        rows = error.errors(include_url=False)
    keys = {str(row["loc"][0]) for row in rows}
    problems = _problems(file, _innermost(rows))
    if keys & ESSENTIAL:
        raise DefinitionInvalid(problems)
    kept = {key: value for key, value in section.items() if key not in keys}
    if "sha256" in keys and isinstance(section["sha256"], dict):  # the sums of other files are still to be verified
        kept["sha256"] = {name: row for name, row in section["sha256"].items() if _is_sum(row)}
    model = ModelSection.model_validate(kept)
    return model, [replace(row, message=f"{row.message} It is left out.", severity="warning") for row in problems]


def _is_sum(value: Any) -> bool:
    return isinstance(value, str) and SHA256.fullmatch(value) is not None


def _innermost(rows: list[Any]) -> list[Any]:
    """The innermost of pydantic's errors at each place: of a union, it reports every branch."""
    first: dict[tuple[Any, ...], Any] = {}
    outer: set[tuple[Any, ...]] = set()
    for row in rows:
        key, *rest = row["loc"]
        place = (key, *(part for part in rest if isinstance(part, int)))
        first.setdefault(place, row)
        outer.update(place[:length] for length in range(1, len(place)))
    return [row for place, row in first.items() if place not in outer]


def _problems(file: str, rows: list[Any]) -> list[Problem]:
    """The first errors as problems, and how many more there are."""
    return _bounded([_problem(file, row) for row in rows[:_MOST_PROBLEMS]], len(rows))


def _bounded(problems: list[Problem], count: int) -> list[Problem]:
    kept = problems[:_MOST_PROBLEMS]
    if count <= _MOST_PROBLEMS:
        return kept
    return [
        *kept,
        replace(kept[-1], where=MODEL_KEY, message=f"{count - len(kept):,} more values can't be used.", fix=""),
    ]


def _problem(file: str, row: Any) -> Problem:
    key, *rest = row["loc"]
    indices = [f"[{part}]" for part in rest if isinstance(part, int)]
    where = f"{MODEL_KEY}.{clean_text(str(key))}{''.join(indices)}"
    wanted = WANTED.get(str(key), "text")
    if row["type"] == "value_error":
        wanted = str(row["ctx"]["error"])
    return Problem(file, where, f"Invalid value {shown(row['input'])}.", f"It must be {wanted}.")


def _unknown(file: str, extra: Mapping[str, Any]) -> list[Problem]:
    """One warning for all keys of the `model` object that no program is known to write."""
    odd = [key for key in extra if not is_known(key)]
    if not odd:
        return []
    message = f"{listed(odd)}: no known {'key' if len(odd) == 1 else 'keys'} of `model`; kept, not used."
    guesses = [(key, nearest_name(key, _FIELDS)) for key in odd[:_MOST_GUESSES]]
    fix = " ".join(f"Did you mean {name!r} by {shown(key)}?" for key, name in guesses if name)
    return [Problem(file, f"{MODEL_KEY}.{odd[0]}", message, fix, "warning")]


def meant_by(model: ModelSection, field: str) -> str:
    """The unknown key of a section that was probably meant to be `field`; empty where there is none."""
    odd = [key for key in model.model_extra or {} if not is_known(key)]
    return next((key for key in odd[:_MOST_GUESSES] if nearest_name(key, _FIELDS) == field), "")


def _settings(file: str, value: dict[str, Any]) -> tuple[Mapping[str, Any], list[Problem]]:
    """The settings of a file, and what is odd about them: an odd value is left out, and the rest counts."""
    stored = read_settings({key: item for key, item in value.items() if key != MODEL_KEY}, file)
    misplaced = [key for key in stored.unknown if key in _FIELDS]
    unknown = tuple(key for key in stored.unknown if key not in _FIELDS)
    return stored.settings, [
        *_bounded(list(stored.problems), len(stored.problems)),
        *unknown_settings(unknown, file),
        *(Problem(file, key, "It is not a setting.", f"Move it into the `{MODEL_KEY}` object.", "warning")
          for key in misplaced),
    ]  # fmt: skip


def json_schema() -> dict[str, Any]:
    """JSON Schema of a definition file, with the settings' names and kinds."""
    schema = _File.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["properties"] |= {key: {"description": row.help} | row.kind.schema for key, row in KEYS.items()}
    older = ((old, newest, KEYS[newest]) for old, newest in RENAMED.items())
    schema["properties"] |= {
        old: {"description": f"Older name of {newest}. {row.help}"} | row.kind.schema for old, newest, row in older
    }
    return schema
