"""What of a half-fetched file is there: a small file beside it that survives kill -9 and power loss.

Layout: one line of JSON padded to `_HEAD` bytes (what the file was known by), then one byte for each block of
`BLOCK` bytes: 0 absent, 1 written, 2 on the disk for certain. A killed process loses at most the blocks it was in the
middle of; after a restart of the machine only 2 counts.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import psutil

from reeltune.errors import FileError, ReeltuneError
from reeltune.files import read_bytes, write_all
from reeltune.untrusted import parse_json

BLOCK = 256 * 1024
SCHEMA_VERSION = 2
_HEAD = 1024
_ABSENT, _WRITTEN, _SYNCED = 0, 1, 2
_MAX_BYTES = 64_000_000  # marks of a file of 16 TB
_CLOCK_SECONDS = 5  # the boot time the system reports wavers with its clock


@dataclass(frozen=True)
class Known:
    """By what a file is known again: its size in bytes, what the server calls this state of it, its sha256, its URL.

    Servers give different files the same ETag (made from size and date) or date: the URL tells them apart.
    """

    size: int
    validator: str  # strong ETag or Last-Modified; may be empty
    sha256: str | None
    url: str = ""  # any text that is the same for the same file

    @property
    def recognisable(self) -> bool:
        """Whether two visits can tell that the file is still the same."""
        return bool(self.validator or self.sha256)


class Journal:
    """The blocks of one partial file. Blocks may be marked from several threads.

    Marks are written to the file, not mapped into memory: where the disk is full, a write raises OSError, and a store
    into mapped memory ends the process (SIGBUS, on file systems that copy on write).
    """

    def __init__(self, path: Path, known: Known, *, resume: bool = True) -> None:
        self.path, self.known = path, known
        self.blocks = -(-known.size // BLOCK)
        self._lock = threading.Lock()
        self._marks = bytearray(self.blocks)
        self.resumed = resume and self._matches()
        if not self.resumed:
            self._create()
        self._file = path.open("r+b", buffering=0)
        if self.resumed:
            self._load()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *exc: object) -> None:
        self._file.close()

    def _matches(self) -> bool:
        """Whether the journal on disk is about this very file, and whole."""
        head = read_head(self.path)
        wanted = {"size": self.known.size, "block": BLOCK, "schema_version": SCHEMA_VERSION, "url": self._url()}
        if head is None or any(head.get(key) != value for key, value in wanted.items()):
            return False
        if self.path.stat().st_size != _HEAD + self.blocks or not self.known.recognisable:
            return False
        same = {key: head.get(key) == getattr(self.known, key) for key in ("validator", "sha256")}
        return bool(same["validator"] if self.known.validator else same["sha256"])

    def _create(self) -> None:
        head = {
            "schema_version": SCHEMA_VERSION, "size": self.known.size, "validator": self.known.validator[:256],
            "sha256": self.known.sha256, "block": BLOCK, "boot": psutil.boot_time(), "url": self._url(),
        }  # fmt: skip
        line = json.dumps(head).encode("utf-8").ljust(_HEAD - 1) + b"\n"
        self.path.write_bytes(line + self._marks)

    def _url(self) -> str:
        return hashlib.sha256(self.known.url.encode("utf-8", "replace")).hexdigest()

    def _load(self) -> None:
        """Take over the marks on disk; after a restart of the machine only those of blocks that were synced."""
        self._file.seek(_HEAD)
        marks = self._file.read(self.blocks)
        least = _WRITTEN if self._same_boot() else _SYNCED
        for index, mark in enumerate(marks):
            self._marks[index] = mark if least <= mark <= _SYNCED else _ABSENT
        if least == _SYNCED:
            self._file.close()
            self._create()  # with this boot's time
            self._file = self.path.open("r+b", buffering=0)

    def _same_boot(self) -> bool:
        boot = (read_head(self.path) or {}).get("boot")
        return isinstance(boot, int | float) and abs(boot - psutil.boot_time()) < _CLOCK_SECONDS

    def mark(self, index: int) -> None:
        """A block's bytes have been written. Raises OSError."""
        with self._lock:
            self._file.seek(_HEAD + index)
            write_all(self._file.write, bytes([_WRITTEN]))
            self._marks[index] = _WRITTEN

    def has(self, index: int) -> bool:
        """Whether a block is there."""
        return self._marks[index] != _ABSENT

    @property
    def there(self) -> int:
        """Bytes that are there."""
        full = self.blocks - self._marks.count(_ABSENT)
        last = self.known.size - (self.blocks - 1) * BLOCK
        return full * BLOCK - (BLOCK - last if self.blocks and self._marks[-1] != _ABSENT else 0)

    def missing(self, longest: int) -> Iterator[tuple[int, int]]:
        """Ranges of bytes (begin, end) that are absent, in order, none longer than `longest` (whole blocks)."""
        span = max(1, longest // BLOCK)
        index = 0
        while index < self.blocks:
            if self.has(index):
                index += 1
                continue
            first = index
            while index < self.blocks and not self.has(index) and index - first < span:
                index += 1
            yield first * BLOCK, min(index * BLOCK, self.known.size)

    def sync(self, file: IO[bytes]) -> None:
        """Put what was written on the disk, and then mark it so. Raises OSError.

        Where the system fails to, it may have dropped the bytes and reports that only once: they are absent then.
        """
        with self._lock:
            written = [index for index, mark in enumerate(self._marks) if mark == _WRITTEN]
        try:
            os.fsync(file.fileno())
        except OSError:
            self._change(written, _ABSENT)
            raise
        self._change(written, _SYNCED)
        os.fsync(self._file.fileno())

    def _change(self, indices: Sequence[int], mark: int) -> None:
        with self._lock:
            for index in indices:
                self._marks[index] = mark
            self._file.seek(_HEAD)
            write_all(self._file.write, bytes(self._marks))


def read_head(path: Path) -> dict[str, Any] | None:
    """What a journal says its file is; None where it is no journal."""
    try:
        head = parse_json(read_bytes(path, _MAX_BYTES)[:_HEAD], path.name)
    except ReeltuneError:
        return None
    return head if isinstance(head, dict) else None


def bytes_in(path: Path) -> int:
    """Bytes that a journal on disk vouches for; 0 where there is none."""
    head = read_head(path)
    if head is None or not isinstance(head.get("size"), int) or head.get("block") != BLOCK:
        return 0
    try:
        marks = read_bytes(path, _MAX_BYTES)[_HEAD:]
    except FileError:  # the download has finished meanwhile
        return 0
    return min(int(head["size"]), (len(marks) - marks.count(_ABSENT)) * BLOCK)
