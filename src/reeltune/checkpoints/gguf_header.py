"""Headers of GGUF files, read with `struct` alone and trusted in nothing.

Format (github.com/ggml-org/ggml, docs/gguf.md), all numbers little-endian: `GGUF`, the version (u32), how many tensors
and how many keys (u64 each); keys with typed values; of each tensor its name, dimensions (the fastest one first), type
and offset; padding up to a multiple of `general.alignment`; the data. Offsets count from the start of the data.

Values may be arrays of any length (the vocabulary of a text encoder). They are skipped, except for the shapes that
ComfyUI-GGUF's converter notes of tensors that it has reshaped (`comfy.gguf.orig_shape.<name>`).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from reeltune._text import shortened
from reeltune.checkpoints.contents import Header, Source, Tensor
from reeltune.checkpoints.gguf_types import TYPES
from reeltune.checkpoints.pieces import AGAIN, PieceReader
from reeltune.errors import HeaderError, UnsupportedFormat
from reeltune.untrusted import clean_text, decode_text

MAGIC = b"GGUF"
CONTAINER = "gguf"
VERSIONS = (2, 3)
_MOST_KEYS = 65_536
_MOST_TENSORS = 65_536
_MOST_TEXTS = 1_000_000  # in arrays: the largest vocabularies have 260,000, with twice as many pairs
_MOST_NAME_BYTES = 1024
_MOST_KEY_BYTES = 65_535
_MOST_TEXT_BYTES = 1_000_000  # of a value that is kept
_MOST_DIMENSIONS = 8
_LARGEST = 2**62
_MOST_SHOWN = 120  # characters of a name in a message
_NUMBERS = MappingProxyType(
    {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<B", 10: "<Q", 11: "<q", 12: "<d"}
)
_INTEGERS = frozenset({0, 1, 2, 3, 4, 5, 10, 11})
_TEXT, _ARRAY = 8, 9
_ALIGNMENT = "general.alignment"
_SPLITS = "split.count"
_SHAPE = "comfy.gguf.orig_shape."
_DEFAULT_ALIGNMENT = 32
_MOST_ALIGNMENT = 65_536
_STEM_CONVOLUTIONS = ("patch_embedding", "img_in.proj")  # [out, in, 1, 2, 2], which is more than GGUF's 4 dimensions
_STEM_KERNEL = (1, 2, 2)
_LEADING_ONE = (".modulation", ".emb_pos")  # [1, n, dim]; a leading 1 gets lost in llama.cpp's tools
_Value = str | int | float | tuple[int, ...] | None


@dataclass(frozen=True)
class _Entry:
    """What the header says of a tensor. `shape`: the slowest dimension first."""

    name: str
    shape: tuple[int, ...]
    type: int
    offset: int


def read_gguf_header(source: Source) -> Header:
    """The header of a GGUF file.

    Its metadata holds the texts and numbers among the values, as text. Raises HeaderError, and UnsupportedFormat for
    other versions, unknown types and files that are one part of several.
    """
    reader = PieceReader(source)
    tensor_count, key_count = _counts(reader)
    values = _values(reader, key_count)
    if values.get(_SPLITS) not in (None, 0, 1):
        message = f"{reader.name} is one part of a model that is split into {values[_SPLITS]} GGUF files."
        raise UnsupportedFormat(message, hint="Join them with `llama-gguf-split --merge`, or use a single file.")
    entries = [_entry(reader) for _ in range(tensor_count)]
    alignment = _alignment(reader.name, values.get(_ALIGNMENT, _DEFAULT_ALIGNMENT))
    data_start = -(-reader.position // alignment) * alignment
    tensors = _tensors(reader.name, entries, values, data_start)
    end, gaps = _extents(reader.name, tensors, data_start, reader.size, alignment)
    trailing = max(0, reader.size - -(-end // alignment) * alignment)
    notices = []
    if gaps:
        notices.append(f"{reader.name}: {gaps} bytes between the tensors belong to none and are ignored.")
    if trailing:
        notices.append(f"{reader.name}: {trailing} bytes follow the data and are ignored.")
    by_name = MappingProxyType({tensor.name: tensor for tensor in tensors})
    return Header(
        file=reader.name,
        tensors=by_name,
        metadata=_metadata(values),
        file_bytes=reader.size,
        data_start=data_start,
        trailing=trailing,
        notices=tuple(notices),
        container=CONTAINER,
    )


def _counts(reader: PieceReader) -> tuple[int, int]:
    """How many tensors and keys there are. Raises as `read_gguf_header`."""
    if reader.take(len(MAGIC)) != MAGIC:
        raise HeaderError(f"{reader.name} is not a GGUF file.", hint=AGAIN)
    version = reader.number("<I")
    if version not in VERSIONS:
        kind = "big-endian numbers" if version & 0xFFFF == 0 else f"version {version}"
        message = f"{reader.name} is a GGUF file with {kind}, which can't be read."
        raise UnsupportedFormat(message, hint="Use a file of version 3 or 2.")
    tensor_count = reader.number("<Q")
    key_count = reader.number("<Q")
    if tensor_count > _MOST_TENSORS or key_count > _MOST_KEYS:
        message = f"{reader.name}: impossible numbers of tensors and keys: {tensor_count:,} and {key_count:,}."
        raise HeaderError(message, hint=AGAIN)
    if not tensor_count:
        raise HeaderError(f"{reader.name} holds no tensors.")
    return tensor_count, key_count


# --- keys and values ------------------------------------------------------------------------------------------


def _values(reader: PieceReader, count: int) -> Mapping[str, _Value]:
    """All keys with their values, of which those that aren't needed are None."""
    values: dict[str, _Value] = {}
    texts_left = _MOST_TEXTS
    for _ in range(count):
        key = decode_text(reader.text(_MOST_KEY_BYTES, "a key"))
        if key in values:
            raise HeaderError(f"{reader.name}: the key {_quoted(key)} occurs twice in the header.")
        kind = reader.number("<I")
        if kind == _ARRAY:
            values[key], texts = _array(reader, key, texts_left)
            texts_left -= texts
        elif kind == _TEXT:
            values[key] = _text(reader)
        else:
            values[key] = _number(reader, key, kind)
    return values


def _text(reader: PieceReader) -> str | None:
    """A text, None where it is too long to be kept."""
    length = reader.number("<Q")
    if length > _MOST_TEXT_BYTES:
        reader.skip(length)
        return None
    return clean_text(decode_text(reader.take(length)))


def _number(reader: PieceReader, key: str, kind: int) -> int | float:
    if kind not in _NUMBERS:
        raise HeaderError(f"{reader.name}: the value of {_quoted(key)} has the unknown type {kind}.", hint=AGAIN)
    number_format = _NUMBERS[kind]
    value: int | float
    (value,) = struct.unpack(number_format, reader.take(struct.calcsize(number_format)))
    return value


def _array(reader: PieceReader, key: str, most_texts: int) -> tuple[tuple[int, ...] | None, int]:
    """The integers of an array that may be a shape, None for any other; and how many texts it holds."""
    kind, count = reader.number("<I"), reader.number("<Q")
    if kind == _TEXT:
        if count > most_texts:
            raise HeaderError(f"{reader.name}: {_quoted(key)} holds impossibly many texts: {count:,}.")
        for _ in range(count):
            reader.skip(reader.number("<Q"))
        return None, count
    if kind not in _NUMBERS:
        raise HeaderError(f"{reader.name}: {_quoted(key)} is an array of the unknown type {kind}.", hint=AGAIN)
    number_format = _NUMBERS[kind]
    if kind in _INTEGERS and count <= _MOST_DIMENSIONS:
        return tuple(reader.number(number_format) for _ in range(count)), 0
    reader.skip(count * struct.calcsize(number_format))
    return None, 0


def _alignment(file: str, value: _Value) -> int:
    if type(value) is not int or not 1 <= value <= _MOST_ALIGNMENT or value & (value - 1):
        raise HeaderError(f"{file}: the alignment {_quoted(value)} is not a power of two.", hint=AGAIN)
    return value


def _metadata(values: Mapping[str, _Value]) -> Mapping[str, str]:
    kept = {key: str(value) for key, value in values.items() if isinstance(value, str | int | float)}
    return MappingProxyType(kept)


# --- tensors --------------------------------------------------------------------------------------------------


def _entry(reader: PieceReader) -> _Entry:
    raw = reader.text(_MOST_NAME_BYTES, "the name of a tensor")
    try:
        name = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise HeaderError(f"{reader.name}: the name of a tensor is not UTF-8 text.", hint=AGAIN) from error
    dimensions = reader.number("<I")
    if dimensions > _MOST_DIMENSIONS:
        raise HeaderError(f"{reader.name}: tensor {_quoted(name)} has {dimensions} dimensions.", hint=AGAIN)
    sides = [reader.number("<Q") for _ in range(dimensions)]
    return _Entry(name, tuple(reversed(sides)), reader.number("<I"), reader.number("<Q"))


def _tensors(file: str, entries: list[_Entry], values: Mapping[str, _Value], data_start: int) -> list[Tensor]:
    """All tensors with the shapes that the model has. Raises HeaderError, UnsupportedFormat."""
    shapes = {entry.name: entry.shape for entry in entries}
    if len(shapes) != len(entries):
        raise HeaderError(f"{file}: the name of a tensor occurs twice in the header.", hint=AGAIN)
    tensors = []
    for entry in entries:
        stored = _stored(file, entry, data_start)
        noted = values.get(_SHAPE + entry.name)
        shape = noted if isinstance(noted, tuple) else _restored(entry, shapes)
        if math.prod(shape) != stored.elements or any(side < 0 for side in shape):
            message = f"{file}: tensor {_quoted(entry.name)} holds {stored.elements} values, not {list(shape)}."
            raise HeaderError(message, hint=AGAIN)
        tensors.append(Tensor(stored.name, stored.dtype, shape, stored.begin, stored.end))
    return tensors


def _stored(file: str, entry: _Entry, data_start: int) -> Tensor:
    """A tensor as it is stored. Raises HeaderError, UnsupportedFormat."""
    if entry.type not in TYPES:
        message = f"{file}: tensor {_quoted(entry.name)} is of GGUF's type {entry.type}, which isn't known here."
        raise UnsupportedFormat(message, hint="Use a Q8_0 or Q4_K version.")
    block = TYPES[entry.type]
    elements = math.prod(max(1, side) for side in entry.shape)  # a side of 0 would hide how large the others are
    if elements >= _LARGEST or entry.offset >= _LARGEST:
        raise HeaderError(f"{file}: tensor {_quoted(entry.name)} has an impossible shape or offset.", hint=AGAIN)
    if entry.shape and entry.shape[-1] % block.values:
        rows = f"the rows of tensor {_quoted(entry.name)}, {list(entry.shape)},"
        message = f"{file}: {rows} can't be divided into blocks of {block.name}."
        raise HeaderError(message, hint=AGAIN)
    if not entry.shape and block.values > 1:
        raise HeaderError(f"{file}: tensor {_quoted(entry.name)} is a single {block.name} value.", hint=AGAIN)
    begin = data_start + entry.offset
    length = math.prod(entry.shape) // block.values * block.bytes
    return Tensor(entry.name, block.name, entry.shape, begin, begin + length)


def _restored(entry: _Entry, shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
    """The shape that a tensor has in its model, where GGUF's writers change it without a note."""
    shape = entry.shape
    if entry.name.endswith(_LEADING_ONE) and len(shape) == 2:
        return (1, *shape)
    module = entry.name.removesuffix(".weight")
    if module == entry.name or not module.endswith(_STEM_CONVOLUTIONS) or len(shape) > 4:
        return shape
    rows = math.prod(shapes.get(f"{module}.bias", ()))
    columns = rows * math.prod(_STEM_KERNEL)
    if not columns or math.prod(shape) % columns:
        return shape
    return (rows, math.prod(shape) // columns, *_STEM_KERNEL)


def _extents(file: str, tensors: list[Tensor], data_start: int, size: int, alignment: int) -> tuple[int, int]:
    """The end of the data, and the number of bytes in it that belong to no tensor, padding left out.

    Raises HeaderError where tensors overlap or pass the end of the file.
    """
    position = data_start
    gaps = 0
    for tensor in sorted(tensors, key=lambda tensor: (tensor.begin, tensor.end)):
        if tensor.begin < position:
            raise HeaderError(f"{file}: tensor {_quoted(tensor.name)} overlaps the one before it.", hint=AGAIN)
        if tensor.begin - position >= alignment:
            gaps += tensor.begin - position
        position = tensor.end
    if position > size:
        raise HeaderError(f"{file} is truncated: {size:,} bytes of {position:,} are here.", hint=AGAIN)
    return position, gaps


def _quoted(value: object) -> str:
    """A name or value of the file, quoted and cut for a message."""
    return shortened(repr(value), _MOST_SHOWN)
