"""The definition files of a folder, and those that only look as if they were read."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from reeltune.errors import DefinitionError, Problem
from reeltune.untrusted import clean_text

SUFFIX = ".json"
_ALMOST = (".json.txt", ".jsonc", ".json5", ".jsn")  # what systems that hide endings, and editors, make of them
_NAMED = 5
_MOST_ENTRIES = 10_000  # of subfolders that are looked through


@dataclass(frozen=True)
class Folder:
    """What a folder holds: definition `files` in the order of their names, `broken` paths, and `problems`: what lies
    there unread.
    """

    files: tuple[Path, ...] = ()
    broken: tuple[tuple[Path, DefinitionError], ...] = ()
    problems: tuple[Problem, ...] = ()


def look_through(folder: Path) -> Folder:
    """List a folder; one that doesn't exist holds nothing.

    Hidden files are passed over silently. Of two files of one id, as `x.json` and `x.JSON`, the first one counts.
    """
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not folder.is_symlink():  # nobody put definitions there
            return Folder()
        return Folder(broken=((folder, DefinitionError(f"{folder} can't be read: {error.strerror or error}.")),))
    shown = [entry for entry in entries if not entry.name.startswith(".")]
    files: dict[str, Path] = {}
    broken: list[tuple[Path, DefinitionError]] = []
    for entry in sorted(shown, key=lambda entry: not entry.name.endswith(SUFFIX)):
        if not entry.name.lower().endswith(SUFFIX):
            continue
        path = folder / entry.name
        if first := files.get(path.stem):
            message = f"{path} has the id of {first.name}, which counts."
            broken.append((path, DefinitionError(message, hint="Rename one of them.")))
        else:
            files[path.stem] = path
    return Folder(tuple(sorted(files.values())), tuple(broken), tuple(_unread(folder, shown)))


def _unread(folder: Path, entries: list[os.DirEntry[str]]) -> list[Problem]:
    """Warnings about files that someone may expect to be read: one for those in subfolders, one for odd endings."""
    below = _below([entry.path for entry in entries if _is_folder(entry)])
    odd = [Path(entry.path) for entry in entries if entry.name.lower().endswith(_ALMOST)]
    found = []
    if below:
        message = f"Definitions in subfolders are not read: {_listed(below, folder)}."
        found.append(Problem(str(folder), "", message, f"Move them into {folder.name}/ itself.", "warning"))
    if odd:
        message = f"Files that don't end in {SUFFIX} are not read: {_listed(odd, folder)}."
        found.append(Problem(str(folder), "", message, f"Let their names end in {SUFFIX}.", "warning"))
    return found


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir() and not entry.name.lower().endswith(SUFFIX)
    except OSError:
        return False


def _below(folders: list[str]) -> list[Path]:
    """Definition files in subfolders, links to folders left out; not more than there is time for."""
    found: list[Path] = []
    looked_at = 0
    for top in folders:
        for folder, _, names in os.walk(top):
            looked_at += len(names) + 1
            found += [Path(folder) / name for name in sorted(names) if name.lower().endswith(SUFFIX)]
            if looked_at > _MOST_ENTRIES:
                return found
    return found


def _listed(paths: list[Path], folder: Path) -> str:
    names = [clean_text(path.relative_to(folder).as_posix()) for path in paths[:_NAMED]]
    return ", ".join(names) + (f" and {len(paths) - _NAMED} more" if len(paths) > _NAMED else "")
