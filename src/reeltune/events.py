"""What long work tells its caller: plain values that can be serialized, and the way to stop it.

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
    """Work done so far in one stage; `total` is None while unknown."""

    stage: str  # "download" | "verify" | "quantize" | "load" | "encode" | "denoise" | "decode" | "write"
    done: int
    total: int | None
    unit: str = "steps"  # "steps" | "bytes" | "tensors"
    subject: str = ""  # the file or component this is about


@dataclass(frozen=True)
class Notice:
    """Something the user should know and may act on: said once, never an error."""

    message: str


@dataclass(frozen=True)
class PlannedFile:
    """A file that is about to be fetched: its size in bytes (None: the server doesn't say), and what is here of it."""

    name: str
    bytes: int | None
    kept: int


@dataclass(frozen=True)
class Planned:
    """All that is about to be fetched, before the first byte of it; `to_fetch` and `free` (of the disk) in bytes."""

    files: tuple[PlannedFile, ...]
    to_fetch: int
    free: int


@dataclass(frozen=True)
class Preview:
    """The video as it looks so far, small: an animated WebP image."""

    image: bytes = field(repr=False)


@dataclass(frozen=True)
class Kept:
    """The latents of the video under way are on disk, in the file `path`, until the video is written."""

    path: str


@dataclass(frozen=True)
class Batch:
    """Which video of several is being made: `number` of `total`, from 1."""

    number: int
    total: int


@dataclass(frozen=True)
class UsedFile:
    """A file that the weights of the video under way are read from, and its size in bytes as the video began."""

    path: str
    bytes: int


@dataclass(frozen=True)
class Using:
    """All files that the weights of the video under way are read from, before any of them is."""

    files: tuple[UsedFile, ...]


Event = Progress | Notice | Planned | Preview | Kept | Batch | Using
Listener = Callable[[Event], None]


def ignore(event: Event) -> None:
    """Listen to nothing: for callers that show no progress."""


class CancelToken:
    """Shared by caller and work, also across threads: `cancel()` there, `check()` here."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def cancel(self) -> None:
        """Ask the work to stop at its next step."""
        self._event.set()

    @property
    def cancelled(self) -> bool:
        """Whether someone asked to stop."""
        return self._event.is_set()

    def wait(self, seconds: float) -> None:
        """Pause for `seconds`; raises `Cancelled` as soon as someone asks to stop."""
        self._event.wait(seconds)
        self.check()

    def check(self) -> None:
        """Raise `Cancelled` once someone asked to stop."""
        if self._event.is_set():
            raise Cancelled("Stopped as asked.")
