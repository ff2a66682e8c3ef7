"""Reading a header whose length isn't known before it was read: from its start, in growing pieces, up to a limit."""

from __future__ import annotations

import struct

from reeltune.checkpoints.contents import Source
from reeltune.errors import HeaderError

MAX_HEADER_BYTES = 100_000_000
AGAIN = "Download it again."
_FIRST_READ = 512 * 1024  # what the first request for a remote file returns
_LARGEST_READ = 16 * 1024 * 1024


class PieceReader:
    """Reads a source from its start in growing pieces, each only when it is needed."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._size = source.size()
        self._piece = b""
        self._piece_start = 0
        self._next_read = _FIRST_READ
        self.position = 0

    @property
    def name(self) -> str:
        """What to call the source in messages."""
        return self._source.name

    @property
    def size(self) -> int:
        """Length of the source in bytes."""
        return self._size

    def skip(self, length: int) -> None:
        """Go on by a number of bytes. Raises HeaderError where the header would end after the file, or be too long."""
        end = self.position + length
        if end > self._size:
            message = f"{self.name} is truncated inside its header: it holds {self._size:,} bytes."
            raise HeaderError(message, hint=AGAIN)
        if end > MAX_HEADER_BYTES:
            raise HeaderError(f"{self.name}: the header is longer than {MAX_HEADER_BYTES:,} bytes.")
        self.position = end

    def take(self, length: int) -> bytes:
        """The next bytes. Raises HeaderError."""
        begin = self.position
        self.skip(length)
        if begin < self._piece_start or self.position > self._piece_start + len(self._piece):
            count = max(length, min(self._next_read, self._size - begin))
            self._next_read = min(2 * self._next_read, _LARGEST_READ)
            self._piece = self._source.read_at(begin, count)
            self._piece_start = begin
        offset = begin - self._piece_start
        raw = self._piece[offset : offset + length]
        if len(raw) != length:
            raise HeaderError(f"{self.name} ends inside its header.", hint=AGAIN)
        return raw

    def number(self, kind: str) -> int:
        """The next number, an integer of a format of `struct`."""
        (value,) = struct.unpack(kind, self.take(struct.calcsize(kind)))
        return int(value)

    def text(self, most_bytes: int, what: str) -> bytes:
        """The next string as bytes. Raises HeaderError where it is longer than `most_bytes`."""
        length = self.number("<Q")
        if length > most_bytes:
            raise HeaderError(f"{self.name}: {what} is impossibly long: {length:,} bytes.", hint=AGAIN)
        return self.take(length)
