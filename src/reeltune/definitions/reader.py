"""A reader that parses definition files again only if they have changed, for programs that watch a folder.

reader = DefinitionReader()
catalog = Catalog(root, reader.read)
catalog = Catalog(root, reader.next().read)  # parses what is new or changed
"""

from __future__ import annotations

from pathlib import Path

from reeltune.definitions.schema import DefinitionFile, read_definition
from reeltune.errors import DefinitionError

_Fingerprint = tuple[int, int, int]  # size, time of the last change in ns, inode
_Parsed = DefinitionFile | DefinitionError


class DefinitionReader:
    """Reads the files of one catalog. `next()` returns the reader for the next one, which reuses unchanged files."""

    def __init__(self, previous: dict[Path, tuple[_Fingerprint, _Parsed]] | None = None) -> None:
        self._previous = previous or {}
        self._read: dict[Path, tuple[_Fingerprint, _Parsed]] = {}

    def next(self) -> DefinitionReader:
        """A reader that reuses the files that this one has read."""
        return DefinitionReader(self._read)

    def read(self, path: Path) -> DefinitionFile:
        """The definition file, parsed only if it has changed. Raises as `read_definition`."""
        fingerprint = _fingerprint(path)  # before reading, so that a change while reading is noticed later
        parsed = self._if_unchanged(path, fingerprint) or _parse(path)
        if fingerprint is not None:
            self._read[path] = (fingerprint, parsed)
        if isinstance(parsed, DefinitionError):
            raise parsed.with_traceback(None)
        return parsed

    def _if_unchanged(self, path: Path, fingerprint: _Fingerprint | None) -> _Parsed | None:
        """What the previous reader has parsed; None if the file has changed since."""
        previous = self._previous.get(path)
        if previous is None or previous[0] != fingerprint:
            return None
        return previous[1]


def _parse(path: Path) -> _Parsed:
    try:
        return read_definition(path)
    except DefinitionError as error:
        return error


def _fingerprint(path: Path) -> _Fingerprint | None:
    """Values that change when a file changes; None if they can't be read."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return status.st_size, status.st_mtime_ns, status.st_ino
