"""Safetensors headers, read with `json` and `struct` alone and trusted in nothing.

Format (github.com/huggingface/safetensors): 8 bytes little-endian header size, that many bytes of JSON
`{name: {"dtype", "shape", "data_offsets": [begin, end]}, "__metadata__": {str: str}}`, then the data; offsets
count from the end of the header. Every offset is checked, so that a cut or forged file is a typed error.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol, Self

from reeltune.errors import HeaderError, UnsupportedFormat

MAX_HEADER_BYTES = 100_000_000
PREFIX_BYTES = 8
DTYPE_BITS = MappingProxyType(
    {
        "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
        "U16": 16, "I16": 16, "F16": 16, "BF16": 16,
        "U32": 32, "I32": 32, "F32": 32, "U64": 64, "I64": 64, "F64": 64, "C64": 64,
    }
)  # fmt: skip


class Source(Protocol):
    """Bytes that can be read anywhere: a file, or a URL that answers Range requests."""

    @property
    def name(self) -> str:
        """What to call it in messages."""

    def size(self) -> int:
        """Length in bytes."""

    def read_at(self, offset: int, length: int) -> bytes:
        """Exactly `length` bytes from `offset`, or fewer at the end."""


class FileSource:
    """A local file as a source; opened once, closed on leaving the `with` block."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file = path.open("rb")
        except OSError as error:
            raise HeaderError(f"{path} can't be opened: {error.strerror or error}.") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._file.close()

    @property
    def name(self) -> str:
        """The path."""
        return str(self._path)

    def size(self) -> int:
        """Length in bytes."""
        return self._path.stat().st_size

    def read_at(self, offset: int, length: int) -> bytes:
        """Exactly `length` bytes from `offset`, or fewer at the end."""
        try:
            self._file.seek(offset)
            return self._file.read(length)
        except OSError as error:
            raise HeaderError(f"{self._path} can't be read: {error.strerror or error}.") from error


@dataclass(frozen=True)
class Tensor:
    """One tensor's row in the header; `begin` and `end` count from the start of the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def elements(self) -> int:
        """Number of values."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Header:
    """Names, dtypes, shapes and metadata of a checkpoint, without its data.

    `trailing` counts bytes after the data, which some writers leave and no reader needs.
    """

    file: str
    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str]
    file_bytes: int
    data_start: int
    trailing: int = 0
    notices: tuple[str, ...] = field(default=())


def read_header(path: Path) -> Header:
    """Header of a local file. Raises HeaderError, or UnsupportedFormat for a file that is something else."""
    with FileSource(path) as source:
        return parse_header(source)


def parse_header(source: Source) -> Header:
    """Header of any source. Raises HeaderError or UnsupportedFormat, never anything else for bad bytes."""
    size = source.size()
    start = source.read_at(0, PREFIX_BYTES)
    if len(start) < PREFIX_BYTES:
        raise HeaderError(f"{source.name} is too short for a checkpoint: {size} bytes.", hint="Fetch it again.")
    (length,) = struct.unpack("<Q", start)
    if length > MAX_HEADER_BYTES or length < 2:
        _refuse_other_formats(source.name, start)  # their first bytes, read as a length, are absurd
        raise HeaderError(
            f"{source.name} is not a safetensors file.",  # nothing of its content: the path may be a stranger's
            hint="Fetch it again, or check what the link really serves.",
        )
    if PREFIX_BYTES + length > size:
        _refuse_other_formats(source.name, start)
        raise HeaderError(
            f"{source.name} is not a safetensors file, or is truncated inside its header: {size} bytes.",
            hint="Fetch it again.",
        )
    raw = source.read_at(PREFIX_BYTES, length)
    if len(raw) != length:
        raise HeaderError(f"{source.name} ends inside its header.", hint="Fetch it again.")
    return _build(source.name, _decode(source.name, raw), size, PREFIX_BYTES + length)


def _refuse_other_formats(name: str, start: bytes) -> None:
    if start[:4] == b"GGUF":
        raise UnsupportedFormat(
            f"{name} is a GGUF file, which can't be loaded here.", hint="Use a safetensors version."
        )
    if start[:2] == b"PK" or start[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):
        raise UnsupportedFormat(
            f"{name} is a pickle or zip archive, which can run code and is never loaded.",
            hint="Ask its author for a safetensors file.",
        )
    if start.lstrip()[:1] in (b"<", b"{"):
        raise UnsupportedFormat(
            f"{name} is a web page or a JSON text, not weights.",
            hint="The link probably needs a login, or leads to a page instead of the file.",
        )


def _decode(name: str, raw: bytes) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise HeaderError(f"{name}: a name occurs twice in the header.")
        return found

    try:
        header = json.loads(raw.decode("utf-8"), object_pairs_hook=unique)
    except UnicodeDecodeError as error:
        raise HeaderError(f"{name}: the header is not UTF-8 (byte {error.start}).", hint="Fetch it again.") from error
    except RecursionError as error:
        raise HeaderError(f"{name}: the header is nested too deeply.") from error
    except ValueError as error:
        raise HeaderError(f"{name}: the header is not JSON ({error}).", hint="Fetch it again.") from error
    if not isinstance(header, dict):
        raise HeaderError(f"{name}: the header is not a JSON object.")
    return header


def _build(name: str, raw: dict[str, Any], size: int, data_start: int) -> Header:
    metadata = raw.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise HeaderError(f"{name}: the header's metadata is not a table of strings.")
    if not raw:
        raise HeaderError(f"{name} holds no tensors.")
    tensors = [_tensor(name, key, row, data_start) for key, row in raw.items()]
    end = _check_extents(name, tensors, data_start, size)
    trailing = size - end
    notices = (f"{name}: {trailing} bytes follow the data and are ignored.",) if trailing else ()
    rows = MappingProxyType({tensor.name: tensor for tensor in tensors})
    return Header(name, rows, MappingProxyType(metadata), size, data_start, trailing, notices)


def _tensor(file: str, name: str, row: Any, data_start: int) -> Tensor:
    try:
        dtype, shape, (begin, end) = row["dtype"], row["shape"], row["data_offsets"]
    except (TypeError, KeyError, ValueError) as error:
        raise HeaderError(f"{file}: tensor {name!r} lacks its dtype, shape or offsets.") from error
    if not isinstance(dtype, str) or dtype not in DTYPE_BITS:
        raise HeaderError(f"{file}: tensor {name!r} has the unknown dtype {dtype!r}.")
    numbers = [*shape, begin, end] if isinstance(shape, list) else [None]
    if not all(type(number) is int and 0 <= number < 2**62 for number in numbers):
        raise HeaderError(f"{file}: tensor {name!r} has an impossible shape or offset.")
    if end - begin != (math.prod(shape) * DTYPE_BITS[dtype] + 7) // 8:
        raise HeaderError(f"{file}: tensor {name!r} takes {end - begin} bytes, not what {dtype} {shape} needs.")
    return Tensor(name, dtype, tuple(shape), data_start + begin, data_start + end)


def _check_extents(file: str, tensors: list[Tensor], data_start: int, size: int) -> int:
    """End of the data in bytes; raises where tensors overlap, leave a hole or pass the end of the file."""
    position = data_start
    for tensor in sorted(tensors, key=lambda tensor: (tensor.begin, tensor.end)):
        if tensor.begin < position:
            raise HeaderError(f"{file}: tensor {tensor.name!r} overlaps the one before it.")
        if tensor.begin > position:
            raise HeaderError(f"{file}: {tensor.begin - position} bytes before tensor {tensor.name!r} belong to none.")
        position = tensor.end
    if position > size:
        raise HeaderError(f"{file} is truncated: {size:,} bytes of {position:,} are here.", hint="Fetch it again.")
    return position
