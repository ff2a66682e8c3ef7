"""A bounded walk through folders that lists their files by name."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from reeltune.files import reason
from reeltune.library.places import PARTIAL

MAX_FILES = 200_000  # below one of the folders, such as ckpts
MAX_SECONDS = 10.0
_HUB_PREFIXES = ("models--", "datasets--", "spaces--")
_WITHOUT_NAMES = frozenset({"blobs", "refs", ".no_exist"})  # of a repository in the Hub's cache
_WITHOUT_WEIGHTS = frozenset({"__pycache__", "node_modules", "site-packages", ".git", ".locks"})


@dataclass(frozen=True)
class FolderFiles:
    """The files found by `walk`.

    `by_name`: paths of regular files by file name, in the order of the folders. `notices`: folders that could not be
    read completely.
    """

    by_name: dict[str, list[Path]] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)


def walk(folders: Sequence[Path], *, max_files: int = MAX_FILES, seconds: float = MAX_SECONDS) -> FolderFiles:
    """List the files below `folders`; a folder that several links lead to is read once.

    The walk is breadth-first, so that the limits leave out the deepest folders. Named pipes, devices, partial
    downloads, installed packages and the blobs of the Hub's cache are left out.
    """
    files = FolderFiles()
    visited: set[str] = set()
    for folder in folders:
        _walk_folder(folder, files, visited, max_files, time.monotonic() + seconds)
    return files


def _walk_folder(top: Path, files: FolderFiles, visited: set[str], max_files: int, end: float) -> None:
    pending = deque([str(top)])
    count = 0
    while pending:
        folder = pending.popleft()
        try:
            real_path = os.path.realpath(folder)
            if real_path in visited:  # links may lead in circles
                continue
            visited.add(real_path)
            with os.scandir(folder) as entries:
                sorted_entries = sorted(islice(entries, max_files + 1), key=lambda entry: entry.name)
        except (OSError, ValueError) as error:
            if folder == str(top) and not _is_absent(top, error):
                files.notices.append(f"{top} can't be read, so none of its files is used: {reason(error)}.")
            continue
        count += len(sorted_entries)
        for entry in sorted_entries:
            _add_entry(entry, files, pending)
        if pending and (count > max_files or time.monotonic() > end):
            files.notices.append(
                f"{top} contains too many files to search: {count:,} files and folders were read, deeper folders were "
                "not. Name the folder that contains the weights instead."
            )
            return


def _is_absent(folder: Path, error: Exception) -> bool:
    """Whether a folder doesn't exist; a link whose target is missing does."""
    return isinstance(error, FileNotFoundError) and not folder.is_symlink()


def _add_entry(entry: os.DirEntry[str], files: FolderFiles, pending: deque[str]) -> None:
    if entry.name.endswith(PARTIAL):
        return
    try:
        if entry.is_dir():
            if not _is_skipped(entry):
                pending.append(entry.path)
        elif entry.is_file():
            files.by_name.setdefault(entry.name, []).append(Path(entry.path))
    except OSError:  # links that lead in a circle
        return


def _is_skipped(entry: os.DirEntry[str]) -> bool:
    """Whether a folder has no weights under their own names: blobs of the Hub's cache, installed packages."""
    if entry.name in _WITHOUT_WEIGHTS or entry.name.startswith(_HUB_PREFIXES[1:]):
        return True
    return entry.name in _WITHOUT_NAMES and Path(entry.path).parent.name.startswith(_HUB_PREFIXES)
