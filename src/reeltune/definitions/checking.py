"""`check`: definition files looked at one by one, as if they were shared with others."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from reeltune.checkpoints.names import format_objection, read_name
from reeltune.definitions.catalog import Catalog, problems_of
from reeltune.definitions.folders import look_through
from reeltune.definitions.keys import asks, is_silent
from reeltune.definitions.model import Definition
from reeltune.definitions.schema import DefinitionFile, read_definition
from reeltune.errors import DefinitionError, Problem, UnknownArchitecture
from reeltune.files import is_folder


def check_files(catalog: Catalog, paths: Sequence[Path]) -> tuple[list[Problem], int]:
    """Problems of the files (folders: of every *.json in them), and how many were looked at.

    A file outside the root is checked on top of the catalog, so that it may override and refer to what's there.
    """
    files = list(files_in(paths))
    problems: list[Problem] = [row for path in paths if is_folder(path) for row in look_through(path).problems]
    for path in files:
        problems += _check(catalog, path)
    return problems, len(files)


def files_in(paths: Iterable[Path]) -> Iterable[Path]:
    """The definition files that paths stand for: files themselves, and those of folders."""
    for path in paths:
        if is_folder(path):
            yield from look_through(path).files
        else:
            yield path


def definition_in(catalog: Catalog, path: Path) -> Definition:
    """The definition that a file makes on top of the catalog. Raises DefinitionError."""
    file = read_definition(path)
    return catalog.with_file(file)[file.id]


def _check(catalog: Catalog, path: Path) -> list[Problem]:
    try:
        file = read_definition(path)
        definition = catalog.with_file(file)[file.id]
    except UnknownArchitecture as error:
        severity = "error" if error.meant else "warning"  # else nothing is wrong with the file
        return [replace(row, severity=severity) for row in problems_of(error, path)]
    except DefinitionError as error:
        return problems_of(error, path)
    own = [problem for problem in definition.notices if Path(problem.file) == path]
    return [*own, *_kept(file), *_worth_saying(definition, path)]


def _kept(file: DefinitionFile) -> list[Problem]:
    """One line for all keys that are kept for other programs."""
    extra = file.model.model_extra or {}
    keys = sorted(key for key in extra if is_silent(key) and asks(extra[key]))
    if not keys:
        return []
    message = f"{', '.join(keys)}: kept for other programs, not used here."
    return [Problem(str(file.path), f"model.{keys[0]}", message, severity="warning")]


def _worth_saying(definition: Definition, path: Path) -> list[Problem]:
    warning = Problem(str(path), "model", "", severity="warning")
    found = []
    for slot, versions in definition.slots.items():
        for version in versions:
            if not version.remote:
                message = f"{slot}: {version.url} is a path on this machine: others won't have it."
                found.append(replace(warning, message=message, fix="Upload the file and list its URL before sharing."))
            if format_objection(version.url):
                kind = read_name(version.url).format
                message = f"{slot}: {version.file_name} is a {kind} file, which is never loaded."
                found.append(replace(warning, message=message, fix="List a safetensors version."))
    if definition.reason:
        found.append(replace(warning, message=f"It does not run here: {definition.reason}."))
    return found
