"""The index of downloaded files: which URL each file was downloaded from, its size and its sha256.

The index is one small SQLite file, `ckpts/.index.sqlite`. It may be deleted at any time; its content is then collected
again. A record of a file is used only while the file has the size and modification time that were recorded. URLs are
stored as `file_key`s, so that two URLs of one file are equal.
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
_OLD_VERSION = 3  # has a table `sizes` instead of `urls`
_FILES = """
CREATE TABLE IF NOT EXISTS files (
    name TEXT NOT NULL,  -- relative to ckpts; ../loras/… for files in the folder of LoRAs
    url TEXT NOT NULL,  -- several URLs may lead to one file; empty for a file that was only read
    bytes INTEGER NOT NULL, changed_ns INTEGER NOT NULL, sha256 TEXT NOT NULL,
    PRIMARY KEY (name, url)
)
"""
_URLS = """
CREATE TABLE IF NOT EXISTS urls (url TEXT PRIMARY KEY, bytes INTEGER, sha256 TEXT NOT NULL)  -- as servers report them
"""
_LORAS = "../loras/"  # how names of files in that folder begin
_WRITE_WAIT_SECONDS = 5.0
_READ_WAIT_SECONDS = 1.0
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


@dataclass(frozen=True)
class _FileRecord:
    """What is recorded of one file. `name` is relative to `ckpts`; `url` and `sha256` may be empty."""

    name: str
    url: str
    bytes: int
    changed_ns: int
    sha256: str


@dataclass(frozen=True)
class _UrlRecord:
    """What a server reported of a URL. `bytes` is None and `sha256` empty while unknown."""

    bytes: int | None = None
    sha256: str = ""


@dataclass(frozen=True)
class _Content:
    """The whole index in memory. `names`: file names by their `fold`ed form."""

    by_name: dict[str, list[_FileRecord]] = field(default_factory=dict)
    by_url: dict[str, list[_FileRecord]] = field(default_factory=dict)
    by_sha256: dict[str, list[_FileRecord]] = field(default_factory=dict)
    urls: dict[str, _UrlRecord] = field(default_factory=dict)
    names: dict[str, list[str]] = field(default_factory=dict)

    def add(self, record: _FileRecord) -> None:
        if record.name not in self.by_name:
            self.names.setdefault(fold(record.name), []).append(record.name)
        self.by_name.setdefault(record.name, []).append(record)
        if record.url:
            self.by_url.setdefault(file_key(record.url), []).append(record)
        if record.sha256:
            self.by_sha256.setdefault(record.sha256, []).append(record)


class Index:
    """Records of the files in `ckpts` and in the folder `loras` beside it.

    An index that can't be read or written behaves like an empty one.
    """

    def __init__(self, ckpts: Path) -> None:
        self.folder = ckpts
        self._loras = ckpts.parent / "loras"
        self._path = ckpts / FILE_NAME
        self._cache: tuple[tuple[int, int], _Content] | None = None  # modification time and size of the index file

    # --- writing --------------------------------------------------------------------------------------------

    def record_file(self, path: Path, url: str, sha256: str) -> None:
        """Record the URL a file was downloaded from, and its sha256. Both may be empty.

        Files outside `ckpts` and `loras` are ignored, as is an index that can't be written.
        """
        try:
            status = path.stat()
        except (OSError, ValueError):
            return
        name = self._name(path)
        if not name:
            return
        key = file_key(url) if url else ""
        values = (name, key, status.st_size, status.st_mtime_ns, sha256)
        self._write("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?)", values)

    def record_url(self, url: str, size: int | None, sha256: str = "") -> None:
        """Record how many bytes a URL serves, and their sha256, so that both are known offline."""
        self._write("INSERT OR REPLACE INTO urls VALUES (?, ?, ?)", (file_key(url), size, sha256))

    def _write(self, statement: str, values: tuple[object, ...]) -> None:
        if self._path.exists() and not is_file(self._path):
            return  # a folder or a named pipe in the place of the index
        self._cache = None
        for _ in range(2):
            try:
                with self._open() as connection:
                    connection.execute(statement, values)
                    return
            except sqlite3.Error as error:
                if getattr(error, "sqlite_errorcode", None) not in _DAMAGED:
                    return  # locked, read-only or full: the content is still valid
                with contextlib.suppress(OSError):
                    self._path.unlink(missing_ok=True)
            except OSError:
                return

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        connection = sqlite3.connect(self._path, timeout=_WRITE_WAIT_SECONDS)
        try:
            connection.execute("PRAGMA synchronous = OFF")  # what a power failure loses is collected again
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if version != _VERSION:
                _migrate(connection, version)
            with connection:
                yield connection
        finally:
            connection.close()

    # --- reading --------------------------------------------------------------------------------------------

    def size_of_url(self, url: str) -> int | None:
        """The number of bytes a URL serves, as its server last reported it."""
        return self._url_record(url).bytes

    def sha256_of_url(self, url: str) -> str:
        """The sha256 of the file a URL serves, as its server last reported it; empty if unknown."""
        return self._url_record(url).sha256

    def _url_record(self, url: str) -> _UrlRecord:
        return self._content().urls.get(file_key(url), _UrlRecord())

    def file_from_url(self, url: str) -> Path | None:
        """The unchanged file that was downloaded from a URL, or that has the same bytes."""
        for record in self._content().by_url.get(file_key(url), []):
            if self._unchanged(record):
                return self._path_of(record.name)
        return None

    def files_with_sha256(self, sha256: str) -> list[Path]:
        """The unchanged files with a sha256; none for an empty text."""
        if not sha256:
            return []
        records = self._content().by_sha256.get(sha256.lower(), [])
        return list(dict.fromkeys(self._path_of(record.name) for record in records if self._unchanged(record)))

    def sha256(self, path: Path) -> str | None:
        """The sha256 of a file that hasn't changed since it was downloaded or read; None if unknown."""
        for record in self._records(path):
            if record.sha256 and self._unchanged(record):
                return record.sha256
        return None

    def recorded_sha256(self, path: Path) -> str | None:
        """The sha256 that a file had when it was downloaded or read, even if it has changed since."""
        changed = next((record.sha256 for record in self._records(path) if record.sha256), None)
        return self.sha256(path) or changed

    def sources(self, path: Path) -> frozenset[str]:
        """Keys of the URLs that an unchanged file was downloaded from; empty for files of other programs."""
        records = self._records(path)
        return frozenset(file_key(record.url) for record in records if record.url and self._unchanged(record))

    def sources_and_mirrors(self, path: Path) -> frozenset[str]:
        """Keys of the URLs that an unchanged file was downloaded from, and of those that serve the same sha256."""
        digest = self.sha256(path)
        if not digest:
            return self.sources(path)
        mirrors = [url for url, record in self._content().urls.items() if record.sha256 == digest]
        return self.sources(path) | frozenset(mirrors)

    def recorded_urls(self, path: Path) -> tuple[str, ...]:
        """The URLs that a file was downloaded from, even if it has changed since."""
        return tuple(record.url for record in self._records(path) if record.url)

    def _name(self, path: Path) -> str:
        """The name under which a file is recorded: relative to `ckpts`; empty for a file outside both folders."""
        if path.is_relative_to(self.folder):
            return path.relative_to(self.folder).as_posix()
        if path.is_relative_to(self._loras):
            return _LORAS + path.relative_to(self._loras).as_posix()
        return ""

    def _path_of(self, name: str) -> Path:
        """The file that is recorded under a name."""
        if name.startswith(_LORAS):  # not by way of `ckpts`, which may be a link to another disk
            return self._loras / name.removeprefix(_LORAS)
        return self.folder / name

    def _records(self, path: Path) -> list[_FileRecord]:
        name = self._name(path)
        if not name:
            return []
        content = self._content()
        return content.by_name.get(name) or self._records_of_same_file(path, content.names.get(fold(name), ()))

    def _records_of_same_file(self, path: Path, names: Collection[str]) -> list[_FileRecord]:
        """Records under another spelling of a file's name, on file systems that ignore case or composition."""
        for name in names:
            with contextlib.suppress(OSError, ValueError):
                if path.samefile(self._path_of(name)):
                    return self._content().by_name[name]
        return []

    def _content(self) -> _Content:
        """The content of the index, read again if the file has changed."""
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
        try:  # opened read-only, so that it works in a folder that can't be written to
            address = f"{self._path.absolute().as_uri()}?mode=ro"
            connection = sqlite3.connect(address, timeout=_READ_WAIT_SECONDS, uri=True)
        except (sqlite3.Error, ValueError):
            return content
        try:
            _read_files(connection, content)
            _read_urls(connection, content)
        except (sqlite3.Error, OverflowError, UnicodeDecodeError):
            return content
        finally:
            connection.close()
        return content

    def _unchanged(self, record: _FileRecord) -> bool:
        try:
            status = self._path_of(record.name).stat()
        except (OSError, ValueError):
            return False
        return (status.st_size, status.st_mtime_ns) == (record.bytes, record.changed_ns)


def fold(name: str) -> str:
    """A name in the form in which file systems that ignore case and composition compare it."""
    return unicodedata.normalize("NFC", name).casefold()


def _read_files(connection: sqlite3.Connection, content: _Content) -> None:
    """Read the table `files`; records with values of other types, or outside the folder, are left out."""
    for values in connection.execute("SELECT name, url, bytes, changed_ns, sha256 FROM files"):
        if all(map(isinstance, values, (str, str, int, int, str))) and _is_inside(values[0]):
            content.add(_FileRecord(*values))


def _read_urls(connection: sqlite3.Connection, content: _Content) -> None:
    """Read the table `urls`, or the one it replaced; records with values of other types are left out."""
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    table = "urls" if version == _VERSION else "(SELECT url, bytes, '' AS sha256 FROM sizes)"
    for url, size, sha256 in connection.execute(f"SELECT url, bytes, sha256 FROM {table}"):
        if isinstance(url, str) and isinstance(sha256, str) and (size is None or isinstance(size, int)):
            content.urls[file_key(url)] = _UrlRecord(size, sha256)


def _is_inside(name: str) -> bool:
    """Whether a stored name stays inside the folder."""
    path = PurePosixPath(name.removeprefix(_LORAS))
    return not path.is_absolute() and ".." not in path.parts


def _migrate(connection: sqlite3.Connection, version: int) -> None:
    """Convert the tables to the current version. Tables of an unknown version are deleted."""
    if version not in (0, _OLD_VERSION):
        connection.execute("DROP TABLE IF EXISTS files")
        connection.execute("DROP TABLE IF EXISTS urls")
    connection.execute(_FILES)
    connection.execute(_URLS)
    if version == _OLD_VERSION:
        connection.execute("INSERT OR IGNORE INTO urls SELECT url, bytes, '' FROM sizes")
    connection.execute(f"PRAGMA user_version = {_VERSION}")
