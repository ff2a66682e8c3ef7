"""The checks of `reeltune check`: each definition file is checked as if it were shared with others."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from reeltune.checkpoints.names import format_objection, name_objection, read_name
from reeltune.definitions.catalog import Catalog, problems_of
from reeltune.definitions.folders import scan_folder
from reeltune.definitions.keys import has_value, is_silent
from reeltune.definitions.model import Definition
from reeltune.definitions.schema import DefinitionFile, read_definition
from reeltune.errors import DefinitionError, Problem, UnknownArchitecture
from reeltune.files import is_folder
from reeltune.net import without_secrets


def check_files(catalog: Catalog, paths: Sequence[Path]) -> tuple[list[Problem], int]:
    """The problems of definition files, and the number of files; a folder stands for all its files.

    A file outside the root is checked as a part of the catalog, so that it can override and refer to definitions.
    """
    files = list(files_in(paths))
    problems: list[Problem] = []
    for path in paths:
        if is_folder(path):
            problems += scan_folder(path).problems
    for path in files:
        problems += _check(catalog, path)
    return problems, len(files)


def files_in(paths: Iterable[Path]) -> Iterable[Path]:
    """The definition files among the paths and in folders among them."""
    for path in paths:
        if is_folder(path):
            yield from scan_folder(path).files
        else:
            yield path


def load_definition(catalog: Catalog, path: Path) -> Definition:
    """The definition in a file, resolved as a part of the catalog. Raises DefinitionError."""
    file = read_definition(path)
    return catalog.with_file(file)[file.id]


def _check(catalog: Catalog, path: Path) -> list[Problem]:
    try:
        file = read_definition(path)
        definition = catalog.with_file(file)[file.id]
    except UnknownArchitecture as error:
        severity = "error" if error.meant else "warning"  # an architecture of another program is not a mistake
        return [replace(problem, severity=severity) for problem in problems_of(error, path)]
    except DefinitionError as error:
        return problems_of(error, path)
    own = [problem for problem in definition.notices if Path(problem.file) == path]
    return [*own, *_variant_problems(definition, path), *_unused_keys(file), *_sharing_warnings(definition, path)]


def _variant_problems(definition: Definition, path: Path) -> list[Problem]:
    """The problems of variants that can't be used."""
    problems: list[Problem] = []
    for choice in definition.variants.choices if definition.variants else ():
        try:
            variant = definition.variant(choice.id)
        except DefinitionError as error:
            problems += [replace(problem, file=str(path)) for problem in problems_of(error, path)]
            continue
        if variant.reason and variant.reason != definition.reason:
            where = f"model.configs.{choice.id}"
            problems.append(Problem(str(path), where, f"It can't run: {variant.reason}.", severity="warning"))
    return problems


def _unused_keys(file: DefinitionFile) -> list[Problem]:
    """One warning about all keys that only other programs use."""
    extra = file.model.model_extra or {}
    keys = sorted(key for key in extra if is_silent(key) and has_value(extra[key]))
    if not keys:
        return []
    message = f"{', '.join(keys)}: kept for other programs, but not used."
    return [Problem(str(file.path), f"model.{keys[0]}", message, severity="warning")]


def _sharing_warnings(definition: Definition, path: Path) -> list[Problem]:
    """Warnings about what would not work on other machines, or with this version of reeltune."""
    warning = Problem(str(path), "model", "", severity="warning")
    warnings = []
    for slot, versions in definition.all_versions.items():
        for version in versions:
            if not version.remote:
                message = f"{slot}: {without_secrets(version.url)} is a path on this machine, and others can't use it."
                warnings.append(
                    replace(warning, message=message, fix="Upload the file and list its URL before sharing.")
                )
            if format_objection(version.url):
                file_format = read_name(version.url).format
                message = f"{slot}: {version.file_name} is a {file_format} file, which is never loaded."
                warnings.append(replace(warning, message=message, fix="List a safetensors version."))
            elif reason := name_objection(version.url):
                message = f"{slot}: {version.file_name} is not used: {reason}, as far as its name shows."
                warnings.append(replace(warning, message=message, fix="List a bf16, fp16, fp8 or int8 version."))
    if definition.reason:
        warnings.append(replace(warning, message=f"It can't run: {definition.reason}."))
    return warnings
