"""Lock files: the size and sha256 of every file that a definition uses, so that other machines get the same bytes.

The lock of `finetunes/x.json` is `finetunes/x.lock`, a JSON object:

    {
        "lock_version": 1,
        "definition": "x",
        "files": [{"source": "https://…/x_bf16.safetensors", "bytes": 123, "sha256": "…"}, …]
    }

`source` is a URL, or the path that the definition lists. The files of a component have the URLs of the Hub.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from reeltune.definitions.section import SHA256
from reeltune.errors import FileError, InvalidJSON, LockError
from reeltune.files import is_file, read_bytes, write_atomic
from reeltune.net import file_key
from reeltune.untrusted import parse_json

SUFFIX = ".lock"
LOCK_VERSION = 1
_MAX_BYTES = 4_000_000
_MAX_FILES = 10_000
_MAX_SIZE = 2**62


@dataclass(frozen=True)
class LockedFile:
    """A file in a lock. `source`: its URL, or the path that the definition lists. `bytes`: its size."""

    source: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Lock:
    """The lock of a definition. `files`: by the key of their URL (`net.file_key`), or by their path."""

    definition: str
    files: Mapping[str, LockedFile]

    def get(self, source: str) -> LockedFile | None:
        """The entry of a URL or path; None if it isn't locked."""
        return self.files.get(file_key(source))

    @property
    def sha256_by_source(self) -> dict[str, str]:
        """The sha256 of each file by its URL or path, as `Definition.sha256` holds them."""
        return {file.source: file.sha256 for file in self.files.values()}


def lock_path(definition_file: Path) -> Path:
    """The path of the lock of a definition file."""
    return definition_file.with_suffix(SUFFIX)


def lock_beside(definition_file: Path | None) -> Lock | None:
    """The lock of a definition file; None if it has none. Raises LockError for one that can't be read."""
    if definition_file is None or not is_file(lock_path(definition_file)):
        return None
    return read_lock(lock_path(definition_file))


def read_lock(path: Path) -> Lock:
    """Read a lock file. Raises LockError."""
    try:
        value = parse_json(read_bytes(path, _MAX_BYTES), path.name, max_bytes=_MAX_BYTES)
    except (FileError, InvalidJSON) as error:
        raise _invalid(path, str(error)) from error
    if not isinstance(value, dict) or not isinstance(value.get("files"), list):
        raise _invalid(path, "It has no list `files`.")
    if value.get("lock_version") != LOCK_VERSION:
        raise _invalid(path, f"Its version is {str(value.get('lock_version'))[:20]}, and only {LOCK_VERSION} is known.")
    if len(value["files"]) > _MAX_FILES:
        raise _invalid(path, f"It lists more than {_MAX_FILES:,} files.")
    files = [_entry(path, number, entry) for number, entry in enumerate(value["files"])]
    return Lock(str(value.get("definition", "")), {file_key(file.source): file for file in files})


def _entry(path: Path, number: int, entry: object) -> LockedFile:
    if isinstance(entry, dict):
        source, size, sha256 = entry.get("source"), entry.get("bytes"), entry.get("sha256")
        valid_size = isinstance(size, int) and not isinstance(size, bool) and 0 <= size < _MAX_SIZE
        if isinstance(source, str) and source and valid_size and isinstance(sha256, str) and SHA256.fullmatch(sha256):
            assert isinstance(size, int)
            return LockedFile(source, size, sha256.lower())
    raise _invalid(path, f"files[{number}] is not an object with `source`, `bytes` and `sha256`.")


def _invalid(path: Path, reason: str) -> LockError:
    hint = "`reeltune lock` writes it again; delete the file to use the definition without it."
    return LockError(f"{path} is not a lock file that can be used: {reason}", hint=hint)


def write_lock(path: Path, lock: Lock) -> None:
    """Write a lock file. Raises FileError."""
    files = [{"source": file.source, "bytes": file.bytes, "sha256": file.sha256} for file in lock.files.values()]
    value = {"lock_version": LOCK_VERSION, "definition": lock.definition, "files": files}
    write_atomic(path, (json.dumps(value, indent=4, ensure_ascii=False) + "\n").encode("utf-8"))
