"""Removes uploads that nothing uses: no job, video, saved settings, definition or open draft names them."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from reeltune.errors import ReeltuneError
from reeltune.files import read_bytes
from reeltune.media.tags import read_metadata
from reeltune.service.studio import UPLOADS, Studio
from reeltune.untrusted import parse_json
from reeltune.web.upload_route import PARTIAL

KEPT_SECONDS = 24 * 3600.0  # an upload may stand in a form that was never sent
_PARTIAL_SECONDS = 3600.0
_EVERY_SECONDS = 3600.0
_MOST_FILE_BYTES = 4_000_000
_MOST_PATH = 4096
_log = logging.getLogger("reeltune.page")


class Cleanup:
    """A thread that looks once an hour. `drafts`: gives what the open pages hold, as plain values."""

    def __init__(self, studio: Studio, drafts: Callable[[], Iterable[Any]]) -> None:
        self._studio, self._drafts = studio, drafts
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="reeltune-cleanup", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End it."""
        self._stopped.set()

    def _loop(self) -> None:
        while not self._stopped.is_set():
            try:
                remove_unused(self._studio, self._drafts())
            except (ReeltuneError, OSError) as error:  # what is in use isn't known: nothing is deleted
                _log.warning("Unused uploads are kept for now: %s", error)
            self._stopped.wait(_EVERY_SECONDS)


def remove_unused(studio: Studio, drafts: Iterable[Any] = (), *, kept_seconds: float = KEPT_SECONDS) -> list[Path]:
    """Delete uploads that are older than `kept_seconds` and not named anywhere; returns them.

    Raises ReeltuneError, OSError where it can't be told what is in use.
    """
    old = list(_older(studio.uploads, kept_seconds))
    if not old:
        return []
    used = {path for value in _values(studio, drafts) for path in _named(studio, value)}
    removed = [path for path in old if path.resolve() not in used]
    for path in removed:
        path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # another file is still in it
            path.parent.rmdir()
    return removed


def _older(folder: Path, seconds: float) -> Iterator[Path]:
    now = time.time()
    for place, _, names in os.walk(folder):
        for name in names:
            path = Path(place) / name
            with contextlib.suppress(OSError):
                limit = min(seconds, _PARTIAL_SECONDS) if name.endswith(PARTIAL) else seconds
                if now - path.lstat().st_mtime > limit:
                    yield path


def _values(studio: Studio, drafts: Iterable[Any]) -> Iterator[Any]:
    """Everything that may name an upload."""
    yield from drafts
    for job in studio.queue.jobs():
        yield dict(job.settings)
        yield dict(job.extra)
    for folder in ("settings", "finetunes"):
        for path in sorted((studio.root / folder).rglob("*.json")):
            with contextlib.suppress(ReeltuneError):  # a file that can't be read names nothing that could be used
                yield parse_json(read_bytes(path, _MOST_FILE_BYTES), path.name)
    for path in sorted(studio.outputs.glob("*.mp4")):
        with contextlib.suppress(ReeltuneError):
            yield read_metadata(path)


def _named(studio: Studio, value: Any) -> Iterator[Path]:
    """The uploads that a value names, however deep in it."""
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, dict):
            stack.extend(item.values())
        elif isinstance(item, list | tuple):
            stack.extend(item)
        elif isinstance(item, str) and UPLOADS in item and len(item) <= _MOST_PATH:
            path = studio.confined(item)
            if path is not None:
                yield path
