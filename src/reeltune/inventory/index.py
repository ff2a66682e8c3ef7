"""What was learned of files while they were fetched: which link a file came from, its size and its sum.

One small SQLite file, `ckpts/.index.sqlite`. It may be deleted at any time: what it held is learned again. A row
counts only while the file has the size and the time of change that it had then.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from reeltune.net import without_secrets

FILE_NAME = ".index.sqlite"
_VERSION = 3
_SCHEMA = """
CREATE TABLE IF NOT EXISTS files (
    name TEXT NOT NULL,  -- relative to ckpts
    url TEXT NOT NULL,  -- several may lead to one file; empty for a file that was only read
    bytes INTEGER NOT NULL, changed_ns INTEGER NOT NULL, sha256 TEXT NOT NULL,
    PRIMARY KEY (name, url)
)
"""
_SIZES = "CREATE TABLE IF NOT EXISTS sizes (url TEXT PRIMARY KEY, bytes INTEGER NOT NULL)"  # as servers told them
_WAIT_SECONDS = 5.0


class Index:
    """Learned facts of the files under `ckpts`; an index that can't be read or written is as good as empty."""

    def __init__(self, ckpts: Path) -> None:
        self._ckpts = ckpts
        self._path = ckpts / FILE_NAME

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        connection = sqlite3.connect(self._path, timeout=_WAIT_SECONDS)
        try:
            connection.execute("PRAGMA synchronous = OFF")  # what is lost with the power is learned again
            if connection.execute("PRAGMA user_version").fetchone()[0] != _VERSION:
                connection.execute("DROP TABLE IF EXISTS files")  # of another version: learned again
                connection.execute(_SCHEMA)
                connection.execute(_SIZES)
                connection.execute(f"PRAGMA user_version = {_VERSION}")
            with connection:
                yield connection
        finally:
            connection.close()

    def learn(self, path: Path, url: str, sha256: str) -> None:
        """Remember where a file under `ckpts` came from, and its sum."""
        facts = path.stat()
        row = (path.relative_to(self._ckpts).as_posix(), without_secrets(url), facts.st_size, facts.st_mtime_ns, sha256)
        try:
            with self._open() as connection:
                connection.execute("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?)", row)
        except sqlite3.DatabaseError:  # damaged: begin anew
            self._path.unlink(missing_ok=True)
            with contextlib.suppress(sqlite3.Error), self._open() as connection:
                connection.execute("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?)", row)

    def learn_size(self, url: str, count: int) -> None:
        """Remember how many bytes are behind a link, for the day the network is off."""
        with contextlib.suppress(sqlite3.Error), self._open() as connection:
            connection.execute("INSERT OR REPLACE INTO sizes VALUES (?, ?)", (without_secrets(url), count))

    def size_of(self, url: str) -> int | None:
        """Bytes behind a link, as its server told them when it was last asked."""
        if not self._path.is_file():
            return None
        with contextlib.suppress(sqlite3.Error), self._open() as connection:
            row = connection.execute("SELECT bytes FROM sizes WHERE url = ?", (without_secrets(url),)).fetchone()
            return int(row[0]) if row else None
        return None

    def came_from(self, url: str) -> Path | None:
        """The unchanged file that was fetched from a link."""
        rows = self._rows("url = ?", without_secrets(url))
        return next((self._ckpts / row[0] for row in rows if self._unchanged(row)), None)

    def sha256(self, path: Path) -> str | None:
        """Sum of a file that hasn't changed since it was fetched."""
        return next((row[4] for row in self._of(path) if row[4] and self._unchanged(row)), None)

    def recorded(self, path: Path) -> str | None:
        """Sum a file had when it was fetched or read, whatever has become of it."""
        return self.sha256(path) or next((row[4] for row in self._of(path) if row[4]), None)

    def source(self, path: Path) -> str | None:
        """A link an unchanged file came from; None for files this program didn't fetch."""
        return next((row[1] for row in self._of(path) if row[1] and self._unchanged(row)), None)

    def link(self, path: Path) -> str:
        """A link a file came from, whatever has become of it; empty where there is none."""
        return next((row[1] for row in self._of(path) if row[1]), "")

    def _of(self, path: Path) -> list[tuple[str, str, int, int, str]]:
        if not path.is_relative_to(self._ckpts):
            return []
        return self._rows("name = ?", path.relative_to(self._ckpts).as_posix())

    def _rows(self, condition: str, value: str) -> list[tuple[str, str, int, int, str]]:
        if not self._path.is_file():
            return []
        try:
            with self._open() as connection:
                return connection.execute(f"SELECT * FROM files WHERE {condition}", (value,)).fetchall()
        except sqlite3.Error:
            return []

    def _unchanged(self, row: tuple[str, str, int, int, str]) -> bool:
        try:
            facts = (self._ckpts / row[0]).stat()
        except OSError:
            return False
        return (facts.st_size, facts.st_mtime_ns) == (row[2], row[3])
