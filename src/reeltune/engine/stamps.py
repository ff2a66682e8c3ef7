"""Whether files are still what they were when they were loaded: what a warm engine looks at before each video."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_MOST_FILES = 1000  # of a component's folder


@dataclass(frozen=True)
class Stamp:
    """One file: its size in bytes, when it was changed (ns), its inode. A missing file has size -1."""

    path: Path
    size: int
    changed: int
    inode: int


Stamps = tuple[Stamp, ...]


def stamps(path: Path) -> Stamps:
    """The stamp of a file, or of every file in a component's folder."""
    files = sorted(file for file in path.rglob("*") if file.is_file())[:_MOST_FILES] if path.is_dir() else [path]
    return tuple(map(_stamp, files))


def _stamp(path: Path) -> Stamp:
    try:
        facts = path.stat()
    except OSError:
        return Stamp(path, -1, 0, 0)
    return Stamp(path, facts.st_size, facts.st_mtime_ns, facts.st_ino)


class Seen:
    """The stamps that the files of one video had as it began. What is loaded for it is known by these, so that a file
    which is replaced meanwhile is loaded again for the next one.
    """

    def __init__(self) -> None:
        self._stamps: dict[Path, Stamps] = {}

    def look(self, paths: Iterable[Path]) -> tuple[Stamp, ...]:
        """Take the stamps of all files of a video; returns those of every single file."""
        self._stamps = {path: stamps(path) for path in paths}
        return tuple(stamp for row in self._stamps.values() for stamp in row)

    def of(self, path: Path) -> Stamps:
        """The stamps of a file, or of a folder's files."""
        if path not in self._stamps:
            self._stamps[path] = stamps(path)
        return self._stamps[path]

    def changed(self) -> list[Path]:
        """Files and folders that are no longer as they were."""
        return [path for path, before in self._stamps.items() if stamps(path) != before]
