"""The sha256 of files on disk, computed once for each state of a file."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from pathlib import Path

from reeltune.errors import FileError
from reeltune.events import CancelToken, Listener, Progress, ignore
from reeltune.files import open_regular, reason
from reeltune.library.index import Index
from reeltune.library.places import label

_CHUNK_BYTES = 4 * 1024 * 1024
_MAX_REMEMBERED = 1000  # files outside the folders of the index


@dataclass
class _Digest:
    """The sha256 of one state of a file; empty until it is computed."""

    value: str = ""


def sha256_of(path: Path, index: Index, listener: Listener = ignore, cancel: CancelToken | None = None) -> str:
    """The sha256 of a file, from the index if it is known there; otherwise the whole file is read.

    A computed sha256 is recorded in the index, or remembered by this process for files that the index doesn't cover.
    Reports progress as the stage "verify". Raises FileError, Cancelled.
    """
    known = index.sha256(path)
    if known:
        return known
    try:
        status = path.stat()
        remembered = _digest_of(path, status.st_size, status.st_mtime_ns, status.st_ino)
        if not remembered.value:
            remembered.value = _compute(path, status.st_size, label(path, index.folder), listener, cancel)
            for url in index.recorded_urls(path) or ("",):
                index.record_file(path, url, remembered.value)
        return remembered.value
    except OSError as error:
        raise FileError(f"{path} can't be read: {reason(error)}.", hint="Check the file.") from error


@functools.lru_cache(maxsize=_MAX_REMEMBERED)
def _digest_of(path: Path, size: int, changed_ns: int, inode: int) -> _Digest:
    return _Digest()


def _compute(path: Path, total: int, name: str, listener: Listener, cancel: CancelToken | None) -> str:
    digest = hashlib.sha256()
    done = 0
    with open_regular(path) as file:
        while chunk := file.read(_CHUNK_BYTES):
            if cancel is not None:
                cancel.check()
            digest.update(chunk)
            done += len(chunk)
            listener(Progress("verify", done, total, "bytes", name))
    return digest.hexdigest()
