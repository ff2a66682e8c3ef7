"""Videos that a worker has written without its report being received: it ended, or the program did, in between."""

from __future__ import annotations

import contextlib
import stat
from pathlib import Path

from reeltune.errors import MediaError
from reeltune.files import expand
from reeltune.jobs.job import Attempt, Job
from reeltune.media.kinds import OUTPUT_SUFFIXES
from reeltune.media.tags import read_metadata
from reeltune.preferences import load_preferences
from reeltune.untrusted import JsonObject

_KEY = "job"  # of the metadata of a video
_SLACK_SECONDS = 2.0  # by which the time of a file may be earlier than the clock; FAT rounds to two seconds


def mark_of(attempt: Attempt) -> JsonObject:
    """The metadata by which `unreported_videos` recognizes the videos of an attempt."""
    return {_KEY: {"id": attempt.job, "attempt": attempt.number}}


def unreported_videos(root: Path, job: Job, outputs: Path | None = None) -> tuple[str, ...]:
    """The paths of the videos that the last attempt of a job has written and `job.outputs` doesn't contain.

    `outputs`: the folder of videos; by default the preference's.
    """
    folder = outputs if outputs is not None else root / expand(load_preferences(root)[0].outputs)
    known = {Path(path).name for path in job.outputs}
    return tuple(
        str(path)
        for path in _videos_since(folder, job.started - _SLACK_SECONDS)
        if path.name not in known and _belongs_to(path, job.attempt)
    )


def _videos_since(folder: Path, moment: float) -> list[Path]:
    """The videos in a folder that were written after a moment, in seconds since 1970; the oldest first."""
    found = []
    try:
        paths = [path for path in folder.iterdir() if path.suffix in OUTPUT_SUFFIXES and not path.name.startswith(".")]
    except OSError:  # no video was made yet
        return []
    for path in paths:
        with contextlib.suppress(OSError):  # deleted meanwhile, or a broken link
            facts = path.stat()
            if stat.S_ISREG(facts.st_mode) and facts.st_size and facts.st_mtime >= moment:  # reserved names are empty
                found.append((facts.st_mtime_ns, path))
    return [path for _, path in sorted(found)]


def _belongs_to(path: Path, attempt: Attempt) -> bool:
    try:
        metadata = read_metadata(path)
    except MediaError:
        return False
    return metadata is not None and metadata.get(_KEY) == mark_of(attempt)[_KEY]
