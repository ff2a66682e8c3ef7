"""A checkpoint to read as a stream: one file, or a set `name-00001-of-00006.safetensors` … as one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from reeltune.checkpoints.contents import Header, Tensor
from reeltune.checkpoints.header import read_header
from reeltune.errors import HeaderError

_SET = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})(?P<suffix>\.safetensors)", re.IGNORECASE)
_MOST_FILES = 1000


@dataclass(frozen=True)
class Parts:
    """The header of all files together, and the file each tensor is in; offsets count within that file."""

    header: Header
    homes: Mapping[str, Path]

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file, once, in order."""
        return tuple(dict.fromkeys(self.homes.values()))


def read_parts(path: Path) -> Parts:
    """Headers of a file, or of the whole set it belongs to. Raises HeaderError where one of the set is missing."""
    tensors: dict[str, Tensor] = {}
    homes: dict[str, Path] = {}
    headers = [read_header(file) for file in files_of(path)]
    for header in headers:
        for name, tensor in header.tensors.items():
            if name in tensors:
                raise HeaderError(f"{header.file}: tensor {name!r} is in another file of the set too.")
            tensors[name] = tensor
            homes[name] = Path(header.file)
    size = sum(header.file_bytes for header in headers)
    notes = {name: note for header in headers for name, note in header.notes.items()}
    return Parts(replace(headers[0], file=str(path), tensors=tensors, file_bytes=size, notes=notes), homes)


def name_of_all(path: Path) -> str:
    """File name of a checkpoint, that of a whole set without its number."""
    numbered = _SET.fullmatch(path.name)
    if numbered is None:
        return path.name
    return numbered["stem"] + numbered["suffix"]


def files_of(path: Path) -> list[Path]:
    """A file, or all files of the set that it belongs to. Raises HeaderError where one of the set is missing."""
    numbered = _SET.fullmatch(path.name)
    if numbered is None:
        return [path]
    count = int(numbered["count"])
    if not 1 <= count <= _MOST_FILES:
        raise HeaderError(f"{path} says it is one of {count} files.", hint="Rename it.")
    stem, suffix = numbered["stem"], numbered["suffix"]
    names = [f"{stem}-{number:05}-of-{count:05}{suffix}" for number in range(1, count + 1)]
    missing = [name for name in names if not path.with_name(name).is_file()]
    if missing:
        raise HeaderError(
            f"{path} is one of {count} files, and {len(missing)} of them are missing, the first is {missing[0]}.",
            hint=f"Put all of them into {path.parent}.",
        )
    return [path.with_name(name) for name in names]
