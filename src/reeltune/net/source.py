"""Reading the header of a remote weight file with Range requests."""

from __future__ import annotations

import time
from typing import Self

from reeltune.errors import FetchError, Unreachable
from reeltune.events import CancelToken
from reeltune.net.session import Session, chunks, header_number, is_compressed
from reeltune.net.urls import shown
from reeltune.net.waiting import run_within

_FIRST_READ = 512 * 1024  # the headers of published 14B files fit, so that one request is enough
HEADER_SECONDS = 60.0  # for all requests for one file


class UrlSource:
    """A remote file whose header is read with Range requests, without downloading the file.

    The first request reads the file's size and its first 512 KiB, from which later reads are served. `session`: whose
    connections and tokens to use; it is not closed. `seconds`: the time limit for all requests together.
    """

    def __init__(
        self,
        url: str,
        session: Session | None = None,
        *,
        seconds: float = HEADER_SECONDS,
        cancel: CancelToken | None = None,
    ) -> None:
        self._url = url
        self._owns_session = session is None
        self._session = session or Session()
        self._seconds = seconds
        self._cancel = cancel
        self._deadline: float | None = None
        self._start = b""
        self._size: int | None = None
        self.requests = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._start = b""
        if self._owns_session:
            self._session.__exit__()

    @property
    def name(self) -> str:
        """The URL without secrets, for messages."""
        return shown(self._url)

    def size(self) -> int:
        """Length in bytes, as the server reports it. Raises FetchError if it doesn't."""
        if self._size is None:
            self._start = self._fetch(0, _FIRST_READ)
        if self._size is None:
            raise FetchError(f"{self.name}: the server does not report the file's size.")
        return self._size

    def read_at(self, offset: int, length: int) -> bytes:
        """`length` bytes from `offset`, or fewer at the end of the file."""
        if offset + length <= len(self._start) or len(self._start) == self.size():
            return self._start[offset : offset + length]
        return self._fetch(offset, length)

    def _fetch(self, offset: int, length: int) -> bytes:
        if self._deadline is None:
            self._deadline = time.monotonic() + self._seconds
        seconds_left = self._deadline - time.monotonic()
        if seconds_left <= 0:
            message = f"{self.name}: the header could not be read within {self._seconds:.0f} s."
            raise Unreachable(message, hint="Try again later.")
        self.requests += 1
        stop = self._session.interrupt
        return run_within(
            seconds_left, lambda: self._read(offset, length), stop=stop, name=self.name, cancel=self._cancel
        )

    def _read(self, offset: int, length: int) -> bytes:
        with self._session.get(self._url, first=offset, last=offset + length - 1) as response:
            if response.status_code == 206:
                total = header_number(response.headers.get("Content-Range", "").rpartition("/")[2])
                skip = 0
            else:  # the server ignores Range and sends the file from its start
                total = None if is_compressed(response) else header_number(response.headers.get("Content-Length", ""))
                skip = offset
            if total is not None:
                self._size = total
            received = bytearray()
            for chunk in chunks(response):
                received += chunk
                if len(received) >= skip + length:
                    break
            return bytes(received[skip : skip + length])
