"""A remote file as a source of header bytes."""

from __future__ import annotations

import time
from typing import Self

from reeltune.errors import FetchError, Unreachable
from reeltune.events import CancelToken
from reeltune.net.session import Session, chunks, encoded, natural
from reeltune.net.urls import shown
from reeltune.net.waiting import within

_FIRST_READ = 512 * 1024  # covers the header of every 14B file seen, so that one request is enough
HEADER_SECONDS = 60.0  # for all that is read of a file


class UrlSource:
    """A remote file as a header source: reads by Range requests, never the whole body, and not without end.

    The first request takes the start of the file and its size; what it brought serves later reads. With a `session`
    its connections and tokens are used, and it stays open.
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
        self._own = session is None
        self._session = session or Session()
        self._seconds = seconds
        self._cancel = cancel
        self._end: float | None = None
        self._start = b""
        self._size: int | None = None
        self.requests = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._start = b""
        if self._own:
            self._session.__exit__()

    @property
    def name(self) -> str:
        """The URL, without anything secret."""
        return shown(self._url)

    def size(self) -> int:
        """Length in bytes, as the server announces it."""
        if self._size is None:
            self._start = self._fetch(0, _FIRST_READ)
        if self._size is None:
            raise FetchError(f"{self.name}: the server does not report the file's size.")
        return self._size

    def read_at(self, offset: int, length: int) -> bytes:
        """Exactly `length` bytes from `offset`, or fewer at the end."""
        if offset + length <= len(self._start) or len(self._start) == self.size():
            return self._start[offset : offset + length]
        return self._fetch(offset, length)

    def _fetch(self, offset: int, length: int) -> bytes:
        self._end = self._end or time.monotonic() + self._seconds
        left = self._end - time.monotonic()
        if left <= 0:
            raise Unreachable(f"{self.name}: its header takes too long.", hint="Try again later.")
        self.requests += 1
        stop = self._session.interrupt
        return within(left, lambda: self._read(offset, length), stop=stop, what=self.name, cancel=self._cancel)

    def _read(self, offset: int, length: int) -> bytes:
        with self._session.get(self._url, first=offset, last=offset + length - 1) as response:
            if response.status_code == 206:
                total = natural(response.headers.get("Content-Range", "").rpartition("/")[2])
                skip = 0
            else:  # the server ignores Range: read from the start, and no further than needed
                total = None if encoded(response) else natural(response.headers.get("Content-Length", ""))
                skip = offset
            self._size = total if total is not None else self._size
            received = bytearray()
            for chunk in chunks(response):
                received += chunk
                if len(received) >= skip + length:
                    break
            return bytes(received[skip : skip + length])
