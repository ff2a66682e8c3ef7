"""Names of downloaded files: which names are refused, and the unique name of a second file with the same name."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path, PurePosixPath

from reeltune.errors import FetchError
from reeltune.library.index import FILE_NAME
from reeltune.net import file_key

PARTIAL = ".partial"
_MAX_NAME_BYTES = 200  # leaves room for the suffixes that are appended
_FORBIDDEN_CHARACTERS = '/\\\0:*?"<>|'
_DEVICE_NAME = re.compile(r"^(con|prn|aux|nul|com\d|lpt\d)(\..*)?$", re.IGNORECASE)  # reserved on Windows
_OWN_FILE = re.compile(rf"^{re.escape(FILE_NAME)}|{re.escape(PARTIAL)}$|\.unusable\d*$", re.IGNORECASE)


def check_name(name: str) -> None:
    """Raise FetchError for a file name that can't be used.

    Refused are names that could lead out of their folder, that some file system can't store, or that reeltune uses for
    its own files.
    """
    if not is_valid_name(name):
        message = f"{name[:80]!r} can't be used as a file name."
        raise FetchError(message, hint="Use a URL that ends in the file's name.")


def is_valid_name(name: str) -> bool:
    """Whether `check_name` accepts a name."""
    if name in ("", ".", "..") or not name.isprintable() or name.endswith((".", " ")):
        return False
    if any(character in name for character in _FORBIDDEN_CHARACTERS):
        return False
    if len(name.encode("utf-8", "replace")) > _MAX_NAME_BYTES:
        return False
    return not (_DEVICE_NAME.match(name) or _OWN_FILE.search(name))


def unique_name(name: str, url: str) -> str:
    """The name for the file of `url` when another URL's file has `name` already: `model-1a2b3c4d.safetensors`.

    The name depends on the URL alone, so that the file is found without the index.
    """
    digest = hashlib.sha256(file_key(url).encode("utf-8", "replace")).hexdigest()
    mark = f"-{digest[:8]}"
    suffix = PurePosixPath(name).suffix
    if len(suffix) > len(".safetensors"):
        suffix = ""
    stem = name.removesuffix(suffix)
    max_stem_bytes = _MAX_NAME_BYTES - len((mark + suffix).encode("utf-8", "replace"))
    stem = stem.encode("utf-8", "replace")[:max_stem_bytes].decode("utf-8", "ignore")
    return stem + mark + suffix


def label(path: Path, ckpts: Path) -> str:
    """A path as tables, progress bars and messages show it: relative to `ckpts` if it is below it."""
    if path.is_relative_to(ckpts):
        return path.relative_to(ckpts).as_posix()
    return str(path)
