"""When an idle worker ends: after the time in the preferences."""

from __future__ import annotations

import time
from pathlib import Path

from reeltune.preferences import load_preferences

_KEPT_SECONDS = 5.0  # for which the preference isn't read again


class IdleLimit:
    """The preference `worker_idle_minutes` of a root, as it is now."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._read: tuple[float, float] | None = None  # by the monotonic clock, and the seconds

    def is_over(self, since: float) -> bool:
        """Whether a worker that has been idle since a moment (seconds since 1970) ends now."""
        limit = self._seconds()
        return limit > 0 and time.time() - since > limit

    def _seconds(self) -> float:
        now = time.monotonic()
        read = self._read
        if read is None or now - read[0] > _KEPT_SECONDS:
            read = self._read = (now, load_preferences(self._root)[0].worker_idle_minutes * 60)
        return read[1]
