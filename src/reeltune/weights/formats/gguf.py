"""GGUF: blocks become numbers a few rows at a time, and those int8 or 16 bits, so that no weight is ever in fp32 whole.

Compiled where numba is there (`block_kernels`), in plain torch where it isn't (`gguf_blocks`): the same bits.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Self

import torch

from reeltune.checkpoints.contents import Tensor
from reeltune.checkpoints.formats import StoredWeight, format_of
from reeltune.checkpoints.gguf_types import BLOCK_TYPES, DECODED
from reeltune.dtypes import Quantization
from reeltune.errors import CheckpointError
from reeltune.weights.formats.base import CHUNK, FLOAT_DTYPES, Decoder, FloatWeight, Weight, read_floats, swap_halves
from reeltune.weights.formats.gguf_blocks import decode_blocks, scales_of
from reeltune.weights.tensors import TensorFile


@dataclass(frozen=True)
class BlockWeight:
    """A weight in blocks, none of which holds values of two rows.

    `values`: uint8 [rows, bytes of a row]; `type_name`: the type of its blocks; `shape`: of the weight; `name`: what
    messages call it.
    """

    values: torch.Tensor
    type_name: str
    shape: tuple[int, ...]
    name: str
    is_quantized: bool = False

    def rows(self, first: int, last: int) -> Self:
        """Some of its rows."""
        return self._with(self.values[first:last])

    def swapped(self) -> Self:
        """Itself with the lower half of the rows before the upper one."""
        return self._with(swap_halves(self.values))

    def _with(self, values: torch.Tensor) -> Self:
        return type(self)(values, self.type_name, (len(values), *self.shape[1:]), self.name)

    def decoded(self, dtype: torch.dtype) -> torch.Tensor:
        """The numbers in a data type. Raises CheckpointError."""
        numbers = torch.empty(self.shape, dtype=dtype)
        matrix = numbers.view(len(self.values), -1)
        for part, block in self.blocks():
            matrix[part] = block
        return numbers

    def in_memory(self, dtype: torch.dtype) -> torch.Tensor:
        """The numbers in the run's data type. Raises CheckpointError."""
        return self.decoded(dtype)

    def kept(self, dtype: torch.dtype) -> None:
        """None: blocks are converted."""
        return

    def blocks(self) -> Iterator[tuple[slice, torch.Tensor]]:
        """Its rows in fp32 [rows, columns], a few at a time. Each part is overwritten by the next.

        Raises CheckpointError.
        """
        count, row_bytes = self.values.shape
        block_type = BLOCK_TYPES[self.type_name]
        columns = row_bytes // block_type.bytes * block_type.values
        step = max(1, CHUNK // max(1, columns))
        numbers = torch.empty(min(step, count), columns)
        for first in range(0, count, step):
            part = slice(first, min(first + step, count))
            block = numbers[: part.stop - first]
            fill(self.values[part], self.type_name, block, self.name)
            yield part, block


class GgufDecoder(Decoder):
    """Reads blocks of every type in `gguf_types.DECODED`, and everything else as in files of other formats."""

    quantization = Quantization.GGUF
    readable = (*FLOAT_DTYPES, *DECODED)

    def read(self, file: TensorFile, weight: StoredWeight) -> Weight:
        """A weight. Raises UnsupportedFormat, and CheckpointError where it is damaged."""
        tensor = file.header.tensors[weight.values]
        if tensor.dtype not in DECODED:
            return FloatWeight(read_floats(file, weight.values))
        name = f"{file.path}: {tensor.name}"
        stored = file.raw(weight.values)
        if format_of(self.quantization).has_rows_apart(tensor):
            return BlockWeight(stored.view(tensor.shape[0], -1), tensor.dtype, tensor.shape, name)
        numbers = torch.empty(tensor.shape)
        fill(stored, tensor.dtype, numbers, name)
        return FloatWeight(numbers)

    def decode_rows(
        self, tensor: Tensor, file_name: str, stored: torch.Tensor, scales: torch.Tensor | None, numbers: torch.Tensor
    ) -> None:
        """Fill `numbers` from the blocks of some rows. Raises CheckpointError."""
        if tensor.dtype in DECODED:
            fill(stored, tensor.dtype, numbers, f"{file_name}: {tensor.name}")
        else:
            numbers.copy_(stored)


@functools.cache
def _compiled() -> ModuleType | None:
    """numba's kernels; None on a machine that numba has no build for."""
    try:
        from reeltune.weights import block_kernels
    except ImportError:
        return None
    return block_kernels


def fill(stored: torch.Tensor, type_name: str, numbers: torch.Tensor, name: str) -> None:
    """Fill `numbers`, fp32 of any shape, from the bytes of its blocks.

    `stored`: contiguous uint8 of any shape; `name`: what messages call the tensor. Raises CheckpointError where scales
    are NaN or infinite.
    """
    block_type = BLOCK_TYPES[type_name]
    blocks = stored.view(-1, block_type.bytes)
    rows = numbers.view(-1, block_type.values)
    if (kernels := _compiled()) is not None:
        is_sound = bool(kernels.KERNELS[type_name](blocks.numpy(), rows.numpy()))
    else:
        decode_blocks(type_name, blocks, rows)
        is_sound = bool(torch.isfinite(scales_of(type_name, blocks)).all())
    if not is_sound:
        raise CheckpointError(f"{name}: scales are NaN or infinite: the file is damaged.", hint="Download it again.")
