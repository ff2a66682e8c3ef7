"""Sending the bytes of large files with huggingface_hub: progress, and an end when the user cancels.

To the Hub itself, huggingface_hub sends files in deduplicated chunks (Xet), so that an interrupted file continues. To
any other endpoint, it sends them over HTTP, from a file object that reports what is read from it.
"""

from __future__ import annotations

import contextlib
import io
import logging
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reeltune.errors import PublishError
from reeltune.events import CancelToken, Listener, Progress
from reeltune.files import reason
from reeltune.net import HUB, hub_endpoint

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd

_TICK_SECONDS = 0.2


class Addition:
    """The progress of one file that is being sent. Raises Cancelled from `check` and from `report`."""

    def __init__(self, name: str, total: int, listener: Listener, cancel: CancelToken | None = None) -> None:
        self._name, self._total = name, total
        self._listener = listener
        self.cancel = cancel or CancelToken()
        self._most = 0

    def report(self, done: int) -> None:
        """Report how many bytes were sent."""
        self.cancel.check()
        if done > self._most:
            self._most = min(done, self._total)
            self._listener(Progress("upload", self._most, self._total, "bytes", self._name))

    def finish(self) -> None:
        """Report that the whole file has arrived."""
        self._listener(Progress("upload", self._total, self._total, "bytes", self._name))


class _ReportedFile(io.BufferedReader):
    """A file that reports what is read from it."""

    def __init__(self, path: Path, addition: Addition) -> None:
        super().__init__(io.FileIO(path, "r"))
        self._addition = addition

    def read(self, size: int | None = -1, /) -> bytes:
        """Read bytes, and report the position. Raises Cancelled."""
        content = super().read(size)
        self._addition.report(self.tell())
        return content


def prepared(name: str, path: Path, sha256: str, addition: Addition) -> CommitOperationAdd:
    """The operation that adds a file, whose sha256 is known. Raises PublishError if it can't be read."""
    from huggingface_hub import CommitOperationAdd

    try:
        operation = CommitOperationAdd(name, path)
        operation.upload_info.sha256 = bytes.fromhex(sha256)
        if hub_endpoint() != HUB:
            operation.path_or_fileobj = _ReportedFile(path, addition)
        return operation
    except (OSError, ValueError) as error:
        raise PublishError(f"{path.name} can't be read: {reason(error)}.", hint="Check the file.") from error


@contextlib.contextmanager
def sent(operation: CommitOperationAdd) -> Iterator[None]:
    """Close the file of an operation at the end; the commit needs only its size and sha256."""
    try:
        yield
    finally:
        if isinstance(operation.path_or_fileobj, _ReportedFile):
            operation.path_or_fileobj.close()
            operation.path_or_fileobj = b""


@contextlib.contextmanager
def quiet_hub(addition: Addition | None = None) -> Iterator[None]:
    """Without the bars, warnings and logs of huggingface_hub; the progress of Xet is reported to `addition`."""
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    log = logging.getLogger("huggingface_hub")
    level = log.level
    had_bars = not are_progress_bars_disabled()
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if addition is not None and hub_endpoint() == HUB:
                with _xet_progress(addition):
                    yield
            else:
                disable_progress_bars()
                yield
    finally:
        log.setLevel(level)
        if had_bars:
            enable_progress_bars()


class _XetProgress:
    """Takes the place of huggingface_hub's progress bars for Xet."""

    def __init__(self, addition: Addition) -> None:
        self._addition = addition

    def update_progress(self, group_report: Any, item_reports: object = None) -> None:
        """Report the processed bytes; called by a thread of Xet, in which nothing may be raised."""
        done = getattr(group_report, "total_bytes_completed", 0)
        if isinstance(done, int) and not self._addition.cancel.cancelled:
            with contextlib.suppress(Exception):
                self._addition.report(done)

    def close(self) -> None:
        """Nothing is open."""


@contextlib.contextmanager
def _xet_progress(addition: Addition) -> Iterator[None]:
    """Report the progress of Xet to `addition`, and abort its session when the user cancels.

    huggingface_hub has no public way to do either. Where its private names have changed, files are sent without
    progress inside a file, and a cancel takes effect after the file.
    """
    try:
        from huggingface_hub.utils import _xet, _xet_progress_reporting
    except ImportError:
        yield
        return
    original = getattr(_xet_progress_reporting, "XetUploadProgressReporter", None)
    finished = threading.Event()

    def watch() -> None:
        while not finished.wait(_TICK_SECONDS):
            if addition.cancel.cancelled:
                abort = getattr(_xet, "abort_xet_session", None)
                if abort is not None:
                    abort()
                return

    watcher = threading.Thread(target=watch, daemon=True, name="upload-cancel")
    watcher.start()
    if original is not None:
        _xet_progress_reporting.XetUploadProgressReporter = lambda *_, **__: _XetProgress(addition)  # type: ignore
    try:
        yield
    except Exception:
        addition.cancel.check()  # an aborted session raises errors of its own
        raise
    finally:
        finished.set()
        watcher.join()
        if original is not None:
            _xet_progress_reporting.XetUploadProgressReporter = original  # type: ignore
