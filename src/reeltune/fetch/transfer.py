"""The transfer of one file: ranges are downloaded in parallel into a partial file, resumed by its journal, and hashed.

If the server supports ranges, the file is divided into pieces that a few threads download in order. Another thread
follows and hashes the complete blocks, so that verifying the file doesn't need to read it again. Other files are
downloaded in one stream.
"""

from __future__ import annotations

import hashlib
import os
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from reeltune.errors import BadDownload, FetchError, NotEnoughDisk, Unreachable
from reeltune.events import CancelToken
from reeltune.fetch.hashing import Hasher
from reeltune.fetch.remote import RemoteFile, total_size
from reeltune.files import write_all
from reeltune.library.journal import BLOCK, FileState, Journal
from reeltune.machine import free_disk
from reeltune.net import Session, chunks, file_key, run_within, shown

if TYPE_CHECKING:
    import httpx

MAX_UNANNOUNCED_BYTES = 200_000_000_000  # of a file whose size the server doesn't announce
_MIN_PIECE_BYTES = 8 * 1024 * 1024
_MAX_PIECE_BYTES = 64 * 1024 * 1024
_ATTEMPTS = 8  # in a row, without receiving a byte
_MAX_PAUSE_SECONDS = 30.0
_SYNC_SECONDS = 1.0
_TICK_SECONDS = 0.1
_SOCKET_READ_BYTES = BLOCK
_DISK_CHECK_BYTES = 16 * 1024 * 1024  # received between two checks of the free disk space
_DISK_RESERVE_BYTES = 500_000_000  # kept free by a download of unknown size
Report = Callable[[int, int | None], None]


class RemoteChanged(FetchError):
    """The file on the server has changed since the download began."""


@dataclass
class RateLimit:
    """A limit on the rate of all connections together. `rate`: bytes per second, 0 for no limit."""

    rate: float = 0.0

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._free_at = 0.0

    def wait_for(self, count: int, stop: threading.Event) -> None:
        """Wait until `count` bytes fit within the rate, or until `stop` is set."""
        if not self.rate:
            return
        with self._lock:
            self._free_at = max(self._free_at, time.monotonic()) + count / self.rate
            pause = self._free_at - time.monotonic()
        if pause > 0:
            stop.wait(pause)


def pause_after(failures: int, retry_after: float | None) -> float:
    """Seconds to wait before the next attempt: `retry_after` if the server asks for it, else exponential backoff."""
    if retry_after is not None:
        return min(retry_after, _MAX_PAUSE_SECONDS)
    return min(_MAX_PAUSE_SECONDS, 0.25 * 2.0**failures) * random.uniform(0.5, 1.0)


class Transfer:
    """The transfer of one file into `partial`.

    `max_bytes`: limit for a file whose size the server doesn't announce. `origin`: the URL under which the file is
    recorded, by default the URL that it is downloaded from.
    """

    def __init__(
        self,
        session: Session,
        remote: RemoteFile,
        partial: Path,
        *,
        connections: int,
        rate_limit: RateLimit,
        max_bytes: int = MAX_UNANNOUNCED_BYTES,
        origin: str = "",
    ) -> None:
        self._session = session
        self._remote = remote
        self._partial = partial
        self._connections = connections
        self._rate_limit = rate_limit
        self._max_bytes = max_bytes
        self._origin = origin or remote.url
        self._url = shown(remote.url)
        self._stop = threading.Event()
        self._received = 0
        self._announced: int | None = None  # size of a file that is downloaded in one stream
        self._lock = threading.Lock()

    def run(self, journal_path: Path, report: Report, cancel: CancelToken) -> str:
        """Download what is missing and return the sha256 of the file.

        Bytes that were received before an error are kept if they can be used by another attempt. Raises FetchError and
        its subclasses, Cancelled, OSError.
        """
        remote = self._remote
        if not remote.ranges or remote.size is None:
            return self._run_stream(report, cancel)
        state = FileState(remote.size, remote.validator, remote.sha256, file_key(self._origin))
        # without the partial file at its full size, the journal means nothing
        resume = self._partial.is_file() and self._partial.stat().st_size == state.size
        with Journal(journal_path, state, resume=resume) as journal:
            mode = "r+b" if journal.resumed else "w+b"
            with self._partial.open(mode) as file:
                file.truncate(state.size)
                try:
                    return self._run_pieces(journal, file, report, cancel)
                finally:
                    journal.sync(file)

    # --- pieces -------------------------------------------------------------------------------------------

    def _run_pieces(self, journal: Journal, file: IO[bytes], report: Report, cancel: CancelToken) -> str:
        size = journal.state.size
        piece_bytes = max(_MIN_PIECE_BYTES, size // (4 * self._connections))
        piece_bytes = min(_MAX_PIECE_BYTES, piece_bytes)
        self._received = journal.bytes_present
        hasher = Hasher(self._partial, journal, self._stop)
        hasher.start()
        try:
            with ThreadPoolExecutor(self._connections, "download") as pool:
                ranges = list(journal.missing_ranges(piece_bytes))
                pieces = [pool.submit(self._download_piece, journal, begin, end) for begin, end in ranges]
                try:
                    self._wait_for_pieces(pieces, report, cancel, journal, file)
                except BaseException:
                    self._abort(pieces)
                    raise
            report(size, size)
            return hasher.digest()
        finally:
            self._stop.set()
            hasher.join()

    def _abort(self, pieces: list[Future[None]]) -> None:
        """Stop all threads, including those that wait for bytes."""
        for piece in pieces:
            piece.cancel()
        self._interrupt()

    def _interrupt(self) -> None:
        self._stop.set()
        self._session.interrupt()

    def _wait_for_pieces(
        self, pieces: list[Future[None]], report: Report, cancel: CancelToken, journal: Journal, file: IO[bytes]
    ) -> None:
        """Wait until all pieces are downloaded; meanwhile report progress and sync the file."""
        size = journal.state.size
        last_sync = time.monotonic()
        waiting = set(pieces)
        while waiting:
            done, waiting = wait(waiting, _TICK_SECONDS, FIRST_EXCEPTION)
            for piece in done:
                piece.result()
            cancel.check()
            report(min(self._received, size), size)
            if time.monotonic() - last_sync > _SYNC_SECONDS:
                journal.sync(file)
                last_sync = time.monotonic()

    def _download_piece(self, journal: Journal, begin: int, end: int) -> None:
        """Download the bytes from `begin` to `end`, continuing after broken connections."""
        position = begin
        failures = 0
        with self._partial.open("r+b", buffering=0) as file:
            while position < end and not self._stop.is_set():
                start = position
                try:
                    position = self._download_range(journal, file, position, end)
                    if position == start and not self._stop.is_set():
                        raise Unreachable(f"{self._url} sends no bytes.", hint="Try again later.")
                except _ConnectionBroken as error:
                    position = error.position
                    failures = 0 if position > start else failures + 1
                    self._pause(failures, error.cause)
                except Unreachable as error:
                    failures += 1
                    self._pause(failures, error)

    def _pause(self, failures: int, error: Unreachable) -> None:
        """Wait before the next attempt; raise `error` after too many failures."""
        if failures >= _ATTEMPTS:
            raise error
        self._stop.wait(pause_after(failures, error.retry_after))

    def _download_range(self, journal: Journal, file: IO[bytes], position: int, end: int) -> int:
        """Make one request; return the position reached. Raises _ConnectionBroken with the position."""
        state = journal.state
        with self._session.get(self._remote.url, first=position, last=end - 1, if_range=state.validator) as response:
            self._check_range(response, state, position)
            file.seek(position)
            _use_large_reads(response)
            try:
                for chunk in chunks(response):
                    data = chunk[: end - position]
                    write_all(file.write, data)
                    _mark_blocks(journal, position, position + len(data))  # only after all of it is written
                    position += len(data)
                    with self._lock:
                        self._received += len(data)
                    self._rate_limit.wait_for(len(data), self._stop)
                    if self._stop.is_set() or position == end:
                        return position
            except OSError:  # of the local disk
                raise
            except Exception as error:
                raise _ConnectionBroken(position, _as_unreachable(error, self._remote.url)) from error
        if position < end:
            cause = Unreachable(f"{self._url} closed the connection too early.", hint="Try again later.")
            raise _ConnectionBroken(position, cause)
        return position

    def _check_range(self, response: httpx.Response, state: FileState, position: int) -> None:
        """Raise RemoteChanged if the file has changed, and BadDownload if another range is sent."""
        is_range = response.status_code == 206 and total_size(response) == state.size
        if is_range and not response.headers.get("Content-Range", "").startswith(f"bytes {position}-"):
            raise BadDownload(f"{self._url} sends other bytes than requested.")
        if not is_range or not _has_validator(response, state.validator):
            raise RemoteChanged(f"{self._url} has changed on the server.", hint="Try again.")

    # --- one stream ---------------------------------------------------------------------------------------

    def _run_stream(self, report: Report, cancel: CancelToken) -> str:
        def report_progress() -> None:
            report(self._received, self._announced)

        work = self._stream_with_retries
        digest = run_within(None, work, stop=self._interrupt, name=self._url, cancel=cancel, tick=report_progress)
        report_progress()
        return digest

    def _stream_with_retries(self) -> str:
        failures = 0
        while True:
            try:
                return self._stream()
            except Unreachable as error:
                failures += 1
                self._pause(failures, error)
                if self._stop.is_set():
                    raise

    def _stream(self) -> str:
        """Download the whole file with one request, so that all bytes belong to one state of it."""
        digest = hashlib.sha256()
        self._received = 0
        next_disk_check = 0
        with self._session.get(self._remote.url) as response, self._partial.open("wb") as file:
            self._announced = total_size(response)
            for chunk in chunks(response):
                if self._stop.is_set():
                    raise Unreachable(f"{self._url} was stopped.")
                if self._announced is None and self._received + len(chunk) > next_disk_check:
                    next_disk_check = self._received + len(chunk) + _DISK_CHECK_BYTES
                    self._check_room(next_disk_check)
                file.write(chunk)
                digest.update(chunk)
                self._received += len(chunk)
                self._rate_limit.wait_for(len(chunk), self._stop)
            file.flush()
            os.fsync(file.fileno())
        if self._announced is not None and self._received != self._announced:
            message = f"{self._url}: received {self._received:,} of {self._announced:,} bytes."
            raise Unreachable(message, hint="Try again later.")
        return digest.hexdigest()

    def _check_room(self, size: int) -> None:
        """Raise BadDownload or NotEnoughDisk unless a file of unknown size may grow to `size` bytes."""
        if size > self._max_bytes + _DISK_CHECK_BYTES:
            message = f"{self._url} sends more than {self._max_bytes:,} bytes without announcing a size."
            raise BadDownload(message, hint="Check what the URL serves.")
        free = free_disk(self._partial.parent)
        if free < _DISK_RESERVE_BYTES:
            message = f"{self._url} doesn't announce a size, and the disk of {self._partial.parent} has {free:,} free."
            raise NotEnoughDisk(message, hint="Free some disk space, or choose another root.")


def _mark_blocks(journal: Journal, begin: int, end: int) -> None:
    """Mark the blocks that end between the positions `begin` and `end`. Raises OSError."""
    for index in range(begin // BLOCK, end // BLOCK):
        journal.mark(index)
    if end == journal.state.size:
        journal.mark(journal.blocks - 1)  # may be shorter than a block


def _has_validator(response: httpx.Response, expected: str) -> bool:
    """Whether the ETag or Last-Modified of a partial response is the expected one (RFC 9110, 15.3.7)."""
    if not expected:
        return True  # the sha256 is verified at the end
    if expected.startswith('"'):
        return bool(response.headers.get("ETag", "") == expected)
    return bool(response.headers.get("Last-Modified", expected) == expected)


def _use_large_reads(response: httpx.Response) -> None:
    """Make a connection read up to 256 KB at once: httpcore reads 64 KB, and every read makes threads wait."""
    stream = response.extensions.get("network_stream")
    if stream is None or hasattr(stream, "uses_large_reads"):
        return
    read = stream.read

    def read_more(max_bytes: int, timeout: float | None = None) -> bytes:
        data: bytes = read(max(max_bytes, _SOCKET_READ_BYTES), timeout)
        return data

    stream.read = read_more
    stream.uses_large_reads = True  # connections are reused


class _ConnectionBroken(Exception):
    """A connection broke at `position`."""

    def __init__(self, position: int, cause: Unreachable) -> None:
        super().__init__(str(cause))
        self.position = position
        self.cause = cause


def _as_unreachable(error: Exception, url: str) -> Unreachable:
    """The error of a broken connection as Unreachable; any other error is raised again."""
    if isinstance(error, Unreachable):
        return error
    import httpx

    if isinstance(error, httpx.HTTPError):
        message = f"The connection to {shown(url)} broke: {type(error).__name__}."
        return Unreachable(message, hint="Check the network.")
    raise error
