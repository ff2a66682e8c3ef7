"""What the headers of many files say, kept on disk, so that large folders are searched quickly the next time.

The cache is `ckpts/.index.sqlite.headers`. It may be deleted at any time. An entry counts as long as its file has the
same size, modification time and inode, and only for the version of reeltune that wrote it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sqlite3
from collections.abc import Mapping
from pathlib import Path

from reeltune._version import __version__
from reeltune.checkpoints.components import ComponentMatch
from reeltune.checkpoints.identify import Identity
from reeltune.dtypes import DType, Quantization
from reeltune.files import is_file
from reeltune.library.index import FILE_NAME
from reeltune.untrusted import JsonObject

_FILE_NAME = f"{FILE_NAME}.headers"
_FORMAT = f"{__version__}/3"  # of the entries
_WAIT_SECONDS = 1.0
_TABLE = """
CREATE TABLE IF NOT EXISTS headers (
    path TEXT PRIMARY KEY, format TEXT NOT NULL, bytes INTEGER NOT NULL, changed_ns INTEGER NOT NULL,
    inode INTEGER NOT NULL, facts TEXT NOT NULL
)
"""


@dataclasses.dataclass(frozen=True)
class HeaderFacts:
    """What is known of a file by its header: its identity, or why it can't be read."""

    identity: Identity | None
    error: str = ""


class HeaderCache:
    """Facts by path. A cache that can't be read or written behaves like an empty one."""

    def __init__(self, ckpts: Path) -> None:
        self._path = ckpts / _FILE_NAME
        self._new: dict[str, tuple[os.stat_result, HeaderFacts]] = {}
        self._stored: dict[str, tuple[int, int, int, str]] | None = None

    def get(self, path: Path, status: os.stat_result) -> HeaderFacts | None:
        """The facts about an unchanged file; None if they aren't known."""
        if self._stored is None:
            self._stored = self._read()
        stored = self._stored.get(str(path))
        if stored is None or stored[:3] != _signature(status):
            return None
        try:
            return _decoded(json.loads(stored[3]))
        except (ValueError, KeyError, TypeError, RecursionError):
            return None

    def put(self, path: Path, status: os.stat_result, facts: HeaderFacts) -> None:
        """Add the facts about a file; they are stored by `save`."""
        self._new[str(path)] = (status, facts)

    def save(self) -> None:
        """Store what was added. Nothing is written if the folder `ckpts` doesn't exist."""
        if not self._new or not self._path.parent.is_dir():
            return
        rows = [
            (path, _FORMAT, *_signature(status), json.dumps(_encoded(facts)))
            for path, (status, facts) in self._new.items()
            if path.isprintable()
        ]
        self._new.clear()
        with contextlib.suppress(sqlite3.Error, OSError, UnicodeError):
            connection = sqlite3.connect(self._path, timeout=_WAIT_SECONDS)
            try:
                with connection:
                    connection.execute(_TABLE)
                    connection.executemany("INSERT OR REPLACE INTO headers VALUES (?, ?, ?, ?, ?, ?)", rows)
            finally:
                connection.close()

    def _read(self) -> dict[str, tuple[int, int, int, str]]:
        if not is_file(self._path):
            return {}
        entries: dict[str, tuple[int, int, int, str]] = {}
        try:
            address = f"{self._path.absolute().as_uri()}?mode=ro"
            connection = sqlite3.connect(address, timeout=_WAIT_SECONDS, uri=True)
        except (sqlite3.Error, ValueError):
            return {}
        try:
            query = "SELECT path, bytes, changed_ns, inode, facts FROM headers WHERE format = ?"
            for path, size, changed, inode, facts in connection.execute(query, (_FORMAT,)):
                if isinstance(path, str) and isinstance(facts, str):
                    entries[path] = (size, changed, inode, facts)
        except (sqlite3.Error, UnicodeDecodeError, OverflowError):
            return {}
        finally:
            connection.close()
        return entries


def _signature(status: os.stat_result) -> tuple[int, int, int]:
    # SQLite stores signed numbers of 64 bits, and some file systems have larger inodes
    return status.st_size, status.st_mtime_ns, status.st_ino & (2**63 - 1)


def _encoded(facts: HeaderFacts) -> JsonObject:
    if facts.identity is None:
        return {"error": facts.error}
    return {"error": facts.error, "identity": _without_mappings(dataclasses.asdict(_plain(facts.identity)))}


def _plain(identity: Identity) -> Identity:
    """The identity with dictionaries, which can be copied and stored."""
    components = tuple(dataclasses.replace(match, config=dict(match.config)) for match in identity.components)
    config = None if identity.config is None else dict(identity.config)
    return dataclasses.replace(identity, config=config, dtypes=dict(identity.dtypes), components=components)


def _without_mappings(value: object) -> object:
    """A value with dictionaries in place of other mappings."""
    if isinstance(value, Mapping):
        return {str(key): _without_mappings(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_mappings(item) for item in value]
    return value


def _decoded(value: JsonObject) -> HeaderFacts:
    stored = value.get("identity")
    if stored is None:
        return HeaderFacts(None, str(value["error"]))
    dtype = stored["dtype"]
    identity = Identity(
        **{
            **stored,
            "architectures": tuple(stored["architectures"]),
            "compatible": tuple(stored["compatible"]),
            "evidence": tuple(stored["evidence"]),
            "quantization": Quantization(stored["quantization"]),
            "dtype": None if dtype is None else DType(dtype),
            "components": tuple(ComponentMatch(**match) for match in stored["components"]),
        }
    )
    return HeaderFacts(identity, str(value["error"]))
