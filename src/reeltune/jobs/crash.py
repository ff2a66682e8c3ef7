"""Why a worker process crashed, where the files that it was using tell."""

from __future__ import annotations

from pathlib import Path

from reeltune.errors import WorkerDied
from reeltune.events import FilesUsed, UsedFile

_BUS_ERROR = "SIGBUS"  # a mapped file doesn't reach where it is read
_MOST_NAMED = 3


def explained(death: WorkerDied, using: FilesUsed | None) -> WorkerDied:
    """The same death, naming the files that became shorter or were removed while their weights were in use."""
    if death.signal != _BUS_ERROR or using is None:
        return death
    shorter = [file for file in using.files if _bytes(file) < file.bytes]
    if not shorter:
        message = f"{death.message.rstrip('.')}: a weight file could not be read, one of {_named(using.files)}."
        return WorkerDied(message, hint="Check the disk with `reeltune verify`, and run it again.", signal=death.signal)
    message = f"{death.message.rstrip('.')}: {_named(shorter)} became shorter while in use."
    hint = "Download it again (`reeltune verify` reads every file), and write files beside it before renaming them."
    return WorkerDied(message, hint=hint, signal=death.signal)


def _bytes(file: UsedFile) -> int:
    try:
        return Path(file.path).stat().st_size
    except (OSError, ValueError):
        return -1


def _named(files: tuple[UsedFile, ...] | list[UsedFile]) -> str:
    names = ", ".join(file.path for file in files[:_MOST_NAMED])
    return names + (f" and {len(files) - _MOST_NAMED} more" if len(files) > _MOST_NAMED else "")
