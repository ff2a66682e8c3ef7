"""The bytes of one file: ranges side by side into a partial file, resumed by its journal, summed on the way.

A file whose server takes ranges is cut into pieces, fetched in order by a few threads; another thread follows and
sums what is complete, so that a verified file costs no second reading. Other files come in one stream.
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
from reeltune.fetch.remote import Remote, total_size
from reeltune.files import write_all
from reeltune.library.journal import BLOCK, Journal, Known
from reeltune.machine import free_disk
from reeltune.net import Session, chunks, file_key, run_within, shown

if TYPE_CHECKING:
    import httpx

_PIECE = (8 * 1024 * 1024, 64 * 1024 * 1024)  # bytes, least and most
_ATTEMPTS = 8  # in a row without a single byte
_LONGEST_PAUSE = 30.0
_SYNC_SECONDS = 1.0
_TICK_SECONDS = 0.1
_READ = 16 * BLOCK
_READ_SOCKET = BLOCK
MOST_BYTES = 200_000_000_000  # of a body without an announced length
_CHECK_EVERY = 16 * 1024 * 1024  # bytes, between two looks at the disk
_RESERVE = 500_000_000  # bytes that such a body leaves free
Report = Callable[[int, int | None], None]


class Changed(FetchError):
    """The file on the server is not the one that was begun."""


@dataclass
class Pace:
    """A limit that all connections share: `rate` in bytes a second, 0 for none."""

    rate: float = 0.0

    def __post_init__(self) -> None:
        self._lock, self._free_at = threading.Lock(), 0.0

    def take(self, count: int, stop: threading.Event) -> None:
        """Wait until `count` more bytes may have come."""
        if not self.rate:
            return
        with self._lock:
            self._free_at = max(self._free_at, time.monotonic()) + count / self.rate
            pause = self._free_at - time.monotonic()
        if pause > 0:
            stop.wait(pause)


def pause_after(failures: int, asked: float | None) -> float:
    """Seconds to wait before trying again: what the server asks for, else doubling, with some chance."""
    if asked is not None:
        return min(asked, _LONGEST_PAUSE)
    return min(_LONGEST_PAUSE, 0.25 * 2.0**failures) * random.uniform(0.5, 1.0)


class Transfer:
    """One file on its way into `partial`. `run` returns its sha256; raises FetchError and its kinds, Cancelled.

    `most`: bytes, of a body whose length the server doesn't announce. `origin`: the URL the file is known by.
    """

    def __init__(
        self,
        session: Session,
        remote: Remote,
        partial: Path,
        *,
        connections: int,
        pace: Pace,
        most: int = MOST_BYTES,
        origin: str = "",
    ) -> None:
        self._session, self._remote, self._partial = session, remote, partial
        self._connections, self._pace, self._most = connections, pace, most
        self._origin = origin or remote.url
        self._stop = threading.Event()
        self._received = 0
        self._announced: int | None = None  # bytes, of a file that comes in one stream
        self._lock = threading.Lock()

    def run(self, journal_path: Path, report: Report, cancel: CancelToken) -> str:
        """Fetch what is missing. On any way out what came is kept, where it can be used again."""
        if not self._remote.ranges or self._remote.size is None:
            return self._in_one_stream(report, cancel)
        known = Known(self._remote.size, self._remote.validator, self._remote.sha256, file_key(self._origin))
        whole = self._partial.is_file() and self._partial.stat().st_size == known.size  # else its journal means nothing
        with (
            Journal(journal_path, known, resume=whole) as journal,
            self._partial.open("r+b" if journal.resumed else "w+b") as file,
        ):
            file.truncate(known.size)
            try:
                return self._in_pieces(journal, file, report, cancel)
            finally:
                journal.sync(file)

    # --- pieces -------------------------------------------------------------------------------------------

    def _in_pieces(self, journal: Journal, file: IO[bytes], report: Report, cancel: CancelToken) -> str:
        size = journal.known.size
        piece = min(_PIECE[1], max(_PIECE[0], size // (4 * self._connections)))
        self._received = journal.there
        follower = _Follower(self._partial, journal, self._stop)
        follower.start()
        try:
            with ThreadPoolExecutor(self._connections, "fetch") as pool:
                jobs = [pool.submit(self._piece, journal, *ends) for ends in journal.missing(piece)]
                try:
                    self._watch(jobs, report, cancel, journal, file)
                except BaseException:
                    self._halt(jobs)
                    raise
            report(size, size)
            return follower.digest()
        finally:
            self._stop.set()
            follower.join()

    def _halt(self, jobs: list[Future[None]]) -> None:
        """Make the threads stop now, those that wait for bytes included."""
        for job in jobs:
            job.cancel()
        self._interrupt()

    def _interrupt(self) -> None:
        self._stop.set()
        self._session.interrupt()

    def _watch(
        self, jobs: list[Future[None]], report: Report, cancel: CancelToken, journal: Journal, file: IO[bytes]
    ) -> None:
        """Wait for the pieces; report, and make what came durable, meanwhile."""
        size, synced, waiting = journal.known.size, time.monotonic(), set(jobs)
        while waiting:
            done, waiting = wait(waiting, _TICK_SECONDS, FIRST_EXCEPTION)
            for job in done:
                job.result()
            cancel.check()
            report(min(self._received, size), size)
            if time.monotonic() - synced > _SYNC_SECONDS:
                journal.sync(file)
                synced = time.monotonic()

    def _piece(self, journal: Journal, begin: int, end: int) -> None:
        """Fetch bytes `begin` to `end`, trying again from where a connection broke."""
        position, failures = begin, 0
        with self._partial.open("r+b", buffering=0) as file:
            while position < end and not self._stop.is_set():
                before = position
                try:
                    position = self._stretch(journal, file, position, end)
                    if position == before and not self._stop.is_set():
                        raise Unreachable(f"{shown(self._remote.url)} sends nothing.", hint="Try again later.")
                except _Broken as error:
                    position = error.position
                    failures = 0 if position > before else failures + 1
                    self._rest(failures, error.cause)
                except Unreachable as error:
                    failures += 1
                    self._rest(failures, error)

    def _rest(self, failures: int, error: Unreachable) -> None:
        if failures >= _ATTEMPTS:
            raise error
        self._stop.wait(pause_after(failures, error.retry_after))

    def _stretch(self, journal: Journal, file: IO[bytes], position: int, end: int) -> int:
        """One request's worth; returns the position reached. Raises _Broken with the position when cut off."""
        known = journal.known
        with self._session.get(self._remote.url, first=position, last=end - 1, if_range=known.validator) as response:
            same = response.status_code == 206 and total_size(response) == known.size
            if same and not response.headers.get("Content-Range", "").startswith(f"bytes {position}-"):
                raise BadDownload(f"{shown(self._remote.url)} sends other bytes than asked for.")
            if not same or not _still(response, known.validator):
                raise Changed(f"{shown(self._remote.url)} has changed on the server.", hint="Start again.")
            file.seek(position)
            _read_largely(response)
            try:
                for chunk in chunks(response):
                    chunk = chunk[: end - position]
                    write_all(file.write, chunk)  # marked only once all of it is in the file
                    for index in range(position // BLOCK, (position + len(chunk)) // BLOCK):
                        journal.mark(index)
                    position += len(chunk)
                    if position == known.size:
                        journal.mark(journal.blocks - 1)
                    with self._lock:
                        self._received += len(chunk)
                    self._pace.take(len(chunk), self._stop)
                    if self._stop.is_set() or position == end:
                        return position
            except OSError:  # of our disk
                raise
            except Exception as error:
                raise _Broken(position, _as_unreachable(error, self._remote.url)) from error
        if position < end:
            raise _Broken(position, Unreachable(f"{shown(self._remote.url)} ended early.", hint="Try again later."))
        return position

    # --- one stream ---------------------------------------------------------------------------------------

    def _in_one_stream(self, report: Report, cancel: CancelToken) -> str:
        def show() -> None:
            report(self._received, self._announced)

        stop, what = self._interrupt, shown(self._remote.url)
        digest = run_within(None, self._patient_stream, stop=stop, name=what, cancel=cancel, tick=show)
        show()
        return digest

    def _patient_stream(self) -> str:
        failures = 0
        while True:
            try:
                return self._stream()
            except Unreachable as error:
                failures += 1
                self._rest(failures, error)
                if self._stop.is_set():
                    raise

    def _stream(self) -> str:
        """One request for the whole file: all of its bytes are of one state of it."""
        digest, self._received, checked = hashlib.sha256(), 0, 0
        with self._session.get(self._remote.url) as response, self._partial.open("wb") as file:
            self._announced = total = total_size(response)
            for chunk in chunks(response):
                if self._stop.is_set():
                    raise Unreachable(f"{shown(self._remote.url)} was stopped.")
                if total is None and self._received + len(chunk) > checked:
                    checked = self._received + len(chunk) + _CHECK_EVERY
                    self._check_room(checked)
                file.write(chunk)
                digest.update(chunk)
                self._received += len(chunk)
                self._pace.take(len(chunk), self._stop)
            file.flush()
            os.fsync(file.fileno())
        if total is not None and self._received != total:
            message = f"{shown(self._remote.url)}: {self._received:,} bytes of {total:,} came."
            raise Unreachable(message, hint="Try again later.")
        return digest.hexdigest()

    def _check_room(self, upto: int) -> None:
        """Whether a body of unknown length may grow to `upto` bytes. Raises BadDownload, NotEnoughDisk."""
        url = shown(self._remote.url)
        if upto > self._most + _CHECK_EVERY:
            message = f"{url} sends more than {self._most:,} bytes and no end is announced."
            raise BadDownload(message, hint="Check what the URL serves.")
        free = free_disk(self._partial.parent)
        if free < _RESERVE:
            message = f"{url} doesn't report its size, and the disk of {self._partial.parent} has only {free:,} free."
            raise NotEnoughDisk(message, hint="Make room, or choose another root.")


def _still(response: httpx.Response, known: str) -> bool:
    """Whether a part is of the state of the file that was begun: an ETag comes with each (RFC 9110, 15.3.7)."""
    if not known:
        return True  # the sha256 is verified in the end
    header, default = ("ETag", "") if known.startswith('"') else ("Last-Modified", known)
    return str(response.headers.get(header, default)) == known


def _read_largely(response: httpx.Response) -> None:
    """Make a connection read up to 256 KB at once: httpcore asks for 64 KB, and every read costs the threads a turn."""
    stream = response.extensions.get("network_stream")
    if stream is None or hasattr(stream, "reads_largely"):
        return
    read = stream.read
    stream.read = lambda most, timeout=None: read(max(most, _READ_SOCKET), timeout)
    stream.reads_largely = True  # connections are used again


class _Broken(Exception):
    """A connection broke at `position`."""

    def __init__(self, position: int, cause: Unreachable) -> None:
        super().__init__(str(cause))
        self.position, self.cause = position, cause


def _as_unreachable(error: Exception, url: str) -> Unreachable:
    if isinstance(error, Unreachable):
        return error
    import httpx

    if isinstance(error, httpx.HTTPError):
        return Unreachable(f"{shown(url)} broke off: {type(error).__name__}.", hint="Check the network.")
    raise error


class _Follower(threading.Thread):
    """Sums the file in order, close behind the pieces; reads what is still in the page cache."""

    def __init__(self, partial: Path, journal: Journal, stop: threading.Event) -> None:
        super().__init__(daemon=True, name="sum")
        self._partial, self._journal, self._stopped = partial, journal, stop
        self._sum = hashlib.sha256()
        self._error: OSError | None = None

    def run(self) -> None:
        """Until the end of the file, or until asked to stop."""
        position, size = 0, self._journal.known.size
        try:
            with self._partial.open("rb", buffering=0) as file:
                while position < size and not self._stopped.is_set():
                    ready = self._ready(position)
                    if ready == position:
                        self._stopped.wait(0.005)
                        continue
                    part = file.read(ready - position)
                    self._sum.update(part)
                    position += len(part)
        except OSError as error:
            self._error = error

    def _ready(self, position: int) -> int:
        """End of the bytes that are there from `position` on, at most `_READ` further."""
        journal, end = self._journal, position
        while end < journal.known.size and end - position < _READ and journal.has(end // BLOCK):
            end = min(end + BLOCK, journal.known.size)
        return end

    def digest(self) -> str:
        """The sum, once the whole file is there."""
        self.join()
        if self._error:
            raise self._error
        return self._sum.hexdigest()
