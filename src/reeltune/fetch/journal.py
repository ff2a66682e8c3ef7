"""What of a half-fetched file is there: a small file beside it that survives kill -9 and power loss.

Layout: one line of JSON padded to `_HEAD` bytes (what the file was known by), then one byte for each block of
`BLOCK` bytes: 0 absent, 1 written, 2 on the disk for certain. The bytes are memory-mapped, so a killed process
loses at most the blocks it was in the middle of; after a restart of the machine only 2 counts.
"""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import psutil

BLOCK = 256 * 1024
SCHEMA_VERSION = 1
_HEAD = 1024
_ABSENT, _WRITTEN, _SYNCED = 0, 1, 2
_CLOCK_SECONDS = 5  # the boot time the system tells wavers with its clock


@dataclass(frozen=True)
class Known:
    """By what a file is known again: its size in bytes, what the server calls this state of it, its sum."""

    size: int
    validator: str  # strong ETag or Last-Modified; may be empty
    sha256: str | None

    @property
    def recognisable(self) -> bool:
        """Whether two visits can tell that the file is still the same."""
        return bool(self.validator or self.sha256)


class Journal:
    """The blocks of one partial file. Blocks may be marked from several threads."""

    def __init__(self, path: Path, known: Known, *, resume: bool = True) -> None:
        self.path, self.known = path, known
        self.blocks = -(-known.size // BLOCK)
        self.resumed = resume and self._matches()
        if not self.resumed:
            self._create()
        self._file = path.open("r+b")
        self._map = mmap.mmap(self._file.fileno(), _HEAD + self.blocks)
        if self.resumed and not self._same_boot():
            self._distrust()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *exc: object) -> None:
        self._map.close()
        self._file.close()

    def _matches(self) -> bool:
        """Whether the journal on disk is about this very file, and whole."""
        head = read_head(self.path)
        wanted = {"size": self.known.size, "block": BLOCK, "schema_version": SCHEMA_VERSION}
        if head is None or any(head.get(key) != value for key, value in wanted.items()):
            return False
        if self.path.stat().st_size != _HEAD + self.blocks or not self.known.recognisable:
            return False
        same = {key: head.get(key) == getattr(self.known, key) for key in ("validator", "sha256")}
        return bool(same["validator"] if self.known.validator else same["sha256"])

    def _create(self) -> None:
        head = {
            "schema_version": SCHEMA_VERSION, "size": self.known.size, "validator": self.known.validator[:256],
            "sha256": self.known.sha256, "block": BLOCK, "boot": psutil.boot_time(),
        }  # fmt: skip
        line = json.dumps(head).encode("utf-8").ljust(_HEAD - 1) + b"\n"
        self.path.write_bytes(line + bytes(self.blocks))

    def _same_boot(self) -> bool:
        head = read_head(self.path) or {}
        return abs(float(head.get("boot", 0)) - psutil.boot_time()) < _CLOCK_SECONDS

    def _distrust(self) -> None:
        """After a restart: forget what was not certainly on the disk."""
        certain = [index for index in range(self.blocks) if self._map[_HEAD + index] == _SYNCED]
        self._map.close()
        self._file.close()
        self._create()
        self._file = self.path.open("r+b")
        self._map = mmap.mmap(self._file.fileno(), _HEAD + self.blocks)
        for index in certain:
            self._map[_HEAD + index] = _SYNCED

    def mark(self, index: int) -> None:
        """A block's bytes have been written."""
        self._map[_HEAD + index] = _WRITTEN

    def has(self, index: int) -> bool:
        """Whether a block is there."""
        return self._map[_HEAD + index] != _ABSENT

    @property
    def there(self) -> int:
        """Bytes that are there."""
        marks = self._map[_HEAD:]
        full = self.blocks - marks.count(_ABSENT)
        last = self.known.size - (self.blocks - 1) * BLOCK
        return full * BLOCK - (BLOCK - last if self.blocks and marks[-1] != _ABSENT else 0)

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
        """Put what was written on the disk, and then say so."""
        written = [index for index in range(self.blocks) if self._map[_HEAD + index] == _WRITTEN]
        os.fsync(file.fileno())
        for index in written:
            self._map[_HEAD + index] = _SYNCED
        self._map.flush()


def read_head(path: Path) -> dict[str, Any] | None:
    """What a journal says its file is; None where it is no journal."""
    try:
        with path.open("rb") as file:
            head = json.loads(file.read(_HEAD))
    except (OSError, ValueError, RecursionError):
        return None
    return head if isinstance(head, dict) else None


def bytes_in(path: Path) -> int:
    """Bytes that a journal on disk vouches for; 0 where there is none."""
    head = read_head(path)
    if head is None or not isinstance(head.get("size"), int) or head.get("block") != BLOCK:
        return 0
    try:
        marks = path.read_bytes()[_HEAD:]
    except OSError:  # the download has finished meanwhile
        return 0
    return min(int(head["size"]), (len(marks) - marks.count(_ABSENT)) * BLOCK)
