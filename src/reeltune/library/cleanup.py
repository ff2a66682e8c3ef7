"""What lies under `ckpts`, who uses it, and what may go: `ls`, `rm` and `gc` read it off here.

A definition uses every file whose URL or name its text or its resolved lists hold, whichever version is chosen today,
and a definition that can't be read uses every file whose name it contains: in doubt a file stays.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from reeltune.definitions import Catalog
from reeltune.errors import FileError
from reeltune.files import reason
from reeltune.library.index import FILE_NAME, Index
from reeltune.library.inventory import PARTIAL
from reeltune.library.journal import bytes_in
from reeltune.library.uses import Uses, real

_ASIDE = ".unusable"
_LOCK, _JOURNAL = ".lock" + PARTIAL, ".journal" + PARTIAL


@dataclass(frozen=True)
class Kept:
    """A file, the folder of a component, or what an interrupted download left. `bytes` as they take up the disk.

    `state`: "file" | "component" | "partial" | "set aside" (a wrong file whose name was needed). `users`: ids of
    the definitions that list it. `fetched`: this program brought it. `parts`: the files it consists of. `doubtful`: a
    definition lists another URL of its name, of which no file is here.
    """

    path: Path
    bytes: int
    state: str
    users: tuple[str, ...]
    fetched: bool
    parts: tuple[Path, ...]
    doubtful: bool = False

    @property
    def leftover(self) -> bool:
        """Whether nothing asks for it and this program made it: another's files are never swept away."""
        ours = self.fetched or any(part.name.endswith((_LOCK, _JOURNAL)) for part in self.parts)
        aside = self.state == "partial" and "--" in self.path.parent.name
        return not (self.users or self.doubtful) and (ours or aside)


def listing(catalog: Catalog) -> list[Kept]:
    """Everything under `ckpts`, by path."""
    ckpts, index = catalog.root / "ckpts", Index(catalog.root / "ckpts")
    _check(ckpts)
    uses = Uses(catalog, index)
    groups: dict[tuple[str, Path], list[Path]] = {}
    for folder, below, files in os.walk(ckpts):
        below.sort()
        for name in sorted(files):
            path = Path(folder) / name
            if not name.startswith(FILE_NAME):
                groups.setdefault(_group(ckpts, path), []).append(path)
    entries = [_kept(state, path, tuple(parts), uses, index) for (state, path), parts in sorted(groups.items())]
    return _with_links(entries)


def _check(ckpts: Path) -> None:
    """Raise FileError where `ckpts` is there, but no folder that can be read."""
    try:
        os.scandir(ckpts).close()
    except FileNotFoundError:
        if ckpts.is_symlink():
            raise FileError(f"{ckpts} is a link that leads nowhere.", hint="Mount or create its target.") from None
    except OSError as error:
        raise FileError(f"{ckpts} can't be read: {reason(error)}.", hint="Check what is in its place.") from error


def total_bytes(entries: Sequence[Kept]) -> int:
    """Bytes that entries take up; a file with several names (hard links) counts once."""
    seen: set[tuple[int, int]] = set()
    total = 0
    for entry in entries:
        total += entry.bytes
        for part in entry.parts:
            with contextlib.suppress(OSError):
                status = part.lstat()
                if status.st_nlink > 1 and (status.st_dev, status.st_ino) in seen:
                    total -= status.st_size
                seen.add((status.st_dev, status.st_ino))
    return total


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
                more.setdefault(real(part), set()).update(row.users)
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


def _kept(state: str, path: Path, parts: tuple[Path, ...], uses: Uses, index: Index) -> Kept:
    sizes = {part: _size(part) for part in parts}
    for part in parts:
        journal = part.with_name(part.name.removesuffix(PARTIAL) + _JOURNAL)
        if part.name.endswith(PARTIAL) and journal in sizes and part != journal:
            sizes[part] = min(sizes[part], bytes_in(journal))  # the rest is a hole
    fetched = any(map(index.sources, parts))
    users = uses.of_component(path) | uses.of_file(path)
    for part in parts if state == "component" else ():
        users |= uses.of_file(part)  # weights that serve another URL too, as their bytes are the same
    shown = () if state == "set aside" else tuple(sorted(users))
    return Kept(path, sum(sizes.values()), state, shown, fetched, parts, doubtful=uses.may_want(path))


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except OSError:  # a download has finished meanwhile
        return 0


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
