"""What lies under `ckpts`, who uses it, and what may go: `ls`, `rm`, `gc` and `verify` read it off here.

A definition uses every file whose name its text or its resolved lists hold, whichever version is chosen today, and a
definition that can't be read uses every file whose name it contains: in doubt a file stays.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import unicodedata
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from reeltune.checkpoints.header import read_header
from reeltune.checkpoints.names import base_name
from reeltune.definitions import Catalog, Definition
from reeltune.errors import CheckpointError, DefinitionError
from reeltune.events import CancelToken, Listener, Progress, ignore
from reeltune.fetch.journal import bytes_in
from reeltune.files import expand
from reeltune.inventory import CHECKPOINT_SUFFIXES, PARTIAL
from reeltune.inventory.index import FILE_NAME, Index

_CHUNK = 4 * 1024 * 1024
_ASIDE = ".unusable"
_LOCK, _JOURNAL = ".lock" + PARTIAL, ".journal" + PARTIAL
_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})")


@dataclass(frozen=True)
class Kept:
    """A file, the folder of a component, or what an interrupted download left. `bytes` as they take up the disk.

    `state`: "file" | "component" | "partial" | "set aside" (a wrong file whose name was needed). `users`: ids of
    the definitions that list it. `fetched`: this program brought it. `parts`: the files it consists of.
    """

    path: Path
    bytes: int
    state: str
    users: tuple[str, ...]
    fetched: bool
    parts: tuple[Path, ...]

    @property
    def leftover(self) -> bool:
        """Whether nothing asks for it and this program made it: another's files are never swept away."""
        ours = self.fetched or any(part.name.endswith((_LOCK, _JOURNAL)) for part in self.parts)
        return not self.users and (ours or (self.state == "partial" and "--" in self.path.parent.name))


def listing(catalog: Catalog) -> list[Kept]:
    """Everything under `ckpts`, by path."""
    ckpts, uses, index = catalog.root / "ckpts", _Uses(catalog), Index(catalog.root / "ckpts")
    groups: dict[tuple[str, Path], list[Path]] = {}
    for folder, below, files in os.walk(ckpts):
        below.sort()
        for name in sorted(files):
            path = Path(folder) / name
            if not name.startswith(FILE_NAME):
                groups.setdefault(_group(ckpts, path), []).append(path)
    entries = [_kept(state, path, tuple(parts), uses, index) for (state, path), parts in sorted(groups.items())]
    return _with_links(entries)


def leftovers(catalog: Catalog) -> list[Kept]:
    """What may go. Raises DefinitionError where definitions can't be looked at: they may use any of it."""
    for path, error in catalog.broken.items():
        if path.suffix != ".json":
            raise error
    return [row for row in listing(catalog) if row.leftover]


def _with_links(entries: list[Kept]) -> list[Kept]:
    """What a used link leads to is used too."""
    more: dict[str, set[str]] = {}
    for row in entries:
        for part in row.parts if row.users else ():
            if part.is_symlink():
                more.setdefault(_real(part), set()).update(row.users)
    if not more:
        return entries
    return [
        replace(row, users=tuple(sorted({*row.users, *(id for part in row.parts for id in more.get(str(part), ()))})))
        for row in entries
    ]


def _group(ckpts: Path, path: Path) -> tuple[str, Path]:
    """What a file is part of: its state and the path it goes by."""
    relative = path.relative_to(ckpts)
    if "--" in relative.parts[0] and len(relative.parts) > 2:
        folder = ckpts / relative.parts[0] / relative.parts[1]
        if folder.name.endswith(PARTIAL):
            return "partial", folder.with_name(folder.name.removesuffix(PARTIAL))
        return "component", folder
    if path.name.endswith(PARTIAL):
        name = path.name.removesuffix(PARTIAL)
        return "partial", path.with_name(name.removesuffix(".journal").removesuffix(".lock"))
    return ("set aside" if _ASIDE in path.suffix else "file"), path


def _kept(state: str, path: Path, parts: tuple[Path, ...], uses: _Uses, index: Index) -> Kept:
    sizes = {part: _size(part) for part in parts}
    for part in parts:
        journal = part.with_name(part.name.removesuffix(PARTIAL) + _JOURNAL)
        if part.name.endswith(PARTIAL) and journal in sizes and part != journal:
            sizes[part] = min(sizes[part], bytes_in(journal))  # the rest is a hole
    urls = [url for url in map(index.source, parts) if url]
    users = uses.of_component(path) | uses.of_file(path)
    for url in urls:
        users |= uses.of_name(base_name(url))
    shown = () if state == "set aside" else tuple(sorted(users))
    return Kept(path, sum(sizes.values()), state, shown, bool(urls), parts)


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except OSError:  # a download has finished meanwhile
        return 0


class _Uses:
    """Which definitions list which file names and component repositories."""

    def __init__(self, catalog: Catalog) -> None:
        self._root = catalog.root
        self._names: dict[str, set[str]] = {}
        self._loose: dict[str, set[str]] = {}
        self._repositories: dict[str, set[str]] = {}
        self._unreadable: list[tuple[str, str]] = []
        for id in catalog:
            try:
                self._take(catalog[id])
            except DefinitionError:
                self._unreadable += [(id, _haystack(_text(path))) for path in catalog.files_of(id)]
        self._unreadable += [(path.stem, _haystack(_text(path))) for path in catalog.broken]

    def _take(self, definition: Definition) -> None:
        versions = (*definition.preload, *(row for rows in definition.slots.values() for row in rows))
        names = {version.file_name for version in versions}
        for path in definition.files:
            names |= {base_name(text) for text in _strings(_json(path)) if len(text) < 4096}
        for name in names:
            self._names.setdefault(_plain(name), set()).add(definition.id)
        local = _real(self._root / expand(definition.components))
        for repository in (definition.components.replace("/", "--"), local):
            self._repositories.setdefault(repository, set()).add(definition.id)
        if definition.components == definition.architecture.components_repo:
            for name in (name for row in definition.architecture.parts for name in row.loose):
                self._loose.setdefault(_plain(name), set()).add(definition.id)

    def of_name(self, name: str) -> set[str]:
        """Ids that list a file of this name."""
        doubtful = {id for id, text in self._unreadable if _plain(name) in text}
        return self._names.get(_plain(name), set()) | doubtful

    def of_file(self, path: Path) -> set[str]:
        """Ids that list a file of this name, or take a component from it."""
        users = set(self.of_name(path.name))
        relative = path.relative_to(self._root / "ckpts")
        for place in (relative, *relative.parents):
            users |= self._loose.get(_plain(place.as_posix()), set())
        return users

    def of_component(self, folder: Path) -> set[str]:
        """Ids whose components come from the repository a folder belongs to."""
        name = folder.parent.name
        doubtful = {id for id, text in self._unreadable if "--" in name and _plain(name.replace("--", "/", 1)) in text}
        by_path = self._repositories.get(_real(folder.parent), set())
        return self._repositories.get(name, set()) | by_path | doubtful


def _real(path: Path) -> str:
    """Where a path leads; as it is written where it is no path at all."""
    try:
        return str(path.resolve())
    except (OSError, ValueError, RuntimeError):
        return str(path)


def _plain(name: str) -> str:
    """A name as any file system compares it: case and composition of its signs don't count."""
    return unicodedata.normalize("NFC", name).casefold()


def _haystack(text: str) -> str:
    """A text in which names are looked for, whichever way they are written."""
    plain = _ESCAPE.sub(lambda found: chr(int(found[1], 16)), text)
    return _plain(f"{text}\n{plain}\n{unquote(plain)}")


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8", "replace")
    except OSError:
        return ""


def _json(path: Path) -> Any:
    try:
        return json.loads(_text(path).lstrip("\ufeff"))
    except (ValueError, RecursionError):
        return None


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _strings(inner)


def remove(kept: Kept) -> str:
    """Delete the files of an entry; returns why nothing was, or nothing. A link goes, what it leads to stays."""
    import filelock

    locks = {kept.path.with_name(kept.path.name + _LOCK), *(part for part in kept.parts if part.name.endswith(_LOCK))}
    try:
        with ExitStack() as held:
            for path in locks:
                held.enter_context(filelock.FileLock(path, timeout=0))
            for part in set(kept.parts) - locks:
                part.unlink(missing_ok=True)
        for path in locks:
            path.unlink(missing_ok=True)
        for folder in {part.parent for part in kept.parts} if kept.state != "file" else ():
            if folder.name.removesuffix(PARTIAL) == kept.path.name and not any(folder.iterdir()):
                folder.rmdir()
    except filelock.Timeout:
        return "it is in use right now"
    except OSError as error:
        return f"it can't be removed: {error.strerror or error}"
    return ""


@dataclass(frozen=True)
class Verdict:
    """What reading a whole file told: `fault` is empty for a sound one; `known`: there was a sum to hold it against."""

    path: Path
    sha256: str
    known: bool
    fault: str


def verify(
    catalog: Catalog, entries: list[Kept], listener: Listener = ignore, cancel: CancelToken | None = None
) -> Iterator[Verdict]:
    """Read files in full: header, extents, and the sha256 of the definition or of the day they were fetched.

    A sound file whose sum nobody knew is remembered with it. Raises Cancelled.
    """
    wanted = _sums(catalog)
    index, cancel = Index(catalog.root / "ckpts"), cancel or CancelToken()
    for entry in entries:
        for path in entry.parts if entry.state in ("file", "component") else ():
            try:
                yield _verdict(path, wanted if entry.state == "file" else {}, index, listener, cancel)
            except OSError as error:
                yield Verdict(path, "", False, f"it can't be read: {error.strerror or error}")


def _verdict(path: Path, wanted: dict[str, set[str]], index: Index, listener: Listener, cancel: CancelToken) -> Verdict:
    fault = ""
    if path.name.lower().endswith(CHECKPOINT_SUFFIXES):
        try:
            read_header(path)
        except CheckpointError as error:
            fault = error.message
    digest = _sum(path, listener, cancel)
    listed, recorded = wanted.get(path.name, set()), index.recorded(path)
    for sums in (listed, {recorded} if recorded else set()):
        if sums and digest not in sums and not fault:
            fault = f"its sha256 is {digest}, {' or '.join(sorted(sums))} is known"
    if not fault:
        index.learn(path, index.link(path), digest)
    return Verdict(path, digest, bool(listed or recorded), fault)


def _sums(catalog: Catalog) -> dict[str, set[str]]:
    """Sums that definitions give, by file name."""
    found: dict[str, set[str]] = {}
    for id in catalog:
        try:
            for name, digest in catalog[id].sha256.items():
                found.setdefault(name, set()).add(digest.lower())
        except DefinitionError:
            continue
    return found


def _sum(path: Path, listener: Listener, cancel: CancelToken) -> str:
    digest, done, total = hashlib.sha256(), 0, path.stat().st_size
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(_CHUNK):
            cancel.check()
            digest.update(chunk)
            done += len(chunk)
            listener(Progress("verify", done, total, "bytes", path.name))
    return digest.hexdigest()
