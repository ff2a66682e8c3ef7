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

from reeltune.checkpoints.contents import Tensor
from reeltune.checkpoints.formats.base import ACTIVATION_SCALES, module_of
from reeltune.checkpoints.formats.fp8 import MARK, MARK_SHAPE, ROW_SCALE, TENSOR_SCALE
from reeltune.checkpoints.formats.quanto_int8 import DATA, SCALE
from reeltune.checkpoints.gguf_types import DECODED
from reeltune.checkpoints.header import DTYPE_BITS
from reeltune.checkpoints.keys import matches
from reeltune.checkpoints.source import WeightSource
from reeltune.dtypes import DType, Quantization
from reeltune.errors import UnsupportedFormat
from reeltune.families import Family
from reeltune.weights.edits import RowEdit
from reeltune.weights.formats import Decoder, decoder_of
from reeltune.weights.parts import Parts

STORED = {DType.BF16: "BF16", DType.FP16: "F16", DType.FP32: "F32"}
INT8 = "int8"
FP8 = "fp8"
_FP8_STORED = "F8_E4M3"
_WIDE = ("F32", "F64", *DECODED)  # GGUF's blocks are fp32 once they are decoded


@dataclass(frozen=True)
class Task:
    """One stored tensor's way: read from `source` in `home`, decoded with its `scale` and the file of that, changed by
    `edits`.

    `factors`: single numbers that make the scale of the whole weight, beside `scale`, with their files.
    `shape`: of the weight; `outputs`: the tensor it becomes; or of a quantized one, its data and its scales, if any.
    `rows_apart`: whether some of its rows can be decoded without the others.
    """

    source: Tensor
    shape: tuple[int, ...]
    home: Path
    decoder: Decoder
    scale: tuple[Tensor, Path] | None
    edits: tuple[RowEdit, ...]
    outputs: tuple[Tensor, ...]
    rows_apart: bool = True
    factors: tuple[tuple[Tensor, Path], ...] = ()

    @property
    def quantized(self) -> bool:
        """Whether it becomes int8."""
        return self.outputs[0].dtype == "I8"

    @property
    def to_fp8(self) -> bool:
        """Whether it becomes fp8."""
        return self.outputs[0].dtype == _FP8_STORED

    @property
    def row_scales(self) -> bool:
        """Whether it becomes fp8 with a scale for each row."""
        return self.to_fp8 and len(self.outputs) > 1 and self.outputs[1].shape != ()

    @property
    def whole_scale(self) -> bool:
        """Whether it becomes fp8 with one scale, for which the whole weight must be looked at first."""
        return self.to_fp8 and len(self.outputs) > 1 and self.outputs[1].shape == ()

    @property
    def plain(self) -> bool:
        """Whether what is stored is the weight itself, in a data type that is computed with directly."""
        return self.scale is None and not self.edits and self.decoder.is_plain(self.source)

    @property
    def matrix(self) -> tuple[int, int]:
        """The weight seen as [rows, columns]: its first dimension by all others together."""
        rows = self.shape[0] if self.shape else 1
        return rows, math.prod(self.shape) // max(1, rows)

    @property
    def row_bytes(self) -> int:
        """Bytes that a row takes as it is stored."""
        return (self.source.end - self.source.begin) // max(1, self.matrix[0])


@dataclass(frozen=True)
class Recipe:
    """The new file: `start` is its header's bytes, `ones` the scalars that are 1, `zeros` the marks that hold zeros;
    `bytes` its size; `quantization`: how its weights are stored.
    """

    tasks: tuple[Task, ...]
    start: bytes
    ones: tuple[Tensor, ...]
    bytes: int
    modules: tuple[str, ...]
    quantization: Quantization = Quantization.NONE
    zeros: tuple[Tensor, ...] = ()

    @property
    def written(self) -> list[Tensor]:
        """Every tensor of the new file."""
        return [tensor for task in self.tasks for tensor in task.outputs] + [*self.ones, *self.zeros]

    @property
    def reads(self) -> int:
        """Bytes of weights that are read."""
        return sum(task.source.end - task.source.begin for task in self.tasks)


@dataclass(frozen=True)
class Target:
    """What the new file is to be. `to`: "int8", "fp8", "bf16" or "fp16"; `dtype`: of int8's scales, and of what isn't
    quantized; `fp32`: modules that stay so; `scales`: of fp8, one for each "row" or "tensor", or "none".
    """

    to: str
    dtype: DType
    fp32: tuple[str, ...]
    scales: str = "tensor"

    @property
    def quantization(self) -> Quantization:
        """How the weights of the new file are stored, where any are quantized."""
        if self.to == INT8:
            return Quantization.QUANTO_INT8
        if self.to == FP8:
            return Quantization.FP8 if self.scales == "none" else Quantization.FP8_SCALED
        return Quantization.NONE


@dataclass(frozen=True)
class Output:
    """A tensor of the new file, before it is known where it lies."""

    name: str
    dtype: str
    shape: tuple[int, ...]


def write_recipe(
    parts: Parts,
    source: WeightSource,
    family: Family,
    target: Target,
    edits: Mapping[str, Sequence[RowEdit]],
    metadata: Mapping[str, str],
) -> Recipe:
    """Work out the new file. Names stay as they are, in whichever layout. Raises UnsupportedFormat."""
    wide = _mostly_wide(source)  # else what is fp32 in it was kept so on purpose
    outputs: dict[str, list[Output]] = {}
    modules: list[str] = []
    for stored in source.parameters():
        _check_readable(source, stored)
        if target.to in (INT8, FP8) and _quantizable(source, stored, family):
            module = module_of(source.format.weight_name(stored))
            modules.append(module)
            outputs[stored] = _quantized_outputs(module, source.weight_shape(stored), target)
        else:
            dtype = _kept_dtype(source, stored, target, wide, family)
            outputs[stored] = [Output(source.format.weight_name(stored), dtype, source.weight_shape(stored))]
    scalars: list[Output] = []
    if target.to == INT8:
        endings = ACTIVATION_SCALES
        scalars = [Output(module + ending, STORED[target.dtype], ()) for module in modules for ending in endings]
    marks: list[Output] = []
    if target.to == FP8 and target.scales == "tensor":
        marks = [Output(source.identity.prefix + MARK, _FP8_STORED, MARK_SHAPE)]
    everything = [output for of_one in outputs.values() for output in of_one]
    layout = _lay_out([*everything, *scalars, *marks], metadata)
    tasks = []
    for stored, of_one in outputs.items():
        written = tuple(layout.tensors[output.name] for output in of_one)
        tasks.append(_task(parts, source, stored, tuple(edits.get(stored, ())), written))
    ones = tuple(layout.tensors[output.name] for output in scalars)
    zeros = tuple(layout.tensors[output.name] for output in marks)
    return Recipe(tuple(tasks), layout.start, ones, layout.bytes, tuple(modules), target.quantization, zeros)


def _task(
    parts: Parts, source: WeightSource, stored: str, edits: tuple[RowEdit, ...], outputs: tuple[Tensor, ...]
) -> Task:
    tensors = source.header.tensors
    weight = source.stored_weight(stored)
    return Task(
        source=tensors[stored],
        shape=source.weight_shape(stored),
        home=parts.homes[stored],
        decoder=decoder_of(source.identity.quantization).for_tensor(source.header, stored),
        scale=(tensors[weight.scales], parts.homes[weight.scales]) if weight.scales else None,
        edits=edits,
        outputs=outputs,
        rows_apart=source.format.has_rows_apart(tensors[stored]),
        factors=tuple((tensors[name], parts.homes[name]) for name in weight.factors),
    )


def _check_readable(source: WeightSource, stored: str) -> None:
    """Raise UnsupportedFormat for a tensor that can't be decoded, or is empty."""
    tensor = source.header.tensors[stored]
    readable = decoder_of(source.identity.quantization).readable
    if tensor.dtype not in readable or 0 in tensor.shape:
        raise UnsupportedFormat(
            f"{source.header.file}: {stored} is {tensor.dtype} {list(tensor.shape)}, which can't be read."
        )


def _quantized_outputs(module: str, shape: tuple[int, ...], target: Target) -> list[Output]:
    """The data and the scales of a quantized layer."""
    if target.to == FP8:
        data = Output(f"{module}.weight", _FP8_STORED, shape)
        if target.scales == "row":
            return [data, Output(module + ROW_SCALE, "F32", (shape[0], 1))]
        return [data, Output(module + TENSOR_SCALE, "F32", ())] if target.scales == "tensor" else [data]
    return [Output(module + DATA, "I8", shape), Output(module + SCALE, STORED[target.dtype], (shape[0], 1))]


def _quantizable(source: WeightSource, stored: str, family: Family) -> bool:
    """Whether it is the weight of a linear inside the transformer's blocks."""
    name = source.format.weight_name(source.names.original[stored])
    linear = name.endswith(".weight") and len(source.weight_shape(stored)) == 2
    return linear and any(matches(module_of(name), pattern) for pattern in family.quantizable)


def _kept_dtype(source: WeightSource, stored: str, target: Target, wide: bool, family: Family) -> str:
    """Stored data type of a tensor that isn't quantized."""
    names = source.names.diffusers[stored].names
    in_fp32 = any(part in name.split(".") for name in names for part in target.fp32)
    kept = in_fp32 or not (wide or _quantizable(source, stored, family))
    if kept and source.header.tensors[stored].dtype in _WIDE:
        return "F32"
    return STORED[target.dtype]


def _mostly_wide(source: WeightSource) -> bool:
    """Whether most of the weights are fp32 or wider."""
    tensors = source.header.tensors.values()
    wide = sum(tensor.elements for tensor in tensors if tensor.dtype in _WIDE)
    return 2 * wide > sum(tensor.elements for tensor in tensors)


@dataclass(frozen=True)
class _Layout:
    """Where every tensor lies in the new file, the bytes of its header, and its size."""

    tensors: Mapping[str, Tensor]
    start: bytes
    bytes: int


def _lay_out(outputs: Sequence[Output], metadata: Mapping[str, str]) -> _Layout:
    """Lay the file out: the wider data types first, so that each begins at a multiple of its size."""
    ordered = sorted(outputs, key=lambda output: -DTYPE_BITS[output.dtype])
    table: dict[str, object] = {"__metadata__": dict(metadata)}
    offsets = [0]
    for output in ordered:
        begin = offsets[-1]
        end = begin + math.prod(output.shape) * DTYPE_BITS[output.dtype] // 8
        table[output.name] = {"dtype": output.dtype, "shape": list(output.shape), "data_offsets": [begin, end]}
        offsets.append(end)
    text = json.dumps(table, separators=(",", ":")).encode("ascii")
    text += b" " * (-len(text) % 8)
    start = struct.pack("<Q", len(text)) + text
    tensors = {}
    for output, begin, end in zip(ordered, offsets[:-1], offsets[1:], strict=True):
        place = Tensor(output.name, output.dtype, output.shape, len(start) + begin, len(start) + end)
        tensors[output.name] = place
    return _Layout(tensors, start, len(start) + offsets[-1])


@dataclass(frozen=True)
class Piece:
    """Some rows of a task: what a thread takes at once."""

    task: Task
    first: int
    rows: int


def pieces(recipe: Recipe, most: int) -> Iterator[Piece]:
    """The whole recipe in pieces of at most `most` bytes to read, in the order of the tasks.

    A piece is at least one row, and all of a tensor whose rows can't be told apart.
    """
    for task in recipe.tasks:
        rows, columns = task.matrix
        step = max(1, most // max(1, task.row_bytes)) if task.rows_apart else rows
        for first in range(0, rows if columns else 0, step):
            yield Piece(task, first, min(step, rows - first))
