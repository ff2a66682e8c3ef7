"""The state of a partial download: a small file beside it that survives `kill -9` and power loss.

Layout: one line of JSON padded to `_HEAD_BYTES` (the state of the file on the server), then one byte for each block of
`BLOCK` bytes: 0 absent, 1 written, 2 synced to the disk. A killed process loses at most the blocks that it was writing;
after a restart of the machine only synced blocks count.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import psutil

from reeltune.errors import FileError, ReeltuneError
from reeltune.files import read_bytes, write_all
from reeltune.untrusted import JsonObject, parse_json

BLOCK = 256 * 1024
SCHEMA_VERSION = 2
_HEAD_BYTES = 1024
_MAX_VALIDATOR_LENGTH = 256
_ABSENT = 0
_WRITTEN = 1
_SYNCED = 2
_MAX_BYTES = 64_000_000  # the marks of a file of 16 TB
_CLOCK_SECONDS = 5  # the boot time that the system reports varies with corrections of its clock


@dataclass(frozen=True)
class FileState:
    """The state of a file on a server, by which a partial download of it is recognized.

    `size` in bytes. `validator`: the strong ETag or Last-Modified; may be empty. `url`: any text that is equal for
    equal files. It is needed because servers may give different files the same ETag (made from size and date).
    """

    size: int
    validator: str
    sha256: str | None
    url: str = ""

    @property
    def can_be_resumed(self) -> bool:
        """Whether a later request can tell that the file hasn't changed."""
        return bool(self.validator or self.sha256)


class Journal:
    """Which blocks of a partial download are present. Blocks may be marked from several threads.

    Marks are written to the file and not mapped into memory: on a full disk a write raises OSError, but a store into
    mapped memory ends the process (SIGBUS, on copy-on-write file systems).
    """

    def __init__(self, path: Path, state: FileState, *, resume: bool = True) -> None:
        self.path = path
        self.state = state
        self.blocks = -(-state.size // BLOCK)
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
        """Whether the journal on disk is complete and belongs to this state of the file."""
        head = read_head(self.path)
        if head is None or not self.state.can_be_resumed:
            return False
        expected = {"size": self.state.size, "block": BLOCK, "schema_version": SCHEMA_VERSION, "url": self._url()}
        if any(head.get(key) != value for key, value in expected.items()):
            return False
        if self.path.stat().st_size != _HEAD_BYTES + self.blocks:
            return False
        if self.state.validator:
            return bool(head.get("validator") == self.state.validator)
        return bool(head.get("sha256") == self.state.sha256)

    def _create(self) -> None:
        head = {
            "schema_version": SCHEMA_VERSION,
            "size": self.state.size,
            "validator": self.state.validator[:_MAX_VALIDATOR_LENGTH],
            "sha256": self.state.sha256,
            "block": BLOCK,
            "boot": psutil.boot_time(),
            "url": self._url(),
        }
        line = json.dumps(head).encode("utf-8").ljust(_HEAD_BYTES - 1) + b"\n"
        self.path.write_bytes(line + self._marks)

    def _url(self) -> str:
        return hashlib.sha256(self.state.url.encode("utf-8", "replace")).hexdigest()

    def _load(self) -> None:
        """Read the marks on disk; after a restart of the machine only those of synced blocks."""
        self._file.seek(_HEAD_BYTES)
        marks = self._file.read(self.blocks)
        same_boot = self._is_same_boot()
        accepted = (_WRITTEN, _SYNCED) if same_boot else (_SYNCED,)
        for index, mark in enumerate(marks):
            self._marks[index] = mark if mark in accepted else _ABSENT
        if not same_boot:
            self._file.close()
            self._create()  # with the new boot time
            self._file = self.path.open("r+b", buffering=0)

    def _is_same_boot(self) -> bool:
        head = read_head(self.path) or {}
        boot = head.get("boot")
        return isinstance(boot, int | float) and abs(boot - psutil.boot_time()) < _CLOCK_SECONDS

    def mark(self, index: int) -> None:
        """Mark a block as written. Raises OSError."""
        with self._lock:
            self._file.seek(_HEAD_BYTES + index)
            write_all(self._file.write, bytes([_WRITTEN]))
            self._marks[index] = _WRITTEN

    def has_block(self, index: int) -> bool:
        """Whether a block is present."""
        return self._marks[index] != _ABSENT

    @property
    def bytes_present(self) -> int:
        """The number of bytes that are present."""
        count = (self.blocks - self._marks.count(_ABSENT)) * BLOCK
        if self.blocks and self.has_block(self.blocks - 1):
            count -= self.blocks * BLOCK - self.state.size  # the last block may be shorter
        return count

    def missing_ranges(self, max_bytes: int) -> Iterator[tuple[int, int]]:
        """Ranges of absent bytes (begin, end), in order, of whole blocks and about `max_bytes` at most."""
        max_blocks = max(1, max_bytes // BLOCK)
        index = 0
        while index < self.blocks:
            if self.has_block(index):
                index += 1
                continue
            first = index
            while index < self.blocks and not self.has_block(index) and index - first < max_blocks:
                index += 1
            yield first * BLOCK, min(index * BLOCK, self.state.size)

    def sync(self, file: IO[bytes]) -> None:
        """Write everything to the disk, and then mark it as synced. Raises OSError.

        If the system fails to do so, it may have dropped the bytes and reports that only once: they count as absent.
        """
        with self._lock:
            written = [index for index, mark in enumerate(self._marks) if mark == _WRITTEN]
        try:
            os.fsync(file.fileno())
        except OSError:
            self._set_marks(written, _ABSENT)
            raise
        self._set_marks(written, _SYNCED)
        os.fsync(self._file.fileno())

    def _set_marks(self, indices: Sequence[int], mark: int) -> None:
        with self._lock:
            for index in indices:
                self._marks[index] = mark
            self._file.seek(_HEAD_BYTES)
            write_all(self._file.write, bytes(self._marks))


def read_head(path: Path) -> JsonObject | None:
    """The JSON object at the start of a journal; None if the file is not a journal."""
    try:
        head = parse_json(read_bytes(path, _MAX_BYTES)[:_HEAD_BYTES], path.name)
    except ReeltuneError:
        return None
    return head if isinstance(head, dict) else None


def bytes_recorded(path: Path) -> int:
    """The number of bytes that the journal at `path` records as present; 0 if there is no journal."""
    head = read_head(path)
    if head is None or not isinstance(head.get("size"), int) or head.get("block") != BLOCK:
        return 0
    try:
        marks = read_bytes(path, _MAX_BYTES)[_HEAD_BYTES:]
    except FileError:  # the download has finished in the meantime
        return 0
    present = len(marks) - marks.count(_ABSENT)
    return min(int(head["size"]), present * BLOCK)
