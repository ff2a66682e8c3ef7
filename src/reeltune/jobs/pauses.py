"""Pauses of the queue after failures that every job would share: no network, a full disk, a missing device."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

from reeltune.errors import QueueError, QueuePaused

_SECONDS = (60.0, 120.0, 300.0, 900.0)  # after one such failure, after two in a row, and so on


@dataclass(frozen=True)
class Pause:
    """The queue waits, as the next job would fail like the last. `until` in seconds of the monotonic clock."""

    error: str
    hint: str
    until: float

    @property
    def trouble(self) -> QueueError:
        """What to show."""
        minutes = max(1, round((self.until - time.monotonic()) / 60))
        again = f"It continues by itself in about {minutes} minute{'s' if minutes > 1 else ''}."
        return QueueError(f"The queue is paused: {self.error}", hint=f"{self.hint} {again}".strip())


def user_pause() -> QueuePaused:
    """What to show while the user pauses the queue."""
    hint = "Running jobs continue to their end. Resume the queue to start the next job."
    return QueuePaused("The queue is paused by the user.", hint=hint)


class Pauses:
    """The pause that all workers of a runner share; each one in a row is longer than the one before."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._in_a_row = 0
        self._current: Pause | None = None

    @property
    def current(self) -> Pause | None:
        """The pause that isn't over yet; None where jobs may be taken."""
        with self._guard:
            if self._current is not None and time.monotonic() >= self._current.until:
                self._current = None
            return self._current

    def begin(self, error: str, hint: str, *, jobs_wait: bool) -> Pause | None:
        """A job has failed in a way that others share: returns the pause, None where no job waits.

        A failure during a pause (of a job that another worker ran) makes it no longer.
        """
        with self._guard:
            if self._current is not None:
                return None
            seconds = _SECONDS[min(self._in_a_row, len(_SECONDS) - 1)]
            self._in_a_row += 1
            if jobs_wait:
                self._current = Pause(error, hint, time.monotonic() + seconds)
            return self._current

    def start_over(self) -> None:
        """A job has ended in any other way: the next pause is a short one."""
        with self._guard:
            self._in_a_row = 0

    def end(self) -> None:
        """Continue now."""
        with self._guard:
            self._current = None
