"""What was learned of files and URLs: which URL a file was downloaded from, sizes and sha256.

One small SQLite file, `ckpts/.index.sqlite`. It may be deleted at any time: what it held is learned again. A row
about a file counts only while the file has the size and the time of change that it had then. URLs are kept by
`file_key`, so that two URLs of one file are one.
"""

from __future__ import annotations

import contextlib
import sqlite3
import unicodedata
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from reeltune.files import is_file
from reeltune.net import file_key

FILE_NAME = ".index.sqlite"
_VERSION = 4
_OLD_VERSION = 3  # the same, but for `urls`
_FILES = """
CREATE TABLE IF NOT EXISTS files (
    name TEXT NOT NULL,  -- relative to ckpts
    url TEXT NOT NULL,  -- several may lead to one file; empty for a file that was only read
    bytes INTEGER NOT NULL, changed_ns INTEGER NOT NULL, sha256 TEXT NOT NULL,
    PRIMARY KEY (name, url)
)
"""
_URLS = """
CREATE TABLE IF NOT EXISTS urls (url TEXT PRIMARY KEY, bytes INTEGER, sha256 TEXT NOT NULL)  -- as servers report them
"""
_WAIT_SECONDS = 5.0
_READ_WAIT_SECONDS = 1.0
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


@dataclass(frozen=True)
class _Row:
    """What was learned of one file. `url` may be empty, and so may `sha256`."""

    name: str
    url: str
    bytes: int
    changed_ns: int
    sha256: str


@dataclass(frozen=True)
class _Content:
    """Everything in an index: rows by file name, by the key of their URL and by sha256; sizes and sha256 by URL; names
    by what file systems may take for the same.
    """

    by_name: dict[str, list[_Row]] = field(default_factory=dict)
    by_url: dict[str, list[_Row]] = field(default_factory=dict)
    by_sha256: dict[str, list[_Row]] = field(default_factory=dict)
    urls: dict[str, tuple[int | None, str]] = field(default_factory=dict)
    folded: dict[str, list[str]] = field(default_factory=dict)

    def add(self, row: _Row) -> None:
        if row.name not in self.by_name:
            self.folded.setdefault(fold(row.name), []).append(row.name)
        self.by_name.setdefault(row.name, []).append(row)
        if row.url:
            self.by_url.setdefault(file_key(row.url), []).append(row)
        if row.sha256:
            self.by_sha256.setdefault(row.sha256, []).append(row)


class Index:
    """Learned facts of the files under `ckpts`; an index that can't be read or written is as good as empty."""

    def __init__(self, ckpts: Path) -> None:
        self._ckpts = ckpts
        self._path = ckpts / FILE_NAME
        self.folder = ckpts
        self._cache: tuple[tuple[int, int], _Content] | None = None

    # --- writing --------------------------------------------------------------------------------------------

    def learn(self, path: Path, url: str, sha256: str) -> None:
        """Remember where a file under `ckpts` came from, and its sha256. What can't be written is forgotten."""
        try:
            facts = path.stat()
            name = path.relative_to(self._ckpts).as_posix()
        except (OSError, ValueError):
            return
        key = file_key(url) if url else ""
        row = (name, key, facts.st_size, facts.st_mtime_ns, sha256)
        self._write("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?)", row)

    def learn_url(self, url: str, count: int | None, sha256: str = "") -> None:
        """Remember how many bytes a URL serves and their sha256, for the day the network is off."""
        self._write("INSERT OR REPLACE INTO urls VALUES (?, ?, ?)", (file_key(url), count, sha256))

    def _write(self, statement: str, values: tuple[object, ...]) -> None:
        if self._path.exists() and not is_file(self._path):
            return  # a folder or a named pipe is no index
        self._cache = None
        for _ in range(2):
            try:
                with self._open() as connection:
                    connection.execute(statement, values)
                    return
            except sqlite3.Error as error:
                if getattr(error, "sqlite_errorcode", None) not in _DAMAGED:
                    return  # locked, read-only or full: what is in it stays
                with contextlib.suppress(OSError):
                    self._path.unlink(missing_ok=True)
            except OSError:
                return

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        connection = sqlite3.connect(self._path, timeout=_WAIT_SECONDS)
        try:
            connection.execute("PRAGMA synchronous = OFF")  # what is lost with the power is learned again
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if version != _VERSION:
                _migrate(connection, version)
            with connection:
                yield connection
        finally:
            connection.close()

    # --- reading --------------------------------------------------------------------------------------------

    def size_of(self, url: str) -> int | None:
        """Bytes a URL serves, as its server reported them when it was last asked."""
        return self._content().urls.get(file_key(url), (None, ""))[0]

    def sum_of(self, url: str) -> str:
        """The sha256 of what a URL serves, as its server reported it; empty where it isn't known."""
        return self._content().urls.get(file_key(url), (None, ""))[1]

    def came_from(self, url: str) -> Path | None:
        """The unchanged file that was downloaded from a URL, or has the same bytes."""
        rows = self._content().by_url.get(file_key(url), [])
        return next((self._ckpts / row.name for row in rows if self._unchanged(row)), None)

    def with_sha256(self, sha256: str) -> list[Path]:
        """Unchanged files of a sha256."""
        rows = self._content().by_sha256.get(sha256.lower(), []) if sha256 else []
        return list(dict.fromkeys(self._ckpts / row.name for row in rows if self._unchanged(row)))

    def sha256(self, path: Path) -> str | None:
        """Sha256 of a file that hasn't changed since it was downloaded or read."""
        return next((row.sha256 for row in self._of(path) if row.sha256 and self._unchanged(row)), None)

    def recorded(self, path: Path) -> str | None:
        """Sha256 a file had when it was downloaded or read, whatever has become of it."""
        return self.sha256(path) or next((row.sha256 for row in self._of(path) if row.sha256), None)

    def sources(self, path: Path) -> frozenset[str]:
        """Keys of the URLs an unchanged file came from; empty for files this program didn't download."""
        return frozenset(file_key(row.url) for row in self._of(path) if row.url and self._unchanged(row))

    def serves(self, path: Path) -> frozenset[str]:
        """Keys of the URLs an unchanged file came from, and of those that serve the same sha256."""
        digest = self.sha256(path)
        same = [url for url, (_, other) in self._content().urls.items() if digest and other == digest]
        return self.sources(path) | frozenset(same)

    def links(self, path: Path) -> tuple[str, ...]:
        """The URLs a file came from, whatever has become of it."""
        return tuple(row.url for row in self._of(path) if row.url)

    def _of(self, path: Path) -> list[_Row]:
        if not path.is_relative_to(self._ckpts):
            return []
        name, content = path.relative_to(self._ckpts).as_posix(), self._content()
        return content.by_name.get(name) or self._same_file(path, content.folded.get(fold(name), ()))

    def _same_file(self, path: Path, names: Collection[str]) -> list[_Row]:
        """Rows of a file by another spelling of its name, where the file system makes no difference."""
        for name in names:
            with contextlib.suppress(OSError, ValueError):
                if path.samefile(self._ckpts / name):
                    return self._content().by_name[name]
        return []

    def _content(self) -> _Content:
        """All of it, read again when the file has changed."""
        try:
            status = self._path.stat()
        except (OSError, ValueError):
            return _Content()
        signature = (status.st_mtime_ns, status.st_size)
        if self._cache is None or self._cache[0] != signature:
            self._cache = (signature, self._read())
        return self._cache[1]

    def _read(self) -> _Content:
        content = _Content()
        if not is_file(self._path):
            return content
        try:  # nothing is written, so that this works in a folder that can't be written to
            address = f"{self._path.absolute().as_uri()}?mode=ro"
            connection = sqlite3.connect(address, timeout=_READ_WAIT_SECONDS, uri=True)
        except (sqlite3.Error, ValueError):
            return content
        try:
            for values in connection.execute("SELECT name, url, bytes, changed_ns, sha256 FROM files"):
                if all(map(isinstance, values, (str, str, int, int, str))) and _inside(values[0]):
                    content.add(_Row(*values))
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            table = "urls" if version == _VERSION else "(SELECT url, bytes, '' AS sha256 FROM sizes)"
            for url, count, sha256 in connection.execute(f"SELECT url, bytes, sha256 FROM {table}"):
                if isinstance(url, str) and isinstance(sha256, str) and (count is None or isinstance(count, int)):
                    content.urls[file_key(url)] = (count, sha256)
        except (sqlite3.Error, OverflowError, UnicodeDecodeError):
            return content
        finally:
            connection.close()
        return content

    def _unchanged(self, row: _Row) -> bool:
        try:
            facts = (self._ckpts / row.name).stat()
        except (OSError, ValueError):
            return False
        return (facts.st_size, facts.st_mtime_ns) == (row.bytes, row.changed_ns)


def fold(name: str) -> str:
    """A name as file systems compare it that make no difference between cases and compositions of characters."""
    return unicodedata.normalize("NFC", name).casefold()


def _inside(name: str) -> bool:
    """Whether a stored name stays inside the folder."""
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts


def _migrate(connection: sqlite3.Connection, version: int) -> None:
    """Bring the tables to this version; those of an unknown one are dropped, and learned again."""
    if version not in (0, _OLD_VERSION):
        connection.execute("DROP TABLE IF EXISTS files")
        connection.execute("DROP TABLE IF EXISTS urls")
    connection.execute(_FILES)
    connection.execute(_URLS)
    if version == _OLD_VERSION:
        connection.execute("INSERT OR IGNORE INTO urls SELECT url, bytes, '' FROM sizes")
    connection.execute(f"PRAGMA user_version = {_VERSION}")
