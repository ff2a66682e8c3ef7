"""What all jobs together have taken since the program began: seconds by stage, bytes downloaded, and how they ended."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from dataclasses import dataclass, field

from reeltune.jobs.job import State


@dataclass(frozen=True)
class TotalsNow:
    """The totals at one moment. `ended`: the number of attempts by the state that they ended in."""

    seconds: dict[str, float] = field(default_factory=dict)
    bytes_downloaded: int = 0
    ended: dict[State, int] = field(default_factory=dict)


class Totals:
    """Sums that the threads of all workers add to."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._bytes = 0
        self._ended: Counter[State] = Counter()

    def add_seconds(self, stage: str, seconds: float) -> None:
        """A stage of a job took so long."""
        with self._lock:
            self._seconds[stage] += seconds

    def add_bytes(self, count: int) -> None:
        """So many bytes were downloaded."""
        with self._lock:
            self._bytes += count

    def add_end(self, state: State) -> None:
        """An attempt has ended."""
        with self._lock:
            self._ended[state] += 1

    def now(self) -> TotalsNow:
        """The sums of this moment."""
        with self._lock:
            return TotalsNow(dict(self._seconds), self._bytes, dict(self._ended))
