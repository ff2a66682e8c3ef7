"""Definition files read once, and again only when they change: for programs that watch a folder of many.

reader = DefinitionReader()
catalog = Catalog(root, reader.read)
catalog = Catalog(root, reader.next().read)  # parses what is new or changed
"""

from __future__ import annotations

from pathlib import Path

from reeltune.definitions.schema import DefinitionFile, read_definition
from reeltune.errors import DefinitionError

_Facts = tuple[int, int, int]  # size, time of the last change in ns, inode


class DefinitionReader:
    """Reads the files of one catalog; `next()` gives the reader of a later one, which knows what this one has read."""

    def __init__(self, known: dict[Path, tuple[_Facts, DefinitionFile | DefinitionError]] | None = None) -> None:
        self._before = known or {}
        self._read: dict[Path, tuple[_Facts, DefinitionFile | DefinitionError]] = {}

    def next(self) -> DefinitionReader:
        """A reader for the same folders as they are later; files that are gone are forgotten."""
        return DefinitionReader(self._read)

    def read(self, path: Path) -> DefinitionFile:
        """As `read_definition`, with its errors; a file that is as it was isn't parsed again."""
        facts = _facts(path)
        known = self._before.get(path)
        parsed = known[1] if known is not None and known[0] == facts else _parsed(path)
        if facts is not None:
            self._read[path] = (facts, parsed)
        if isinstance(parsed, DefinitionError):
            raise parsed.with_traceback(None)
        return parsed


def _parsed(path: Path) -> DefinitionFile | DefinitionError:
    try:
        return read_definition(path)
    except DefinitionError as error:
        return error


def _facts(path: Path) -> _Facts | None:
    """What tells that a file has changed; None where it can't be looked at. Taken before it is read."""
    try:
        facts = path.stat()
    except (OSError, ValueError):
        return None
    return facts.st_size, facts.st_mtime_ns, facts.st_ino
