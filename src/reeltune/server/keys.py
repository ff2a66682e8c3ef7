"""API keys: the file with them, and checking them in constant time."""

from __future__ import annotations

import hashlib
import hmac
import os
import stat
import sys
from collections.abc import Iterable
from pathlib import Path

from reeltune.errors import FileError, ServeError
from reeltune.files import read_bytes

_MAX_FILE_BYTES = 1_000_000
_MIN_CHARACTERS = 16  # shorter keys can be guessed
_HINT = 'Make one with: python -c "import secrets; print(secrets.token_urlsafe(32))"'


class Keys:
    """The keys of an API; without any, none is needed. Only their hashes stay in memory."""

    def __init__(self, keys: Iterable[str]) -> None:
        self._hashes = tuple(_hash(key) for key in keys)

    @property
    def needed(self) -> bool:
        """Whether requests need a key."""
        return bool(self._hashes)

    def contain(self, key: str) -> bool:
        """Whether this is one of the keys. Every key is compared, so the time reveals nothing."""
        hashed = _hash(key)
        return sum(hmac.compare_digest(hashed, known) for known in self._hashes) > 0


def read_keys(path: Path) -> tuple[Keys, list[str]]:
    """The keys of a file with one per line, and warnings. Empty lines and those that begin with # don't count.

    Raises ServeError for a file that can't be read, has no key, or has one of fewer than 16 characters.
    """
    try:
        text = read_bytes(path, _MAX_FILE_BYTES).decode("utf-8-sig")
    except FileError as error:
        raise ServeError(
            f"--api-key-file: {error.message}", hint="Use a regular file with one key per line."
        ) from error
    except UnicodeDecodeError as error:
        raise ServeError(f"--api-key-file: {path} is not UTF-8 text.", hint="Save it as UTF-8.") from error
    lines = [line.strip() for line in text.splitlines()]
    keys = [line for line in lines if line and not line.startswith("#")]
    if not keys:
        raise ServeError(f"--api-key-file: {path} has no key.", hint=f"Write one key per line. {_HINT}")
    for number, line in enumerate(lines, start=1):
        if line in keys and (len(line) < _MIN_CHARACTERS or not line.isascii() or " " in line):
            message = f"--api-key-file: line {number} of {path} is not a key."
            raise ServeError(message, hint=f"A key has at least {_MIN_CHARACTERS} ASCII characters, no spaces. {_HINT}")
    return Keys(keys), warnings_about(path)


def warnings_about(path: Path) -> list[str]:
    """A warning if other users of this machine can read a file with secrets."""
    mode = stat.S_IMODE(path.stat().st_mode)
    credentials = os.environ.get("CREDENTIALS_DIRECTORY")  # only the service can enter this folder of systemd's
    if credentials and path.parent == Path(credentials):
        return []
    if sys.platform == "win32" or not mode & 0o077:
        return []
    return [f"Other users of this machine can read the secrets in {path}. Fix it with: chmod 600 '{path}'"]


def _hash(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
