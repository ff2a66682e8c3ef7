"""What a download must be: checked before its first byte where that is possible, and before it gets its name."""

from __future__ import annotations

import shutil
from pathlib import Path

from reeltune.checkpoints.header import read_header
from reeltune.errors import BadDownload, CheckpointError, FetchError, NotEnoughDisk
from reeltune.fetch.link import Link
from reeltune.fetch.remote import Remote
from reeltune.files import reason
from reeltune.library.inventory import CHECKPOINT_SUFFIXES
from reeltune.machine import free_disk
from reeltune.net import shown


def expected_sum(link: Link, remote: Remote) -> str | None:
    """The sha256 the file must have; raises BadDownload when two that are known differ, before the first byte."""
    wanted = link.sha256.lower() if link.sha256 else None
    if wanted and remote.sha256 and wanted != remote.sha256:
        raise BadDownload(
            f"{shown(link.url)} serves a file with the sha256 {remote.sha256}, {wanted} is wanted.",
            hint="The file was changed: ask the definition's author.",
        )
    return wanted or remote.sha256


def check_disk(link: Link, needed: int) -> None:
    """Raise NotEnoughDisk where the folder of a file has less than `needed` bytes free."""
    free = free_disk(link.target.parent)
    if needed > free:
        raise NotEnoughDisk(
            f"{link.name} needs {needed:,} more bytes, the disk of {link.target.parent} has {free:,} free.",
            hint="Make room, or choose another root.",
        )


def verify_download(link: Link, remote: Remote, digest: str, sha256: str | None) -> None:
    """Size, sha256 and header of what came. Raises BadDownload."""
    size = link.partial.stat().st_size
    if remote.size is not None and size != remote.size:
        raise BadDownload(f"{shown(link.url)}: {size:,} bytes of {remote.size:,} came.", hint="Try again.")
    if link.listed is not None and size != link.listed:
        message = f"{shown(link.url)}: {size:,} bytes came, the repository lists {link.listed:,}."
        raise BadDownload(message, hint="It was changed on its way, or just now: try again.")
    if sha256 and digest != sha256:
        raise BadDownload(
            f"{link.name} from {shown(link.url)} has the sha256 {digest}, {sha256} is wanted.",
            hint="It was damaged on the way, or changed: try again, then ask the definition's author.",
        )
    if link.weights or link.target.name.lower().endswith(CHECKPOINT_SUFFIXES):
        try:
            read_header(link.partial)
        except CheckpointError as error:
            message = error.message.replace(str(link.partial), link.name)
            raise BadDownload(f"What {shown(link.url)} serves is not usable: {message}", hint=error.hint) from error


def share(link: Link, twin: Path) -> None:
    """Make the file of a link from another one with the same bytes: a hard link, or a copy where there are none.

    Raises NotEnoughDisk, FetchError.
    """
    try:
        link.target.hardlink_to(twin.resolve())
        return
    except OSError:  # another file system, or one without hard links
        check_disk(link, twin.stat().st_size)
    try:
        shutil.copyfile(twin, link.partial)
        link.partial.replace(link.target)
    except OSError as error:
        link.partial.unlink(missing_ok=True)
        message = f"{twin} can't be copied to {link.target}: {reason(error)}."
        raise FetchError(message, hint="Check the free space and the folder.") from error
