"""What is stored in `ckpts`, which definitions use it, and what can be deleted: used by `ls`, `rm` and `gc`.

A definition uses every file whose URL or name is in its text or in its resolved lists, whichever version is chosen. A
definition that can't be read uses every file whose name it contains: in case of doubt a file stays.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from reeltune.definitions import Catalog
from reeltune.errors import FileError
from reeltune.files import reason
from reeltune.library.index import FILE_NAME, Index
from reeltune.library.inventory import PARTIAL
from reeltune.library.journal import bytes_recorded
from reeltune.library.uses import FileUsers, resolved_path

_UNUSABLE = ".unusable"
_LOCK = ".lock" + PARTIAL
_JOURNAL = ".journal" + PARTIAL


@dataclass(frozen=True)
class LibraryEntry:
    """A file, the folder of a component, or the rest of an interrupted download.

    `bytes`: the space it takes on the disk. `state`: "file" | "component" | "partial" | "set aside" (a file that could
    not be used and was renamed). `users`: ids of the definitions that use it. `downloaded`: reeltune downloaded it.
    `files`: the files it consists of. `maybe_used`: a definition lists another URL with its name that has no file on
    disk.
    """

    path: Path
    bytes: int
    state: str
    users: tuple[str, ...]
    downloaded: bool
    files: tuple[Path, ...]
    maybe_used: bool = False

    @property
    def leftover(self) -> bool:
        """Whether no definition uses it and reeltune created it. Files of other programs are never deleted."""
        if self.users or self.maybe_used:
            return False
        has_lock_or_journal = any(file.name.endswith((_LOCK, _JOURNAL)) for file in self.files)
        partial_component = self.state == "partial" and "--" in self.path.parent.name
        return self.downloaded or has_lock_or_journal or partial_component


def list_entries(catalog: Catalog) -> list[LibraryEntry]:
    """Everything in `ckpts`, sorted by state and path. Raises FileError if the folder can't be read."""
    ckpts = catalog.root / "ckpts"
    _check_readable(ckpts)
    index = Index(ckpts)
    users = FileUsers(catalog, index)
    groups: dict[tuple[str, Path], list[Path]] = {}
    for path in _files_below(ckpts):
        groups.setdefault(_state_and_path(ckpts, path), []).append(path)
    entries = [_entry(state, path, tuple(files), users, index) for (state, path), files in sorted(groups.items())]
    return _with_link_users(entries)


def _files_below(ckpts: Path) -> Iterator[Path]:
    """Every file below a folder in a stable order, the index excluded."""
    for folder, subfolders, names in os.walk(ckpts):
        subfolders.sort()
        for name in sorted(names):
            if not name.startswith(FILE_NAME):
                yield Path(folder) / name


def _check_readable(ckpts: Path) -> None:
    """Raise FileError if `ckpts` exists but is not a folder that can be read."""
    try:
        os.scandir(ckpts).close()
    except FileNotFoundError:
        if ckpts.is_symlink():
            message = f"{ckpts} is a link whose target doesn't exist."
            raise FileError(message, hint="Mount or create the target.") from None
    except OSError as error:
        raise FileError(f"{ckpts} can't be read: {reason(error)}.", hint="Check the folder.") from error


def total_bytes(entries: Sequence[LibraryEntry]) -> int:
    """The bytes that entries take; a file with several names (hard links) counts once."""
    seen: set[tuple[int, int]] = set()
    total = 0
    for entry in entries:
        total += entry.bytes
        for file in entry.files:
            with contextlib.suppress(OSError):
                status = file.lstat()
                if status.st_nlink > 1 and (status.st_dev, status.st_ino) in seen:
                    total -= status.st_size
                seen.add((status.st_dev, status.st_ino))
    return total


def leftovers(catalog: Catalog) -> list[LibraryEntry]:
    """The entries that `gc` deletes.

    Raises DefinitionError if a folder of definitions can't be read, because they may use any file.
    """
    for path, error in catalog.broken.items():
        if path.suffix != ".json":
            raise error
    return [entry for entry in list_entries(catalog) if entry.leftover]


def _with_link_users(entries: list[LibraryEntry]) -> list[LibraryEntry]:
    """The entries, where the users of a link also use the target of the link."""
    users_of_targets: dict[str, set[str]] = {}
    for entry in entries:
        if not entry.users:
            continue
        for file in entry.files:
            if file.is_symlink():
                users_of_targets.setdefault(resolved_path(file), set()).update(entry.users)
    if not users_of_targets:
        return entries
    completed: list[LibraryEntry] = []
    for entry in entries:
        users = set(entry.users)
        for file in entry.files:
            users |= users_of_targets.get(str(file), set())
        completed.append(replace(entry, users=tuple(sorted(users))))
    return completed


def _state_and_path(ckpts: Path, path: Path) -> tuple[str, Path]:
    """The state and path of the entry that a file belongs to."""
    relative = path.relative_to(ckpts)
    if "--" in relative.parts[0] and len(relative.parts) > 2:
        folder = ckpts / relative.parts[0] / relative.parts[1]
        if folder.name.endswith(PARTIAL):
            return "partial", folder.with_name(folder.name.removesuffix(PARTIAL))
        return "component", folder
    if path.name.endswith(PARTIAL):
        name = path.name.removesuffix(PARTIAL)
        return "partial", path.with_name(name.removesuffix(".journal").removesuffix(".lock"))
    if _UNUSABLE in path.suffix:
        return "set aside", path
    return "file", path


def _entry(state: str, path: Path, files: tuple[Path, ...], users: FileUsers, index: Index) -> LibraryEntry:
    ids = users.of_component(path) | users.of_file(path)
    if state == "component":
        for file in files:
            ids |= users.of_file(file)  # the weights may also be the file of another URL with the same bytes
    if state == "set aside":
        ids = set()
    return LibraryEntry(
        path,
        _bytes_on_disk(files),
        state,
        tuple(sorted(ids)),
        downloaded=any(index.sources(file) for file in files),
        files=files,
        maybe_used=users.may_be_used(path),
    )


def _bytes_on_disk(files: tuple[Path, ...]) -> int:
    """The bytes that files take. A partial file is sparse: only the bytes in its journal take space."""
    total = 0
    for file in files:
        size = _size(file)
        journal = file.with_name(file.name.removesuffix(PARTIAL) + _JOURNAL)
        if file.name.endswith(PARTIAL) and journal in files and file != journal:
            size = min(size, bytes_recorded(journal))
        total += size
    return total


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except OSError:  # a download has finished in the meantime
        return 0


def remove(entry: LibraryEntry) -> str:
    """Delete the files of an entry. Returns why they could not be deleted, or an empty text.

    A link is deleted, not its target.
    """
    import filelock

    own_lock = entry.path.with_name(entry.path.name + _LOCK)
    locks = {own_lock, *(file for file in entry.files if file.name.endswith(_LOCK))}
    try:
        with ExitStack() as stack:
            for lock in locks:
                stack.enter_context(filelock.FileLock(lock, timeout=0))
            for file in set(entry.files) - locks:
                file.unlink(missing_ok=True)
        for lock in locks:
            lock.unlink(missing_ok=True)
        _remove_empty_folders(entry)
    except filelock.Timeout:
        return "it is being downloaded right now"
    except OSError as error:
        return f"it can't be deleted: {error.strerror or error}"
    return ""


def _remove_empty_folders(entry: LibraryEntry) -> None:
    """Delete the component's own folder, complete or partial, if it is empty now. Raises OSError."""
    if entry.state == "file":
        return
    for folder in {file.parent for file in entry.files}:
        if folder.name.removesuffix(PARTIAL) == entry.path.name and not any(folder.iterdir()):
            folder.rmdir()
