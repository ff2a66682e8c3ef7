"""The download of one file: queried, locked, transferred to a partial file, verified, and only then renamed."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import TypeVar

from reeltune.errors import BadDownload, FetchError, Unreachable
from reeltune.events import CancelToken, Listener, Notice, Progress, ignore
from reeltune.fetch.remote import RemoteFile, query_file
from reeltune.fetch.task import DownloadTask, is_complete
from reeltune.fetch.transfer import MAX_UNANNOUNCED_BYTES, RateLimit, RemoteChanged, Transfer, pause_after
from reeltune.fetch.verifying import check_disk, expected_sha256, link_or_copy, verify_download
from reeltune.files import reason
from reeltune.library.index import Index
from reeltune.library.places import check_name
from reeltune.net import Session, file_key, run_within
from reeltune.preferences import Preferences

_ATTEMPTS = 5
_LOCK_POLL_SECONDS = 0.3
_REQUEST_SECONDS = 60.0  # for a small request with all its attempts
_MIN_REQUEST_SECONDS = 0.1
_SMALL_FILE_SUFFIXES = (".json", ".txt", ".model", ".jinja", ".md")
_MAX_SMALL_FILE_BYTES = 100_000_000
_T = TypeVar("_T")


class _TargetState(Enum):
    """What the file at the target of a task is."""

    SAME_FILE = "same file"  # it is the file to download
    OTHER_FILE = "other file"  # it is the file of another URL
    UNKNOWN = "unknown"  # there is none, or its origin is unknown


class Downloader:
    """Downloads files one after another over shared connections.

    `index`: records which file came from which URL; without one, existing targets are replaced. `sha256_by_path`: the
    sha256 of each file that was downloaded.
    """

    def __init__(
        self,
        preferences: Preferences | None = None,
        listener: Listener = ignore,
        cancel: CancelToken | None = None,
        index: Index | None = None,
    ) -> None:
        preferences = preferences or Preferences()
        self._connections = preferences.connections
        self._rate_limit = RateLimit(preferences.rate_limit * 1e6)
        self._listener = listener
        self._cancel = cancel or CancelToken()
        self._notices: set[str] = set()
        self.session = Session(
            stall=preferences.stall_seconds, connections=preferences.connections, tokens=preferences.tokens
        )
        self.sha256_by_path: dict[Path, str] = {}
        self.index = index

    def __enter__(self) -> Downloader:
        return self

    def __exit__(self, *exc: object) -> None:
        self.session.__exit__()

    def set_listener(self, listener: Listener) -> None:
        """Report to another listener from now on."""
        self._listener = listener

    def fetch(self, task: DownloadTask) -> Path:
        """Download one file and return its path.

        The target never contains a partial or wrong file. If it is the file of another URL, the download gets the
        unique name of its URL; if a file with the same sha256 is on disk, nothing is downloaded. Raises FetchError and
        its subclasses, Cancelled. Bytes that were received before an error are kept if they can be used again.
        """
        check_name(task.target.name)
        try:
            return self._fetch(task)
        except OSError as error:
            message = f"{task.target} can't be written: {reason(error)}."
            raise FetchError(message, hint="Check the free space and the folder, and try again.") from error

    def _fetch(self, task: DownloadTask) -> Path:
        task.target.parent.mkdir(parents=True, exist_ok=True)
        with self._locked(task):
            target = self._check_target(task)
            if target is _TargetState.SAME_FILE:
                self.notify(f"{task.name} is already on disk.")
                return task.target
            if target is _TargetState.UNKNOWN:
                return self._reuse(task) or self._download(task)
        return self._fetch(task.with_unique_name())

    def _check_target(self, task: DownloadTask) -> _TargetState:
        """What the file at the target is."""
        if not task.target.exists():
            return _TargetState.UNKNOWN
        if task.in_folder:  # no other file has this name, but it may be an older state of the file
            return _TargetState.SAME_FILE if is_complete(task, self.index) else _TargetState.UNKNOWN
        if self.index is None:
            return _TargetState.UNKNOWN
        sources = self.index.sources(task.target)
        digest = self.index.sha256(task.target)
        from_same_url = file_key(task.origin) in sources
        if task.sha256 and digest and digest == task.sha256.lower():
            return _TargetState.SAME_FILE
        if from_same_url and not (task.sha256 and digest):
            return _TargetState.SAME_FILE
        if sources and not from_same_url and not task.renamed:
            return _TargetState.OTHER_FILE
        return _TargetState.UNKNOWN

    def _reuse(self, task: DownloadTask) -> Path | None:
        """Use a file on disk that has the expected sha256; None if there is none."""
        if self.index is None or not task.sha256:
            return None
        same_files = self.index.files_with_sha256(task.sha256)
        if not same_files:
            return None
        existing = same_files[0]
        if not task.in_folder:
            self.index.record_file(existing, task.origin, task.sha256)
            self.notify(f"{task.name} has the same content as {existing.name}, which is used instead.")
            return existing
        if task.required_size is not None and existing.stat().st_size != task.required_size:
            return None
        task.target.unlink(missing_ok=True)
        link_or_copy(task, existing)
        self.index.record_file(task.target, task.origin, task.sha256)
        self.sha256_by_path[task.target] = task.sha256
        return task.target

    def _download(self, task: DownloadTask) -> Path:
        remote = self._query(task)
        self._notify_refused_tokens()
        sha256 = expected_sha256(task, remote)
        remote = replace(remote, sha256=sha256)
        try:
            if task.required_size is not None and remote.size not in (None, task.required_size):
                message = f"{task.name}: the server has {remote.size:,} bytes, "
                message += f"but the repository lists {task.required_size:,}."
                raise BadDownload(message, hint="Try again later.")
            digest = self._transfer(task, remote)
            verify_download(task, remote, digest, sha256)
        except BadDownload:
            _discard(task)
            raise
        self._rename(task, digest)
        with contextlib.suppress(OSError):  # another process may hold the lock; it will find the file
            task.lock.unlink()
        return task.target

    def _query(self, task: DownloadTask) -> RemoteFile:
        def query() -> RemoteFile:
            return query_file(self.session, task.url, task.target.name, sha256=task.sha256)

        return self.with_retries(query, task.name)

    def with_retries(self, request: Callable[[], _T], what: str) -> _T:
        """The result of a small request, repeated after errors that may be temporary.

        `what`: the file or URL, for messages. Raises Unreachable after a minute, whatever the server does; Cancelled.
        """
        failures = 0
        end = time.monotonic() + _REQUEST_SECONDS
        while True:
            remaining = max(_MIN_REQUEST_SECONDS, end - time.monotonic())
            try:
                return run_within(remaining, request, stop=self.session.interrupt, name=what, cancel=self._cancel)
            except Unreachable as error:
                pause = pause_after(failures, error.retry_after)
                failures += 1
                if failures >= _ATTEMPTS or time.monotonic() + pause >= end:
                    raise
                self._cancel.wait(pause)

    @contextmanager
    def _locked(self, task: DownloadTask) -> Iterator[None]:
        """Hold the lock of a file, so that two processes don't download it at the same time."""
        import filelock

        lock = filelock.FileLock(task.lock)
        while True:
            try:
                lock.acquire(timeout=_LOCK_POLL_SECONDS)
                break
            except filelock.Timeout:
                self._cancel.check()
                self.notify(f"Waiting for another process that is downloading {task.name}.")
        try:
            yield
        finally:
            lock.release()

    def _transfer(self, task: DownloadTask, remote: RemoteFile) -> str:
        """Transfer the bytes and return their sha256; starts again once if the file changes on the server."""
        reusable = task.bytes_present if remote.ranges else 0
        check_disk(task, (remote.size or 0) - reusable)
        try:
            return self._transfer_once(task, remote)
        except RemoteChanged:
            remote = self._query_changed(task, remote)
        return self._transfer_once(task, remote)

    def _transfer_once(self, task: DownloadTask, remote: RemoteFile) -> str:
        transfer = Transfer(
            self.session,
            remote,
            task.partial,
            connections=self._connections,
            rate_limit=self._rate_limit,
            max_bytes=_max_bytes(task),
            origin=task.origin,
        )
        try:
            return transfer.run(task.journal, self._progress_reporter(task), self._cancel)
        except RemoteChanged:
            _discard(task)
            raise
        except BaseException:
            if task.journal.exists() and task.bytes_present:
                self.notify(f"{task.bytes_present:,} bytes of {task.name} are kept; the next download continues there.")
            else:
                _discard(task)
            raise

    def _query_changed(self, task: DownloadTask, before: RemoteFile) -> RemoteFile:
        """The file after it has changed on the server.

        If size and validator are the same as before, ranges of different states could be mixed: it is then downloaded
        in one stream.
        """
        self.notify(f"{task.name} has changed on the server: its download starts again from the beginning.")
        remote = self._query(task)
        distinguishable = (remote.size, remote.validator) != (before.size, before.validator)
        return replace(remote, sha256=expected_sha256(task, remote), ranges=remote.ranges and distinguishable)

    def _progress_reporter(self, task: DownloadTask) -> Callable[[int, int | None], None]:
        def report(done: int, total: int | None) -> None:
            self._listener(Progress("download", done, total, "bytes", task.name))

        return report

    def _rename(self, task: DownloadTask, digest: str) -> None:
        """Give the verified file its name. An existing file is renamed and kept."""
        if task.target.exists() and not task.in_folder:
            new_name = _unused_name(task.target)
            task.target.replace(new_name)
            self.notify(f"The existing {task.target.name} can't be used and was renamed to {new_name.name}.")
        task.partial.replace(task.target)
        _sync_folder(task.target.parent)
        task.journal.unlink(missing_ok=True)
        self.sha256_by_path[task.target] = digest
        if self.index is not None:
            self.index.record_file(task.target, task.origin, digest)  # before the lock is released
        size = task.target.stat().st_size
        self._listener(Notice(f"Downloaded {task.name} ({size:,} bytes, sha256 {digest[:12]}…)."))

    def notify(self, message: str) -> None:
        """Send a notice; the same notice is sent only once."""
        if message not in self._notices:
            self._notices.add(message)
            self._listener(Notice(message))

    def _notify_refused_tokens(self) -> None:
        for host in sorted(self.session.refused):
            self.notify(f"{host} refused your token, but serves the file without it: renew or remove the token.")


def download(
    url: str,
    target: Path,
    *,
    weights: bool = False,
    sha256: str | None = None,
    preferences: Preferences | None = None,
    listener: Listener = ignore,
    cancel: CancelToken | None = None,
) -> Path:
    """Download one file. See `Downloader.fetch`."""
    with Downloader(preferences, listener, cancel, Index(target.parent)) as downloader:
        return downloader.fetch(DownloadTask(url, target, weights, sha256))


def _max_bytes(task: DownloadTask) -> int:
    """The limit for a file whose size the server doesn't announce."""
    if task.required_size:
        return task.required_size
    if task.target.name.lower().endswith(_SMALL_FILE_SUFFIXES):
        return _MAX_SMALL_FILE_BYTES
    return MAX_UNANNOUNCED_BYTES


def _discard(task: DownloadTask) -> None:
    for path in (task.partial, task.journal):
        path.unlink(missing_ok=True)


def _unused_name(target: Path) -> Path:
    """A name beside `target` that doesn't exist and that no definition lists."""
    number = 1
    while True:
        path = target.with_name(f"{target.name}.unusable{number}")
        if not path.exists():
            return path
        number += 1


def _sync_folder(folder: Path) -> None:
    """Make a rename durable, where folders can be synced (not on Windows)."""
    if hasattr(os, "O_DIRECTORY"):
        with contextlib.suppress(OSError):
            handle = os.open(folder, os.O_DIRECTORY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
