"""Names of files that come from URLs: which are refused, and where a second file of a name goes."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path, PurePosixPath

from reeltune.errors import FetchError
from reeltune.library.index import FILE_NAME
from reeltune.net import file_key

PARTIAL = ".partial"
_MAX_NAME = 200  # bytes: room for what is added to it
_RESERVED = re.compile(r"^(con|prn|aux|nul|com\d|lpt\d)(\..*)?$", re.IGNORECASE)
_OURS = re.compile(rf"^{re.escape(FILE_NAME)}|{re.escape(PARTIAL)}$|\.unusable\d*$", re.IGNORECASE)


def check_name(name: str) -> None:
    """Refuse a file name that could leave its folder, that a file system can't hold, or that this program uses itself.

    Raises FetchError.
    """
    bad = name in ("", ".", "..") or any(character in name for character in '/\\\0:*?"<>|') or not name.isprintable()
    long = len(name.encode("utf-8", "replace")) > _MAX_NAME
    if bad or long or _RESERVED.match(name) or _OURS.search(name) or name.endswith((".", " ")):
        message = f"{name[:80]!r} can't be used as a file name."
        raise FetchError(message, hint="Write a URL that ends in the file's name.")


def usable_name(name: str) -> bool:
    """Whether `check_name` accepts a name."""
    try:
        check_name(name)
    except FetchError:
        return False
    return True


def own_name(name: str, url: str) -> str:
    """The name that only the file of this URL has, for where another file has `name`: `model-1a2b3c4d.safetensors`.

    It follows from the URL alone, so that the file is found again without the index.
    """
    mark = f"-{hashlib.sha256(file_key(url).encode('utf-8', 'replace')).hexdigest()[:8]}"
    path = PurePosixPath(name)
    suffix = path.suffix if len(path.suffix) <= len(".safetensors") else ""
    stem = name.removesuffix(suffix) if suffix else name
    room = _MAX_NAME - len((mark + suffix).encode("utf-8", "replace"))
    return stem.encode("utf-8", "replace")[:room].decode("utf-8", "ignore") + mark + suffix


def label(path: Path, ckpts: Path) -> str:
    """A path as lists, bars and messages show it: relative to `ckpts`."""
    return path.relative_to(ckpts).as_posix() if path.is_relative_to(ckpts) else str(path)
