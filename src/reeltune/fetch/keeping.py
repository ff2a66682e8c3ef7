"""What lies under `ckpts`, who uses it, and what may go: `ls`, `rm`, `gc` and `verify` read it off here.

A definition uses every file whose name its text or its resolved lists hold, whichever version is chosen today, and a
definition that can't be read uses every file whose name it contains: in doubt a file stays.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reeltune.checkpoints.header import read_header
from reeltune.checkpoints.names import base_name
from reeltune.definitions import Catalog, Definition
from reeltune.errors import CheckpointError, DefinitionError
from reeltune.events import CancelToken, Listener, Progress, ignore
from reeltune.fetch.journal import bytes_in
from reeltune.inventory import CHECKPOINT_SUFFIXES, PARTIAL
from reeltune.inventory.index import FILE_NAME, Index

_CHUNK = 4 * 1024 * 1024
_ASIDE = ".unusable"
_LOCK = ".lock" + PARTIAL


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
        return not self.users and (self.fetched or self.state in ("partial", "set aside"))


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
    return [_kept(state, path, tuple(parts), uses, index) for (state, path), parts in sorted(groups.items())]


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
    rows = [index.source(part) for part in parts]
    sizes = {part: part.lstat().st_size for part in parts}
    for part in parts:
        journal = part.with_name(part.name.removesuffix(PARTIAL) + ".journal" + PARTIAL)
        if part.name.endswith(PARTIAL) and journal in sizes and part != journal:
            sizes[part] = min(sizes[part], bytes_in(journal))  # the rest is a hole
    urls = [url for url in rows if url]
    users = uses.of_component(path) | uses.of_file(path.name)
    for url in urls:
        users |= uses.of_file(base_name(url))
    shown = () if state == "set aside" else tuple(sorted(users))
    return Kept(path, sum(sizes.values()), state, shown, bool(urls), parts)


class _Uses:
    """Which definitions list which file names and component repositories."""

    def __init__(self, catalog: Catalog) -> None:
        self._names: dict[str, set[str]] = {}
        self._repositories: dict[str, set[str]] = {}
        self._unreadable: list[tuple[str, str]] = []
        for id in catalog:
            try:
                self._take(catalog[id])
            except DefinitionError:
                self._unreadable += [(id, _text(path)) for path in catalog.files_of(id)]
        self._unreadable += [(path.stem, _text(path)) for path in catalog.broken]

    def _take(self, definition: Definition) -> None:
        versions = (*definition.preload, *(row for rows in definition.slots.values() for row in rows))
        names = {version.file_name for version in versions}
        for path in definition.files:
            names |= {base_name(text) for text in _strings(_json(path)) if len(text) < 4096}
        for name in names:
            self._names.setdefault(name, set()).add(definition.id)
        self._repositories.setdefault(definition.components.replace("/", "--"), set()).add(definition.id)

    def of_file(self, name: str) -> set[str]:
        """Ids that list a file of this name."""
        doubtful = {id for id, text in self._unreadable if name in text}
        return self._names.get(name, set()) | doubtful

    def of_component(self, folder: Path) -> set[str]:
        """Ids whose components come from the repository a folder belongs to."""
        return self._repositories.get(folder.parent.name, set())


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
        return "it is being fetched right now"
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
    for path in (part for entry in entries if entry.state in ("file", "component") for part in entry.parts):
        header = ""
        if path.name.lower().endswith(CHECKPOINT_SUFFIXES):
            try:
                read_header(path)
            except CheckpointError as error:
                header = error.message
        try:
            digest = _sum(path, listener, cancel)
        except OSError as error:
            yield Verdict(path, "", False, f"it can't be read: {error.strerror or error}")
            continue
        sums = {*wanted.get(path.name, ()), *filter(None, [index.recorded(path)])}
        fault = header or (f"its sha256 is {digest}, {' and '.join(sorted(sums))} is known" if sums - {digest} else "")
        if not fault and not sums:
            index.learn(path, "", digest)
        yield Verdict(path, digest, bool(sums), fault)


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
