"""Events that long operations report to their caller, as serializable values, and a token to cancel them.

def show(event):
    match event:
        case Progress(stage="denoise", done=done, total=total): print(done, "of", total)
        case Notice(message=message): print("note:", message)
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from reeltune.errors import Cancelled


@dataclass(frozen=True)
class Progress:
    """How far one stage has come; `total` is None while unknown."""

    stage: str  # "download" | "verify" | "quantize" | "load" | "encode" | "denoise" | "decode" | "write" | "upload"
    done: int
    total: int | None
    unit: str = "steps"  # "steps" | "bytes" | "tensors"
    subject: str = ""  # the file or component this is about


@dataclass(frozen=True)
class Notice:
    """Something the user should know and may act on; reported once, never an error."""

    message: str


@dataclass(frozen=True)
class PlannedFile:
    """A file that will be downloaded. `bytes`: its size, or None if the server doesn't report it; `kept`: the bytes
    that an earlier download has left on the disk.
    """

    name: str
    bytes: int | None
    kept: int


@dataclass(frozen=True)
class Planned:
    """All files that will be downloaded, reported before the first one starts.

    `to_fetch`: bytes to download; `free`: free bytes on the disk.
    """

    files: tuple[PlannedFile, ...]
    to_fetch: int
    free: int


@dataclass(frozen=True)
class Preview:
    """A small preview of the unfinished video, as an animated WebP image."""

    image: bytes = field(repr=False)


@dataclass(frozen=True)
class LatentsStored:
    """The latents of the current video are stored in the file `path` until the video is written."""

    path: str


@dataclass(frozen=True)
class Batch:
    """Which of several videos is being made: `number` of `total`, counted from 1."""

    number: int
    total: int


@dataclass(frozen=True)
class UsedFile:
    """A weight file of the current video, and its size in bytes when the video was started."""

    path: str
    bytes: int


@dataclass(frozen=True)
class FilesUsed:
    """All weight files of the current video, reported before any of them is read."""

    files: tuple[UsedFile, ...]


Event = Progress | Notice | Planned | Preview | LatentsStored | Batch | FilesUsed
Listener = Callable[[Event], None]


def ignore(event: Event) -> None:
    """Ignore an event: the listener of callers that show no progress."""


class CancelToken:
    """A thread-safe flag: the caller calls `cancel()`, the operation calls `check()` between its steps."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def cancel(self) -> None:
        """Ask the operation to stop at its next step."""
        self._event.set()

    @property
    def cancelled(self) -> bool:
        """Whether `cancel()` was called."""
        return self._event.is_set()

    def wait(self, seconds: float) -> None:
        """Pause for `seconds`. Raises Cancelled as soon as `cancel()` is called."""
        self._event.wait(seconds)
        self.check()

    def check(self) -> None:
        """Raise Cancelled if `cancel()` was called."""
        if self._event.is_set():
            raise Cancelled("Stopped by request.")
