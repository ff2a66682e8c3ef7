"""Deletes uploads that are no longer used: no job, video, settings file, definition or open draft names them."""

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
from reeltune.library.inventory import PARTIAL
from reeltune.media.kinds import OUTPUT_SUFFIXES
from reeltune.media.tags import read_metadata
from reeltune.service.drafts import VideoDraft
from reeltune.service.workspace import UPLOADS, Workspace
from reeltune.untrusted import parse_json

MAX_AGE_SECONDS = 24 * 3600.0  # an upload may belong to a form that was not sent yet
_MAX_PARTIAL_AGE_SECONDS = 3600.0
_INTERVAL_SECONDS = 3600.0
_MAX_FILE_BYTES = 4_000_000
_MAX_PATH_LENGTH = 4096
_log = logging.getLogger("reeltune.page")


class UploadCleanup:
    """A thread that deletes unused uploads every hour. `open_drafts` returns the drafts of all open pages."""

    def __init__(self, workspace: Workspace, open_drafts: Callable[[], Iterable[VideoDraft]]) -> None:
        self._workspace, self._open_drafts = workspace, open_drafts
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reeltune-cleanup", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread."""
        self._stopped.set()

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                remove_unused(self._workspace, self._open_drafts())
            except (ReeltuneError, OSError) as error:  # nothing is deleted while it is unknown what is used
                _log.warning("Unused uploads were not deleted: %s", error)
            self._stopped.wait(_INTERVAL_SECONDS)


def remove_unused(
    workspace: Workspace, drafts: Iterable[VideoDraft] = (), *, max_age_seconds: float = MAX_AGE_SECONDS
) -> list[Path]:
    """Delete uploads that are older than `max_age_seconds` and not used anywhere; returns them.

    Raises ReeltuneError, OSError if it can't be determined which uploads are used; nothing is deleted then.
    """
    old_uploads = list(_older_uploads(workspace.uploads, max_age_seconds))
    if not old_uploads:
        return []
    used = {path for value in _values(workspace, drafts) for path in _uploads_in(workspace, value)}
    unused = [path for path in old_uploads if path.resolve() not in used]
    return [path for path in unused if _deleted(path)]


def _deleted(path: Path) -> bool:
    """Delete a file; returns whether it is gone. One that can't be deleted, as it is open or protected, stays."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        _log.warning("%s was not deleted: %s", path.name, error.strerror or error)
        return False
    with contextlib.suppress(OSError):  # the folder holds another file
        path.parent.rmdir()
    return True


def _older_uploads(folder: Path, max_age_seconds: float) -> Iterator[Path]:
    now = time.time()
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent) / name
            max_age = min(max_age_seconds, _MAX_PARTIAL_AGE_SECONDS) if name.endswith(PARTIAL) else max_age_seconds
            with contextlib.suppress(OSError):
                if now - path.lstat().st_mtime > max_age:
                    yield path


def _values(workspace: Workspace, drafts: Iterable[VideoDraft]) -> Iterator[Any]:
    """Every value that may name an upload."""
    for draft in drafts:
        yield dict(draft.settings)
        yield dict(draft.initial)
    for job in workspace.queue.jobs():
        yield dict(job.settings)
        yield dict(job.extra)
    for folder in ("settings", "finetunes"):
        for path in sorted((workspace.root / folder).rglob("*.json")):
            with contextlib.suppress(ReeltuneError):  # a file that can't be read uses no upload
                yield parse_json(read_bytes(path, _MAX_FILE_BYTES), path.name)
    for path in sorted(path for suffix in OUTPUT_SUFFIXES for path in workspace.outputs.glob(f"*{suffix}")):
        with contextlib.suppress(ReeltuneError):
            yield read_metadata(path)


def _uploads_in(workspace: Workspace, value: Any) -> Iterator[Path]:
    """The uploads that a value names at any depth."""
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, dict):
            stack.extend(item.values())
        elif isinstance(item, list | tuple):
            stack.extend(item)
        elif isinstance(item, str) and UPLOADS in item and len(item) <= _MAX_PATH_LENGTH:
            path = workspace.confined(item)
            if path is not None:
                yield path
