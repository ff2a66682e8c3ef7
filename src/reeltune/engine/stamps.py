"""Whether files are still what they were when they were loaded: what a warm engine checks before each video."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_MOST_FILES = 1000  # of a component's folder


@dataclass(frozen=True)
class Stamp:
    """The state of one file: its size in bytes, when it was changed (in ns), its inode. A missing file has size -1."""

    path: Path
    size: int
    changed: int
    inode: int


Stamps = tuple[Stamp, ...]


def stamps(path: Path) -> Stamps:
    """The stamp of a file, or of every file in a component's folder."""
    if not path.is_dir():
        return (_stamp(path),)
    files = sorted(file for file in path.rglob("*") if file.is_file())
    return tuple(_stamp(file) for file in files[:_MOST_FILES])


def _stamp(path: Path) -> Stamp:
    try:
        status = path.stat()
    except OSError:
        return Stamp(path, -1, 0, 0)
    return Stamp(path, status.st_size, status.st_mtime_ns, status.st_ino)


class FilesInUse:
    """The stamps that the files of one video had when it began.

    What is loaded is known by these, so that a file which is replaced meanwhile is loaded again for the next video.
    """

    def __init__(self) -> None:
        self._stamps: dict[Path, Stamps] = {}

    def record(self, paths: Iterable[Path]) -> Stamps:
        """Record all files of a video; returns the stamp of every single file."""
        self._stamps = {path: stamps(path) for path in paths}
        return tuple(stamp for file_stamps in self._stamps.values() for stamp in file_stamps)

    def stamps_of(self, path: Path) -> Stamps:
        """The recorded stamps of a file, or of the files in a folder."""
        if path not in self._stamps:
            self._stamps[path] = stamps(path)
        return self._stamps[path]

    def changed(self) -> list[Path]:
        """Files and folders that are no longer as they were recorded."""
        return [path for path, recorded in self._stamps.items() if stamps(path) != recorded]
