"""Checks of a download: before its first byte where possible, and before it gets its name."""

from __future__ import annotations

import shutil
from pathlib import Path

from reeltune.checkpoints.header import read_header
from reeltune.errors import BadDownload, CheckpointError, FetchError, NotEnoughDisk
from reeltune.fetch.remote import RemoteFile
from reeltune.fetch.task import DownloadTask
from reeltune.files import reason
from reeltune.library.inventory import CHECKPOINT_SUFFIXES
from reeltune.machine import free_disk
from reeltune.net import shown


def expected_sha256(task: DownloadTask, remote: RemoteFile) -> str | None:
    """The sha256 that the file must have, if known. Raises BadDownload if task and server disagree."""
    expected = task.sha256.lower() if task.sha256 else None
    if expected and remote.sha256 and expected != remote.sha256:
        raise BadDownload(
            f"{shown(task.url)} serves a file with the sha256 {remote.sha256}, but {expected} was expected.",
            hint="The file has changed on the server: ask the author of the definition.",
        )
    return expected or remote.sha256


def check_disk(task: DownloadTask, needed: int) -> None:
    """Raise NotEnoughDisk if the folder of the target has less than `needed` bytes free."""
    free = free_disk(task.target.parent)
    if needed > free:
        raise NotEnoughDisk(
            f"{task.name} needs {needed:,} more bytes, but the disk of {task.target.parent} has {free:,} free.",
            hint="Free some disk space, or choose another root.",
        )


def verify_download(task: DownloadTask, remote: RemoteFile, digest: str, sha256: str | None) -> None:
    """Check size, sha256 and header of a finished download. Raises BadDownload.

    `digest`: the sha256 of the downloaded bytes. `sha256`: the expected one, if known.
    """
    url = shown(task.url)
    size = task.partial.stat().st_size
    if remote.size is not None and size != remote.size:
        raise BadDownload(f"{url}: received {size:,} of {remote.size:,} bytes.", hint="Try again.")
    if task.required_size is not None and size != task.required_size:
        message = f"{url}: received {size:,} bytes, but the repository lists {task.required_size:,}."
        raise BadDownload(message, hint="The file was changed during the download: try again.")
    if sha256 and digest != sha256:
        raise BadDownload(
            f"{task.name} from {url} has the sha256 {digest}, but {sha256} was expected.",
            hint="The download is damaged, or the file has changed: try again, then ask the definition's author.",
        )
    if task.weights or task.target.name.lower().endswith(CHECKPOINT_SUFFIXES):
        try:
            read_header(task.partial)
        except CheckpointError as error:
            message = error.message.replace(str(task.partial), task.name)
            raise BadDownload(f"The file that {url} serves can't be used: {message}", hint=error.hint) from error


def link_or_copy(task: DownloadTask, source: Path) -> None:
    """Create the target from a file with the same bytes: as a hard link, or as a copy if links aren't possible.

    Raises NotEnoughDisk, FetchError.
    """
    try:
        task.target.hardlink_to(source.resolve())
        return
    except OSError:  # another file system, or one without hard links
        check_disk(task, source.stat().st_size)
    try:
        shutil.copyfile(source, task.partial)
        task.partial.replace(task.target)
    except OSError as error:
        task.partial.unlink(missing_ok=True)
        message = f"{source} can't be copied to {task.target}: {reason(error)}."
        raise FetchError(message, hint="Check the free space and the folder.") from error
