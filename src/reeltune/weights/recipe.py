"""What a checkpoint becomes when it is quantized or converted: the new file's header, and each tensor's way into it.

Worked out from headers alone; where everything will lie in the new file is known before its first byte is written.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from reeltune.checkpoints.header import DTYPE_BITS, Tensor
from reeltune.checkpoints.keys import matches
from reeltune.checkpoints.quanto import ACTIVATION_SCALES, DATA, SCALE
from reeltune.errors import UnsupportedFormat
from reeltune.families import Family
from reeltune.weights.edits import Edit
from reeltune.weights.matching import Source
from reeltune.weights.parts import Parts

STORED = {"bf16": "BF16", "fp16": "F16"}
_WIDE = ("F32", "F64")
_FLOATS = ("BF16", "F16", "F8_E4M3", "F8_E5M2", *_WIDE)


@dataclass(frozen=True)
class Task:
    """One stored tensor's way: read from `source` in `home`, times its `scale` (fp8) and the file of it, changed by
    `edits`.

    `outputs`: the tensor it becomes; or of a quantized one, its data and its scales.
    """

    source: Tensor
    home: Path
    scale: tuple[Tensor, Path] | None
    edits: tuple[Edit, ...]
    outputs: tuple[Tensor, ...]

    @property
    def quantized(self) -> bool:
        """Whether it becomes int8."""
        return len(self.outputs) > 1

    @property
    def matrix(self) -> tuple[int, int]:
        """The tensor seen as [rows, columns]: its first dimension by all others together."""
        rows = self.source.shape[0] if self.source.shape else 1
        return rows, self.source.elements // max(1, rows)


@dataclass(frozen=True)
class Recipe:
    """The new file: `start` is its header's bytes, `ones` the scalars that are 1; `bytes` its size."""

    tasks: tuple[Task, ...]
    start: bytes
    ones: tuple[Tensor, ...]
    bytes: int
    modules: tuple[str, ...]

    @property
    def reads(self) -> int:
        """Bytes of weights that are read."""
        return sum(task.source.end - task.source.begin for task in self.tasks)


@dataclass(frozen=True)
class Wish:
    """`to`: "int8", "bf16" or "fp16"; `dtype`: of the scales and of all that isn't quantized; `fp32`: what stays so."""

    to: str
    dtype: str
    fp32: tuple[str, ...]


def write_recipe(
    parts: Parts,
    source: Source,
    family: Family,
    wish: Wish,
    edits: Mapping[str, Sequence[Edit]],
    metadata: Mapping[str, str],
) -> Recipe:
    """Work out the new file. Names stay as they are, in whichever layout. Raises UnsupportedFormat."""
    wide = _mostly_wide(source)  # else what is fp32 in it was kept so on purpose
    drafts: list[tuple[str, tuple[tuple[str, str, tuple[int, ...]], ...]]] = []
    modules = []
    for stored in source.parameters():
        dtype, shape = source.header.tensors[stored].dtype, source.header.tensors[stored].shape
        if dtype not in _FLOATS or 0 in shape:
            raise UnsupportedFormat(f"{source.header.file}: {stored} is {dtype} {list(shape)}, which can't be read.")
        if wish.to != "int8" or not _quantizable(source, stored, family):
            drafts.append((stored, ((stored, _kept(source, stored, wish, wide, family), shape),)))
            continue
        module = stored.removesuffix(".weight")
        modules.append(module)
        scales = (module + SCALE, STORED[wish.dtype], (shape[0], 1))
        drafts.append((stored, ((module + DATA, "I8", shape), scales)))
    scalars = [(module + suffix, STORED[wish.dtype], ()) for module in modules for suffix in ACTIVATION_SCALES]
    laid, start, size = _lay_out([*(row for _, rows in drafts for row in rows), *scalars], metadata)
    tasks = []
    for stored, rows in drafts:
        scale = source.fp8_scales.get(stored)
        place = (source.header.tensors[scale], parts.homes[scale]) if scale else None
        outputs = tuple(laid[name] for name, _, _ in rows)
        tensor, home = source.header.tensors[stored], parts.homes[stored]
        tasks.append(Task(tensor, home, place, tuple(edits.get(stored, ())), outputs))
    return Recipe(tuple(tasks), start, tuple(laid[name] for name, _, _ in scalars), size, tuple(modules))


def _quantizable(source: Source, stored: str, family: Family) -> bool:
    """Whether it is the weight of a linear inside the transformer's blocks."""
    tensor, module = source.header.tensors[stored], source.names.original[stored].removesuffix(".weight")
    linear = stored.endswith(".weight") and len(tensor.shape) == 2 and tensor.dtype in _FLOATS
    return linear and any(matches(module, pattern) for pattern in family.quantizable)


def _kept(source: Source, stored: str, wish: Wish, wide: bool, family: Family) -> str:
    """Stored data type of a tensor that isn't quantized."""
    kept = any(part in name.split(".") for name in source.names.diffusers[stored].names for part in wish.fp32)
    kept = kept or not (wide or _quantizable(source, stored, family))
    return "F32" if source.header.tensors[stored].dtype in _WIDE and kept else STORED[wish.dtype]


def _mostly_wide(source: Source) -> bool:
    """Whether most of the weights are fp32 or wider."""
    sizes = [(tensor.dtype in _WIDE, tensor.elements) for tensor in source.header.tensors.values()]
    return 2 * sum(count for wide, count in sizes if wide) > sum(count for _, count in sizes)


def _lay_out(
    rows: Sequence[tuple[str, str, tuple[int, ...]]], metadata: Mapping[str, str]
) -> tuple[dict[str, Tensor], bytes, int]:
    """Where every tensor lies: the wider data types first, so that each begins at a multiple of its size."""
    ordered = sorted(rows, key=lambda row: -DTYPE_BITS[row[1]])
    table: dict[str, object] = {"__metadata__": dict(metadata)}
    offset, offsets = 0, []
    for name, dtype, shape in ordered:
        size = math.prod(shape) * DTYPE_BITS[dtype] // 8
        table[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, offset + size]}
        offsets.append((offset, offset + size))
        offset += size
    text = json.dumps(table, separators=(",", ":")).encode("ascii")
    text += b" " * (-len(text) % 8)
    start = struct.pack("<Q", len(text)) + text
    laid = {
        name: Tensor(name, dtype, shape, len(start) + begin, len(start) + end)
        for (name, dtype, shape), (begin, end) in zip(ordered, offsets, strict=True)
    }
    return laid, start, len(start) + offset


@dataclass(frozen=True)
class Piece:
    """Some rows of a task: what a worker takes at once."""

    task: Task
    first: int
    rows: int


def pieces(recipe: Recipe, most: int) -> Iterator[Piece]:
    """The whole recipe in pieces of at most `most` bytes to read (one row at least), in the order of the tasks."""
    for task in recipe.tasks:
        rows, columns = task.matrix
        row_bytes = max(1, (task.source.end - task.source.begin) // max(1, rows))
        step = max(1, most // row_bytes)
        for first in range(0, rows if columns else 0, step):
            yield Piece(task, first, min(step, rows - first))
