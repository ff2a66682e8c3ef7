"""The definition files in a folder, and warnings about files that the user may expect to be read."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from reeltune.errors import DefinitionError, Problem
from reeltune.untrusted import clean_text

SUFFIX = ".json"
_SIMILAR_SUFFIXES = (".json.txt", ".jsonc", ".json5", ".jsn")
_MAX_NAMED = 5  # files that a warning names
_MAX_ENTRIES = 10_000  # in subfolders, of those that are searched


@dataclass(frozen=True)
class DefinitionFolder:
    """The content of a folder.

    `files`: definition files, sorted by name. `broken`: paths that can't be used, and the errors. `problems`: warnings
    about files that are not read.
    """

    files: tuple[Path, ...] = ()
    broken: tuple[tuple[Path, DefinitionError], ...] = ()
    problems: tuple[Problem, ...] = ()


def scan_folder(folder: Path) -> DefinitionFolder:
    """List a folder; a folder that doesn't exist is empty.

    Hidden files are ignored. If two files have the same id, as `x.json` and `x.JSON`, the first one is used.
    """
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not folder.is_symlink():
            return DefinitionFolder()
        unreadable = DefinitionError(f"{folder} can't be read: {error.strerror or error}.")
        return DefinitionFolder(broken=((folder, unreadable),))
    visible = [entry for entry in entries if not entry.name.startswith(".")]
    files: dict[str, Path] = {}
    broken: list[tuple[Path, DefinitionError]] = []
    for entry in sorted(visible, key=lambda entry: not entry.name.endswith(SUFFIX)):
        if not entry.name.lower().endswith(SUFFIX):
            continue
        path = folder / entry.name
        if path.stem in files:
            message = f"{path} has the same id as {files[path.stem].name}, and is not used."
            broken.append((path, DefinitionError(message, hint="Rename one of them.")))
        else:
            files[path.stem] = path
    return DefinitionFolder(tuple(sorted(files.values())), tuple(broken), tuple(_unread(folder, visible)))


def _unread(folder: Path, entries: list[os.DirEntry[str]]) -> list[Problem]:
    """Warnings about files that are not read: one for those in subfolders, and one for similar suffixes."""
    in_subfolders = _in_subfolders([entry.path for entry in entries if _is_folder(entry)])
    misnamed = [Path(entry.path) for entry in entries if entry.name.lower().endswith(_SIMILAR_SUFFIXES)]
    problems = []
    if in_subfolders:
        message = f"Definitions in subfolders are not read: {_listed(in_subfolders, folder)}."
        problems.append(Problem(str(folder), "", message, f"Move them to {folder.name}/ itself.", "warning"))
    if misnamed:
        message = f"Files that don't end in {SUFFIX} are not read: {_listed(misnamed, folder)}."
        problems.append(Problem(str(folder), "", message, f"Rename them to end in {SUFFIX}.", "warning"))
    return problems


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir() and not entry.name.lower().endswith(SUFFIX)
    except OSError:
        return False


def _in_subfolders(subfolders: list[str]) -> list[Path]:
    """Definition files in subfolders, without following links; the search stops after 10,000 entries."""
    paths: list[Path] = []
    entries_seen = 0
    for subfolder in subfolders:
        for folder, _, names in os.walk(subfolder):
            entries_seen += len(names) + 1
            paths += [Path(folder) / name for name in sorted(names) if name.lower().endswith(SUFFIX)]
            if entries_seen > _MAX_ENTRIES:
                return paths
    return paths


def _listed(paths: list[Path], folder: Path) -> str:
    names = [clean_text(path.relative_to(folder).as_posix()) for path in paths[:_MAX_NAMED]]
    more = f" and {len(paths) - _MAX_NAMED} more" if len(paths) > _MAX_NAMED else ""
    return ", ".join(names) + more
