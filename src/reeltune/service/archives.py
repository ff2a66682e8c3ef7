"""Queues as other programs save them: a zip archive with `queue.json` and the images and videos that it names.

with open_archive(Path("queue.zip")) as archive:
    value = archive.manifest()
    path = archive.store(workspace, "task1_image_start_0.png")

An archive comes from strangers. Nothing is written to a path that it contains: a file is stored among the uploads under
its sha256. The number of files and all sizes are limited, before and after decompression.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import stat
import struct
import zipfile
import zlib
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from reeltune.errors import FileError, InvalidJSON, ReeltuneError
from reeltune.files import open_regular, reason
from reeltune.media.kinds import HEAD_BYTES, NUMPY_FILE, kind_of_bytes
from reeltune.service.uploads import MAX_BYTES, MAX_JSON_BYTES, IncomingFile, UploadLimit, clean_name
from reeltune.service.workspace import Workspace
from reeltune.untrusted import clean_text, parse_json

MANIFEST = "queue.json"
MAX_FILES = 10_000  # in an archive
MAX_TOTAL_BYTES = 8_000_000_000  # of all files in an archive, uncompressed
_MAX_DIRECTORY_BYTES = 4_000_000  # of an archive's list of files
_PIECE_BYTES = 1_000_000
_MAX_NAME = 80  # characters of a file's name in a message
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED = 1  # bit of `flag_bits`
# What `zipfile` raises for damaged archives: beside its own error, those of the modules that it decodes with.
# NotImplementedError stands for versions and features of the format that it doesn't know.
_DAMAGE = (zipfile.BadZipFile, NotImplementedError, EOFError, OverflowError, ValueError, struct.error, zlib.error)
_HINT = "Save the queue again in the program that it is from."


class ArchiveRefused(ReeltuneError):
    """An archive can't be used: it is damaged, too large, or contains what a saved queue never contains."""


@contextlib.contextmanager
def open_archive(path: Path) -> Iterator[Archive]:
    """A saved queue, open for reading. Raises FileError if it can't be read, ArchiveRefused for its content."""
    with open_regular(path) as file, _BoundedReader(file) as reader:
        with _errors_of(path.name):
            opened = zipfile.ZipFile(reader)
        with opened:
            yield Archive(opened, path.name)


class Archive:
    """An open archive whose list of files was checked. Raises ArchiveRefused for a list that isn't acceptable."""

    def __init__(self, opened: zipfile.ZipFile, name: str) -> None:
        self._opened = opened
        self._name = clean_text(name)
        self._files = self._checked_files()
        self._stored: dict[str, Path | ReeltuneError] = {}

    def _checked_files(self) -> dict[str, zipfile.ZipInfo]:
        """All files by their names, without folders. Nothing is read yet."""
        files: dict[str, zipfile.ZipInfo] = {}
        listed = self._opened.infolist()
        if len(listed) > MAX_FILES:
            raise self._refused(f"contains {len(listed):,} files, of {MAX_FILES:,} at most")
        for info in listed:
            objection = _objection(info)
            if objection:
                raise self._refused(f"contains {_shown(info.filename)}, {objection}")
            if info.filename in files:
                raise self._refused(f"contains {_shown(info.filename)} twice")
            if not info.is_dir():
                files[info.filename] = info
        total = sum(info.file_size for info in files.values())
        if total > MAX_TOTAL_BYTES:
            raise self._refused(f"contains {total:,} bytes of files, of {MAX_TOTAL_BYTES:,} at most")
        return files

    def manifest(self) -> Any:
        """The JSON value of `queue.json`. Raises ArchiveRefused."""
        info = self._files.get(MANIFEST)
        if info is None:
            raise self._refused(f"contains no {MANIFEST}")
        if info.file_size > MAX_JSON_BYTES:
            raise self._refused(f"contains a {MANIFEST} of more than {MAX_JSON_BYTES:,} bytes")
        with contextlib.closing(self._pieces(info)) as pieces:
            content = b"".join(pieces)
        try:
            return parse_json(content, f"{MANIFEST} in {self._name}", max_bytes=MAX_JSON_BYTES)
        except InvalidJSON as error:
            raise ArchiveRefused(str(error), hint=_HINT) from error

    def store(self, workspace: Workspace, name: str) -> Path:
        """Store an image or a video of the archive among the uploads; returns its path.

        Its content is checked as that of an upload. Raises ArchiveRefused for a file that isn't there, or is neither an
        image nor a video, UploadRefused for one that can't be decoded, FileError where it can't be written.
        """
        if name not in self._stored:
            try:
                self._stored[name] = self._extract(workspace, name)
            except ReeltuneError as error:
                self._stored[name] = error
        stored = self._stored[name]
        if isinstance(stored, ReeltuneError):
            raise stored
        return stored

    def unused(self) -> list[str]:
        """The names of the files that weren't asked for."""
        return [clean_text(name) for name in self._files if name != MANIFEST and name not in self._stored]

    def _extract(self, workspace: Workspace, name: str) -> Path:
        info = self._files.get(name)
        if info is None:
            message = f"{_shown(name)} is not in {self._name}."
            raise ArchiveRefused(message, hint="Only files in the archive itself can be used.")
        try:
            workspace.uploads.mkdir(parents=True, exist_ok=True)
            with contextlib.closing(self._pieces(info)) as pieces:
                head = next(pieces)
                kind = kind_of_bytes(head)
                if not kind.image and not kind.container and kind.label != NUMPY_FILE:
                    raise ArchiveRefused(f"{_shown(name)} in {self._name} is {kind.label}, not an image or a video.")
                return _receive(workspace, name, itertools.chain((head,), pieces))
        except OSError as error:
            message = f"{_shown(name)} can't be stored in {workspace.uploads}: {reason(error)}."
            raise FileError(message, hint="Check the folder and the disk.") from error

    def _pieces(self, info: zipfile.ZipInfo) -> Generator[bytes]:
        """The content of a file, piece by piece; first as much as its kind is recognized by."""
        with _errors_of(self._name):
            file = self._opened.open(info)
        with file:
            size = HEAD_BYTES
            while True:
                with _errors_of(self._name):
                    piece = file.read(size)
                yield piece
                if not piece:
                    return
                size = _PIECE_BYTES

    def _refused(self, problem: str) -> ArchiveRefused:
        return ArchiveRefused(f"{self._name} {problem}.", hint=_HINT)


def _receive(workspace: Workspace, name: str, pieces: Iterable[bytes]) -> Path:
    """Store a file. Raises UploadRefused, OSError."""
    limit = UploadLimit(workspace.uploads)
    incoming = IncomingFile(workspace.uploads, clean_name(name))
    try:
        for piece in pieces:
            limit.count(piece)
            incoming.write(piece)
        return incoming.finish()
    finally:
        incoming.discard()


def _objection(info: zipfile.ZipInfo) -> str:
    """Why a file can't be in a saved queue, to follow its name; empty if it can."""
    name, mode = info.orig_filename, info.external_attr >> 16
    parts = PurePosixPath(name).parts
    if name.startswith("/") or ".." in parts or "\\" in name or ":" in name or not name.isprintable() or not parts:
        return "whose name leads outside the archive or can't be used"
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "a link or a special file"
    if info.flag_bits & _ENCRYPTED:
        return "which is encrypted"
    if info.compress_type not in _METHODS:
        return "which is compressed in a way that isn't supported"
    if info.file_size > MAX_BYTES:
        return f"which has {info.file_size:,} bytes, of {MAX_BYTES:,} at most"
    return ""


def _shown(name: str) -> str:
    """A name for messages."""
    return repr(clean_text(name)[:_MAX_NAME])


class _BoundedReader(io.BufferedReader):
    """Refuses to read much at once, as `zipfile` reads the whole list of files before anything can be checked."""

    def __init__(self, file: Any) -> None:
        super().__init__(file.raw if isinstance(file, io.BufferedReader) else file)

    def read(self, size: int | None = -1, /) -> bytes:
        """Read bytes. Raises BadZipFile for too many."""
        wanted = _MAX_DIRECTORY_BYTES + 1 if size is None or size < 0 else size
        if wanted <= _MAX_DIRECTORY_BYTES:
            return super().read(wanted)
        content = super().read(_MAX_DIRECTORY_BYTES + 1)
        if len(content) > _MAX_DIRECTORY_BYTES:
            raise zipfile.BadZipFile("its list of files is too long")
        return content


@contextlib.contextmanager
def _errors_of(name: str) -> Iterator[None]:
    """Report whatever `zipfile` raises for a damaged archive as ArchiveRefused."""
    try:
        yield
    except _DAMAGE as error:
        message = (
            f"{clean_text(name)} is not a zip archive that can be read: {clean_text(str(error))[:200].rstrip('.')}."
        )
        raise ArchiveRefused(message, hint=_HINT) from error
