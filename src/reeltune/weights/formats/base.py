"""The arithmetic of a weight format: the protocol of decoders, and weights as they come out of a file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

import torch

from reeltune.checkpoints.contents import Header, Tensor
from reeltune.checkpoints.formats import StoredWeight
from reeltune.dtypes import Quantization
from reeltune.errors import CheckpointError, UnsupportedFormat
from reeltune.weights.tensors import TensorFile

PLAIN_DTYPES = ("BF16", "F16", "F32")  # that are computed with directly
FLOAT_DTYPES = (*PLAIN_DTYPES, "F64")
CHUNK = 512 * 1024  # values at once: 2 MB in fp32, which stays in cache


class Weight(Protocol):
    """A weight that was read from a file, and can be cut into rows before it is converted."""

    @property
    def values(self) -> torch.Tensor:
        """What is stored, or what it was decoded to."""

    @property
    def is_quantized(self) -> bool:
        """Whether it stays quantized in memory."""

    def rows(self, first: int, last: int) -> Self:
        """Some of its rows."""

    def swapped(self) -> Self:
        """Itself with the lower half of the rows before the upper one."""

    def decoded(self, dtype: torch.dtype) -> torch.Tensor:
        """Plain numbers of a data type."""

    def in_memory(self, dtype: torch.dtype) -> torch.Tensor:
        """The tensor that a model computes with in a run of a data type."""

    def kept(self, dtype: torch.dtype) -> torch.Tensor | None:
        """The same for a linear layer whose weight stays as it is stored; None where it can't."""

    def blocks(self) -> Iterator[tuple[slice, torch.Tensor]]:
        """Its rows as floating numbers [rows, ...], some at a time. Each part may be overwritten by the next."""


@dataclass(frozen=True)
class FloatWeight:
    """A weight as floating numbers. `values`: any floating dtype, any shape."""

    values: torch.Tensor
    is_quantized: bool = False

    def rows(self, first: int, last: int) -> Self:
        """Some of its rows."""
        return type(self)(self.values[first:last])

    def swapped(self) -> Self:
        """Itself with the lower half of the rows before the upper one."""
        return type(self)(swap_halves(self.values))

    def decoded(self, dtype: torch.dtype) -> torch.Tensor:
        """The numbers in a data type."""
        return self.values.to(dtype)

    def in_memory(self, dtype: torch.dtype) -> torch.Tensor:
        """The numbers in the run's data type."""
        return self.values.to(dtype)

    def kept(self, dtype: torch.dtype) -> None:
        """None: numbers are converted."""
        return

    def blocks(self) -> Iterator[tuple[slice, torch.Tensor]]:
        """All of its rows at once, as they are stored."""
        yield slice(0, len(self.values)), self.values


class Decoder(Protocol):
    """Reads the weights of one format. What the methods do here is right for weights that are stored as they are.

    `quantization`: that of its format in `checkpoints.formats`; `readable`: data types of the tensors it decodes.
    """

    quantization: Quantization
    readable: tuple[str, ...] = FLOAT_DTYPES

    def read(self, file: TensorFile, weight: StoredWeight) -> Weight:
        """A weight from a file. Raises UnsupportedFormat, and CheckpointError where it is damaged."""
        return FloatWeight(read_floats(file, weight.values))

    def for_tensor(self, header: Header, stored: str) -> Decoder:
        """The decoder for the rows of one tensor of a file. Raises UnsupportedFormat."""
        return self

    def is_plain(self, tensor: Tensor) -> bool:
        """Whether a stored tensor is the weight itself, in a data type that is computed with directly."""
        return tensor.dtype in PLAIN_DTYPES

    def row_scales(
        self, tensor: Tensor, scales: torch.Tensor, factors: Sequence[torch.Tensor], first: int, count: int
    ) -> torch.Tensor:
        """Scales in fp32 for `count` rows of a tensor from `first` on: [1, 1] for all rows, or [count, ...].

        `scales`: all of the tensor's, as they are stored; `factors`: of the whole weight, fp32, one number each.
        """
        rows = scales.to(torch.float32).view(-1, 1)
        return rows if len(rows) == 1 else rows[first : first + count]

    def decode_rows(
        self, tensor: Tensor, file_name: str, stored: torch.Tensor, scales: torch.Tensor | None, numbers: torch.Tensor
    ) -> None:
        """Fill `numbers` fp32 [rows, columns] from rows of a tensor as they are `stored` [rows, ...].

        `scales`: fp32, as `row_scales` gives them, None where the tensor has none. Raises CheckpointError.
        """
        numbers.copy_(stored)


def read_floats(file: TensorFile, name: str) -> torch.Tensor:
    """A tensor of floating numbers as it is stored. Raises UnsupportedFormat for others."""
    values = file[name]
    if not values.is_floating_point():
        raise UnsupportedFormat(f"{file.path}: {name} is stored as {values.dtype}, without its scale.")
    return values


def check_scales(scales: torch.Tensor, what: str) -> None:
    """Raise CheckpointError where scales aren't numbers; `what` names them and their file."""
    if not bool(torch.isfinite(scales).all()):
        raise CheckpointError(f"{what} NaN or infinite.", hint="Download the file again.")


def swap_halves(values: torch.Tensor) -> torch.Tensor:
    """The lower half of the rows before the upper one."""
    return torch.cat(tuple(reversed(values.chunk(2))))


def dequantize(data: torch.Tensor, scale: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """`data` [out, ...] times `scale` [out, 1] or [1, 1], computed in fp32, as `dtype`."""
    return (data.to(torch.float32) * scale.to(torch.float32)).to(dtype)
