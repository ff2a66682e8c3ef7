"""Scaled int8: weight = stored * scale; rotated back where a note tells that it was rotated (ConvRot).

The rotation of a group of columns is the regular Hadamard matrix of that size, over the root of the size: a Kronecker
power of the 4 by 4 matrix that is -1 on its antidiagonal and 1 elsewhere. It is symmetric and its own inverse, so
the same product rotates and rotates back.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import torch

from reeltune.checkpoints.contents import Header, Tensor
from reeltune.checkpoints.formats import StoredWeight
from reeltune.checkpoints.formats.base import module_of
from reeltune.checkpoints.formats.int8_scaled import FORMAT, is_group
from reeltune.checkpoints.notes import Note, note_of
from reeltune.dtypes import Quantization
from reeltune.errors import UnsupportedFormat
from reeltune.weights._libraries import int8_tensor
from reeltune.weights.formats.base import Decoder, FloatWeight, Weight, check_scales, dequantize, swap_halves
from reeltune.weights.formats.fp8 import Fp8ScaledDecoder
from reeltune.weights.tensors import TensorFile

_HINT = "Use a bf16 version."


@dataclass(frozen=True)
class ScaledInt8Weight:
    """A weight that can stay int8. `values`: int8 [out, in]; `scales`: fp32 [out, 1]."""

    values: torch.Tensor
    scales: torch.Tensor
    is_quantized: bool = False

    def rows(self, first: int, last: int) -> Self:
        """Some of its rows."""
        return type(self)(self.values[first:last], self.scales[first:last])

    def swapped(self) -> Self:
        """Itself with the lower half of the rows before the upper one."""
        return type(self)(swap_halves(self.values), swap_halves(self.scales))

    def decoded(self, dtype: torch.dtype) -> torch.Tensor:
        """Values times scales."""
        return dequantize(self.values, self.scales, dtype)

    def in_memory(self, dtype: torch.dtype) -> torch.Tensor:
        """The decoded numbers."""
        return self.decoded(dtype)

    def kept(self, dtype: torch.dtype) -> torch.Tensor:
        """torchao's int8 weight on the same memory; its scales are rounded to the data type."""
        return int8_tensor(self.values, self.scales, dtype)

    def blocks(self) -> Iterator[tuple[slice, torch.Tensor]]:
        """All of its rows at once, in fp32."""
        yield slice(0, len(self.values)), self.decoded(torch.float32)


class ScaledInt8Decoder(Fp8ScaledDecoder):
    """Reads int8 with scales; layers of such files that are fp8 too."""

    quantization = Quantization.INT8_SCALED
    readable = (*Fp8ScaledDecoder.readable, "I8")

    def read(self, file: TensorFile, weight: StoredWeight) -> Weight:
        """A weight: int8 with its scales, or fp32 where it was rotated. Raises UnsupportedFormat, CheckpointError."""
        stored = file.header.tensors[weight.values]
        group = _group(file.header, stored)
        if stored.dtype != "I8" or weight.scales is None:
            return super().read(file, weight)
        scales = file[weight.scales]
        check_scales(scales, f"{file.path}: {weight.scales} is")
        values = file[weight.values]
        columns = scales.to(torch.float32).reshape(-1, 1)
        if values.ndim == 2 and not group:
            return ScaledInt8Weight(values, columns.expand(len(values), 1))
        numbers = dequantize(values, columns.reshape(-1, *[1] * (values.ndim - 1)), torch.float32)
        if group:
            rotate(numbers, group)
        return FloatWeight(numbers)

    def for_tensor(self, header: Header, stored: str) -> Decoder:
        """The decoder of a rotated tensor; itself for others. Raises UnsupportedFormat."""
        group = _group(header, header.tensors[stored])
        return _RotatedInt8Decoder(group) if group else self


class _RotatedInt8Decoder(ScaledInt8Decoder):
    """Reads rows of a tensor that was rotated in groups of columns."""

    def __init__(self, group: int) -> None:
        self._group = group

    def decode_rows(
        self, tensor: Tensor, file_name: str, stored: torch.Tensor, scales: torch.Tensor | None, numbers: torch.Tensor
    ) -> None:
        """Fill `numbers` with `stored`, times its scales, and rotate them back."""
        super().decode_rows(tensor, file_name, stored, scales, numbers)
        rotate(numbers, self._group)


def rotate(numbers: torch.Tensor, group: int) -> None:
    """Rotate fp32 `numbers` [rows, columns] in groups of columns, in place; doing it twice changes nothing.

    One stage for each factor of 4 in the size of a group: the four numbers a, b, c, d become half of their sum less
    the one that is opposite, so that (a + b + c + d) / 2 - d takes the place of a. Nothing needs to be multiplied.
    """
    rows, columns = numbers.shape
    distance = 1
    while distance < group:
        quarters = numbers.view(rows, columns // (4 * distance), 4, distance)
        halves = quarters.sum(dim=2, keepdim=True).mul_(0.5)
        quarters.copy_(halves - quarters.flip(2))
        distance *= 4


def _group(header: Header, stored: Tensor) -> int:
    """The number of columns that a tensor's rotation takes together, 0 where it isn't rotated.

    Raises UnsupportedFormat for a note that doesn't describe what is stored.
    """
    layer = module_of(stored.name)
    note = note_of(header, layer) if stored.name.endswith(".weight") else None
    if note is None:
        return 0
    if (wrong := _contradiction(note, stored)) or note.unknown:
        wrong = wrong or f"contains {note.unknown[0]!r}, which isn't known"
        raise UnsupportedFormat(f"{header.file}: the note on {layer} {wrong}.", hint=_HINT)
    return note.group


def _contradiction(note: Note, stored: Tensor) -> str:
    """What of a note doesn't describe a tensor; empty if all does."""
    if not note.format:
        return "can't be read"
    if (note.format == FORMAT) != (stored.dtype == "I8"):
        return f"says {note.format[:40]}, and {stored.dtype} is stored"
    if note.group and not is_group(note.group):
        return f"says that {note.group} columns are rotated together, which is not a power of 4"
    if note.group and (len(stored.shape) != 2 or stored.shape[1] % note.group):
        return f"says that {note.group} columns are rotated together, and its shape is {list(stored.shape)}"
    return ""
