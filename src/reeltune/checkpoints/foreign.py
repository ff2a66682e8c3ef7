"""Files that hold no weights, recognized by their first bytes: what they are, and what to do about it.

Messages never quote the file: its path may have come from someone who isn't allowed to read it.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from reeltune.errors import UnsupportedFormat

START_BYTES = 512  # enough for a Git LFS pointer
_POINTERS = (b"version https://git-lfs.github.com/spec/", b"# xet version")
_POINTER_SIZE = re.compile(rb"^(?:size|filesize =) (\d{1,18})\s*$", re.MULTILINE)
_COMPRESSED = ((b"\x1f\x8b", "gzip"), (b"\x28\xb5\x2f\xfd", "zstd"), (b"7z\xbc\xaf\x27\x1c", "7-Zip"))
_TEXT = bytes([*range(32, 127), 9, 10, 13])


def is_pointer(start: bytes) -> bool:
    """Whether a file that begins so is a Git LFS (or Xet) pointer: a few lines in place of the file itself."""
    return start.startswith(_POINTERS)


def refuse_pointer(name: str, start: bytes) -> None:
    """Raise UnsupportedFormat for a Git LFS pointer, with the size of the file that it stands for."""
    if not is_pointer(start):
        return
    size = _POINTER_SIZE.search(start)
    true_size = f" of {int(size[1]):,} bytes" if size else ""
    raise UnsupportedFormat(
        f"{name} is a Git LFS pointer: a few lines of text in place of the file itself{true_size}.",
        hint="Run `git lfs pull` in the repository it came from, or download it by a URL with /resolve/, not /raw/.",
    )


def refuse_foreign(name: str, start: bytes) -> None:
    """Raise UnsupportedFormat for every kind of file that is recognized; `start`: its first `START_BYTES` bytes."""
    for check in _CHECKS:
        check(name, start)


def _compressed(name: str, start: bytes) -> None:
    for magic, label in _COMPRESSED:
        if start.startswith(magic):
            raise UnsupportedFormat(f"{name} is compressed with {label}.", hint="Unpack it, or download it again.")


def _page(name: str, start: bytes) -> None:
    if start.lstrip()[:1] in (b"<", b"{"):
        raise UnsupportedFormat(
            f"{name} is a web page or a JSON text, not weights.",
            hint="The URL probably needs a login, or leads to a page instead of the file.",
        )


def _text(name: str, start: bytes) -> None:
    if not start.translate(None, _TEXT):
        raise UnsupportedFormat(
            f"{name} is a text file, not weights.", hint="Open it to see what the server answered, and check the URL."
        )


_CHECKS: tuple[Callable[[str, bytes], None], ...] = (refuse_pointer, _compressed, _page, _text)
