"""Parsing and validation of one definition file; every problem is reported with its location and fix.

The format is WanGP's (https://github.com/deepbeepmeep/Wan2GP, docs/FINETUNES.md): the top level contains settings, and
the `model` object describes the model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from reeltune.definitions.jsontext import MAX_BYTES, decode, parse_object
from reeltune.definitions.keys import is_known
from reeltune.definitions.nearest import nearest_name
from reeltune.definitions.repair import RepairedText, repair_text
from reeltune.definitions.section import ESSENTIAL, SHA256, VALID_VALUES, ModelSection
from reeltune.errors import DefinitionInvalid, DefinitionSyntaxError, FileError, Problem
from reeltune.families.values import Settings
from reeltune.families.vocabulary import KEYS, shown
from reeltune.files import read_bytes
from reeltune.settings import listed, read_settings, unknown_settings
from reeltune.settings.renames import RENAMED
from reeltune.untrusted import JsonObject, clean_text

MODEL_KEY = "model"
_FIELDS = frozenset(ModelSection.model_fields)
_MAX_PROBLEMS = 20  # that are reported for one file
_MAX_SUGGESTIONS = 8  # unknown keys that are compared with the known ones


class _FileSchema(BaseModel):
    """A complete file, for the exported JSON Schema."""

    model_config = ConfigDict(extra="allow", title="reeltune finetune definition")

    model: ModelSection


@dataclass(frozen=True)
class DefinitionFile:
    """A parsed file: its `model` section, its settings by key, and warnings."""

    id: str
    path: Path
    model: ModelSection
    settings: Settings
    notices: tuple[Problem, ...]


def read_definition(path: Path) -> DefinitionFile:
    """Parse a file. Raises DefinitionSyntaxError, or DefinitionInvalid with its problems."""
    if clean_text(path.name) != path.name:  # its id could not be stored, shown or sent
        problem = Problem(clean_text(str(path)), "", "The file's name is not valid UTF-8.", "Rename it.")
        raise DefinitionSyntaxError(problem)
    if not path.name.isprintable():
        problem = Problem(str(path), "", "The file's name contains control characters.", "Rename it.")
        raise DefinitionSyntaxError(problem)
    return parse_definition(path, read_text(path))


def parse_definition(path: Path, text: str) -> DefinitionFile:
    """Parse a file's text. Raises as `read_definition`; if the text can be repaired, the error shows how."""
    try:
        return build_definition(path, *parse_object(text, str(path)))
    except DefinitionSyntaxError as error:
        repaired = repair_text(text)
        if repaired is None:
            raise
        raise DefinitionSyntaxError(_repairable(error.problem, repaired)) from error
    except DefinitionInvalid as error:
        only_model_missing = [problem.where for problem in error.problems] == [MODEL_KEY]
        repaired = repair_text(text) if only_model_missing else None
        if repaired is None:
            raise
        raise DefinitionInvalid([_repairable(error.problems[0], repaired)]) from error


def _repairable(problem: Problem, repaired: RepairedText) -> Problem:
    message = f"The file must contain one JSON object: {'; '.join(repaired.faults)}."
    return replace(problem, message=message, fix=f"Write {repaired.outline}, or run `reeltune check --fix`.")


def read_text(path: Path) -> str:
    """The text of a definition file. Raises DefinitionSyntaxError."""
    try:
        raw = read_bytes(path, MAX_BYTES)
    except FileError as error:
        message = error.message.removeprefix(f"{path} ")
        raise DefinitionSyntaxError(Problem(str(path), "", f"The file {message}", error.hint)) from error
    return decode(raw, str(path))


def build_definition(path: Path, value: JsonObject, warnings: list[Problem]) -> DefinitionFile:
    """Validate a parsed object, and add its warnings to `warnings`. Raises DefinitionInvalid with its problems."""
    file = str(path)
    section = value.get(MODEL_KEY)
    if not isinstance(section, dict):
        fix = 'Add "model": {"name": …, "architecture": …, "URLs": […]}.'
        raise DefinitionInvalid([Problem(file, MODEL_KEY, "A definition needs a `model` object.", fix)])
    model, model_warnings = read_section(file, section)
    settings, settings_warnings = _settings(file, value)
    notices = (*warnings, *model_warnings, *settings_warnings)
    return DefinitionFile(path.stem, path, model, settings, notices)


def read_section(file: str, section: JsonObject) -> tuple[ModelSection, list[Problem]]:
    """A `model` object or a part of it, without invalid values, and warnings. Raises DefinitionInvalid.

    The warnings are about invalid values and unknown keys.
    """
    model, invalid_values = _section(file, section)
    return model, [*invalid_values, *_unknown_keys(file, model.model_extra or {})]


def _section(file: str, section: JsonObject) -> tuple[ModelSection, list[Problem]]:
    """The section without invalid values, and a warning for each of them.

    Raises DefinitionInvalid if a value without which the definition can't be used is invalid.
    """
    try:
        return ModelSection.model_validate(section), []
    except ValidationError as error:
        details = error.errors(include_url=False)
    invalid_keys = {str(detail["loc"][0]) for detail in details}
    problems = _problems(file, _innermost(details))
    if invalid_keys & ESSENTIAL:
        raise DefinitionInvalid(problems)
    valid = {key: value for key, value in section.items() if key not in invalid_keys}
    hashes = section.get("sha256")
    if "sha256" in invalid_keys and isinstance(hashes, dict):  # so that files with a valid sha256 are still verified
        valid["sha256"] = {name: sha256 for name, sha256 in hashes.items() if _is_sha256(sha256)}
    model = ModelSection.model_validate(valid)
    warnings = [
        replace(problem, message=f"{problem.message} It is left out.", severity="warning") for problem in problems
    ]
    return model, warnings


def _is_sha256(value: Any) -> bool:
    return isinstance(value, str) and SHA256.fullmatch(value) is not None


def _innermost(details: list[ErrorDetails]) -> list[ErrorDetails]:
    """The first of pydantic's errors at each innermost location; for a union, it reports an error for every member."""
    first: dict[tuple[int | str, ...], ErrorDetails] = {}
    outer: set[tuple[int | str, ...]] = set()
    for detail in details:
        key, *path = detail["loc"]
        location = (key, *(part for part in path if isinstance(part, int)))
        first.setdefault(location, detail)
        outer.update(location[:length] for length in range(1, len(location)))
    return [detail for location, detail in first.items() if location not in outer]


def _problems(file: str, details: list[ErrorDetails]) -> list[Problem]:
    """The first errors as problems, and the number of further ones."""
    return _bounded([_problem(file, detail) for detail in details[:_MAX_PROBLEMS]], len(details))


def _bounded(problems: list[Problem], count: int) -> list[Problem]:
    first = problems[:_MAX_PROBLEMS]
    if count <= _MAX_PROBLEMS:
        return first
    message = f"{count - len(first):,} more values are invalid."
    return [*first, replace(first[-1], where=MODEL_KEY, message=message, fix="")]


def _problem(file: str, detail: ErrorDetails) -> Problem:
    key, *path = detail["loc"]
    indices = [f"[{part}]" for part in path if isinstance(part, int)]
    where = f"{MODEL_KEY}.{clean_text(str(key))}{''.join(indices)}"
    valid_values = VALID_VALUES.get(str(key), "text")
    if detail["type"] == "value_error":
        valid_values = str(detail["ctx"]["error"])
    return Problem(file, where, f"Invalid value {shown(detail['input'])}.", f"It must be {valid_values}.")


def _unknown_keys(file: str, extra: Mapping[str, Any]) -> list[Problem]:
    """One warning about all keys of the `model` object that no known program uses."""
    unknown = [key for key in extra if not is_known(key)]
    if not unknown:
        return []
    noun = "key" if len(unknown) == 1 else "keys"
    message = f"Unknown {noun} of `model`: {listed(unknown)}; kept, but not used."
    suggestions = [(key, nearest_name(key, _FIELDS)) for key in unknown[:_MAX_SUGGESTIONS]]
    fix = " ".join(f"Did you mean {name!r} by {shown(key)}?" for key, name in suggestions if name)
    return [Problem(file, f"{MODEL_KEY}.{unknown[0]}", message, fix, "warning")]


def misspelled_key(model: ModelSection, field: str) -> str:
    """The unknown key of a section that is probably a misspelling of `field`; empty if there is none."""
    unknown = [key for key in model.model_extra or {} if not is_known(key)]
    return next((key for key in unknown[:_MAX_SUGGESTIONS] if nearest_name(key, _FIELDS) == field), "")


def _settings(file: str, value: JsonObject) -> tuple[Settings, list[Problem]]:
    """The settings of a file without invalid values, and warnings."""
    stored = read_settings({key: item for key, item in value.items() if key != MODEL_KEY}, file)
    unknown = tuple(key for key in stored.unknown if key not in _FIELDS)
    warnings = _bounded(list(stored.problems), len(stored.problems))
    warnings += unknown_settings(unknown, file)
    for key in stored.unknown:
        if key in _FIELDS:
            fix = f"Move it into the `{MODEL_KEY}` object."
            warnings.append(Problem(file, key, "It is not a setting.", fix, "warning"))
    return stored.settings, warnings


def json_schema() -> JsonObject:
    """The JSON Schema of a definition file, including settings under their newest and older names."""
    schema = _FileSchema.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    properties = schema["properties"]
    for key, setting in KEYS.items():
        properties[key] = {"description": setting.help} | setting.kind.schema
    for old, newest in RENAMED.items():
        setting = KEYS[newest]
        properties[old] = {"description": f"Older name of {newest}. {setting.help}"} | setting.kind.schema
    return schema
