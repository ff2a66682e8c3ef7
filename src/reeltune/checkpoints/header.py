"""Safetensors headers, read with `json` and `struct` alone and trusted in nothing.

Format (github.com/huggingface/safetensors): 8 bytes little-endian header size, that many bytes of JSON
`{name: {"dtype", "shape", "data_offsets": [begin, end]}, "__metadata__": {str: str}}`, then the data; offsets
count from the end of the header. Every offset is checked, so that a cut or forged file is a typed error.
"""

from __future__ import annotations

import math
import os
import stat
import struct
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

from reeltune.checkpoints.contents import Header, Source, Tensor
from reeltune.checkpoints.foreign import START_BYTES, refuse_foreign
from reeltune.checkpoints.formats import format_by_start
from reeltune.checkpoints.notes import read_notes
from reeltune.errors import HeaderError, InvalidJSON
from reeltune.files import reason
from reeltune.untrusted import JsonObject, RepeatedKeys, parse_json

MAX_HEADER_BYTES = 100_000_000
PREFIX_BYTES = 8
_AGAIN = "Download it again."
_MOST_DIMENSIONS = 16
_LARGEST = 2**62
_MOST_SHOWN = 120  # characters of a name or value in a message
DTYPE_BITS = MappingProxyType(
    {
        "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
        "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
        "U16": 16, "I16": 16, "F16": 16, "BF16": 16,
        "U32": 32, "I32": 32, "F32": 32, "U64": 64, "I64": 64, "F64": 64, "C64": 64,
    }
)  # fmt: skip


class FileSource:
    """A local regular file as a source; opened once, closed on leaving the `with` block."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:  # without O_NONBLOCK, opening a named pipe would wait for ever
            handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
            self._file = os.fdopen(handle, "rb")
            self._facts = os.fstat(handle)
        except (OSError, ValueError) as error:
            raise HeaderError(f"{path} can't be opened: {reason(error)}.") from error
        if not stat.S_ISREG(self._facts.st_mode):
            self._file.close()
            raise HeaderError(f"{path} can't be opened: it is not a regular file.")

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
        return self._facts.st_size

    def read_at(self, offset: int, length: int) -> bytes:
        """Exactly `length` bytes from `offset`, or fewer at the end."""
        try:
            self._file.seek(offset)
            return self._file.read(length)
        except OSError as error:
            raise HeaderError(f"{self._path} can't be read: {reason(error)}.") from error


def read_header(path: Path) -> Header:
    """Header of a local file. Raises HeaderError, or UnsupportedFormat for a file that is something else."""
    with FileSource(path) as source:
        return parse_header(source, all_notes=True)


def parse_header(source: Source, *, all_notes: bool = False) -> Header:
    """Header of any source. Raises HeaderError or UnsupportedFormat, never anything else for bad bytes.

    `all_notes`: read the notes on the layers also where that takes many reads.
    """
    size = source.size()
    start = source.read_at(0, START_BYTES)
    if len(start) < PREFIX_BYTES:
        raise HeaderError(f"{source.name} is too short for a checkpoint: {size} bytes.", hint=_AGAIN)
    (length,) = struct.unpack("<Q", start[:PREFIX_BYTES])
    if length > MAX_HEADER_BYTES or length < 2 or PREFIX_BYTES + length > size:
        # the first bytes of other formats, read as a length, are absurd
        other_format = format_by_start(start)
        if other_format is not None:
            return other_format.read_header(source)
        refuse_foreign(source.name, start)
    if length > MAX_HEADER_BYTES or length < 2:
        raise HeaderError(
            f"{source.name} is not a safetensors file: the length of its header is impossible.",
            hint="Download it again, or check what its URL really serves.",
        )
    if PREFIX_BYTES + length > size:
        raise HeaderError(f"{source.name} is truncated inside its header: it holds {size:,} bytes.", hint=_AGAIN)
    raw = source.read_at(PREFIX_BYTES, length)
    if len(raw) != length:
        raise HeaderError(f"{source.name} ends inside its header.", hint=_AGAIN)
    header = _build(source.name, _decode(source.name, raw), size, PREFIX_BYTES + length)
    return replace(header, notes=read_notes(source, header.tensors, everything=all_notes))


def _decode(name: str, raw: bytes) -> JsonObject:
    try:
        header = parse_json(raw, f"The header of {name}", max_bytes=MAX_HEADER_BYTES)
    except InvalidJSON as error:
        raise HeaderError(f"{name}: the header is damaged. {error.message}", hint=_AGAIN) from error
    if not isinstance(header, dict):
        raise HeaderError(f"{name}: the header is not a JSON object.")
    if isinstance(header, RepeatedKeys):
        raise HeaderError(f"{name}: the name {_short(header.repeated[0])} occurs twice in the header.")
    return header


def _build(name: str, raw: JsonObject, size: int, data_start: int) -> Header:
    metadata = raw.pop("__metadata__", None)
    if metadata is None:  # the official library reads null as none
        metadata = {}
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise HeaderError(f"{name}: the header's metadata is not a table of strings.")
    if not raw:
        raise HeaderError(f"{name} holds no tensors.")
    tensors = [_tensor(name, key, entry, data_start) for key, entry in raw.items()]
    end = _check_extents(name, tensors, data_start, size)
    trailing = size - end
    notices = (f"{name}: {trailing} bytes follow the data and are ignored.",) if trailing else ()
    by_name = MappingProxyType({tensor.name: tensor for tensor in tensors})
    return Header(name, by_name, MappingProxyType(metadata), size, data_start, trailing, notices)


def _short(name: object) -> str:
    """A name or value of the file, quoted and cut for a message."""
    text = repr(name)
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}…"


def _tensor(file: str, name: str, entry: Any, data_start: int) -> Tensor:
    try:
        dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
    except (TypeError, KeyError, ValueError) as error:
        raise HeaderError(f"{file}: tensor {_short(name)} lacks its dtype, shape or offsets.") from error
    if not isinstance(dtype, str) or dtype not in DTYPE_BITS:
        raise HeaderError(f"{file}: tensor {_short(name)} has the unknown dtype {_short(dtype)}.")
    numbers = [*shape, begin, end] if isinstance(shape, list) and len(shape) <= _MOST_DIMENSIONS else [None]
    if not all(type(number) is int and 0 <= number < _LARGEST for number in numbers) or not _countable(shape):
        raise HeaderError(f"{file}: tensor {_short(name)} has an impossible shape or offset.")
    if end - begin != (math.prod(shape) * DTYPE_BITS[dtype] + 7) // 8:
        raise HeaderError(
            f"{file}: tensor {_short(name)} takes {end - begin} bytes, not what {dtype} {_short(shape)} needs."
        )
    return Tensor(name, dtype, tuple(shape), data_start + begin, data_start + end)


def _countable(shape: list[int]) -> bool:
    """Whether strides of the shape fit 64 bits, also where a side of 0 hides how large the others are."""
    return math.prod(max(1, side) for side in shape) < _LARGEST


def _check_extents(file: str, tensors: list[Tensor], data_start: int, size: int) -> int:
    """End of the data in bytes; raises where tensors overlap, leave a hole or pass the end of the file."""
    position = data_start
    for tensor in sorted(tensors, key=lambda tensor: (tensor.begin, tensor.end)):
        if tensor.begin < position:
            raise HeaderError(f"{file}: tensor {_short(tensor.name)} overlaps the one before it.")
        if tensor.begin > position:
            raise HeaderError(
                f"{file}: {tensor.begin - position} bytes before tensor {_short(tensor.name)} belong to none."
            )
        position = tensor.end
    if position > size:
        raise HeaderError(f"{file} is truncated: {size:,} bytes of {position:,} are here.", hint=_AGAIN)
    return position
