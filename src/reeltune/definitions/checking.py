"""`check`: definition files looked at one by one, as if they were shared with others."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from reeltune.checkpoints.names import read_name
from reeltune.definitions.catalog import Catalog, problems_of
from reeltune.definitions.model import Definition
from reeltune.definitions.schema import LATER_KEYS, read_definition
from reeltune.errors import DefinitionError, Problem
from reeltune.files import is_folder


def check_files(catalog: Catalog, paths: Sequence[Path]) -> tuple[list[Problem], int]:
    """Problems of the files (folders: of every *.json in them), and how many were looked at.

    A file outside the root is checked on top of the catalog, so that it may override and refer to what's there.
    """
    files = list(_files(paths))
    problems: list[Problem] = []
    for path in files:
        problems += _check(catalog, path)
    return problems, len(files)


def _files(paths: Iterable[Path]) -> Iterable[Path]:
    for path in paths:
        if is_folder(path):
            yield from sorted(path.glob("*.json"))
        else:
            yield path


def _check(catalog: Catalog, path: Path) -> list[Problem]:
    try:
        file = read_definition(path)
        definition = catalog.with_file(file)[file.id]
    except DefinitionError as error:
        return problems_of(error, path)
    own = [problem for problem in file.notices if Path(problem.file) == path]
    later = sorted(LATER_KEYS & set(file.model.model_extra or {}))
    own += [Problem(str(path), f"model.{key}", "Kept, but not used yet.", severity="warning") for key in later]
    return [*own, *_worth_saying(definition, path)]


def _worth_saying(definition: Definition, path: Path) -> list[Problem]:
    warning = Problem(str(path), "model", "", severity="warning")
    found = []
    for slot, versions in definition.slots.items():
        for version in versions:
            if not version.remote:
                message = f"{slot}: {version.url} is a path on this machine: others won't have it."
                found.append(replace(warning, message=message, fix="Upload the file and list its URL before sharing."))
            facts = read_name(version.url)
            if facts.format in ("pickle", "gguf"):
                message = f"{slot}: {version.file_name} is a {facts.format} file, which is never loaded."
                found.append(replace(warning, message=message, fix="List a safetensors version."))
    if definition.reason:
        found.append(replace(warning, message=f"It does not run here: {definition.reason}."))
    return found
