"""nvfp4: number = E2M1 code * (scale of the weight * scale of its block of 16), in fp32, a few rows at a time.

These are the bits of torchao's `NVFP4Tensor.dequantize`. A table holds the two numbers of every byte, so a lookup
decodes both at once; that is nearly as fast as a compiled loop.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import torch

from reeltune.checkpoints.contents import Header, Tensor
from reeltune.checkpoints.formats import StoredWeight
from reeltune.checkpoints.formats.base import module_of
from reeltune.checkpoints.formats.nvfp4 import (
    BLOCK,
    GLOBAL_SCALE,
    TILE_COLUMNS,
    TILE_ROWS,
    WHOLE_SCALE,
    PackedLayout,
    is_packed,
    layout_of,
)
from reeltune.dtypes import Quantization
from reeltune.errors import UnsupportedFormat
from reeltune.weights import fp8
from reeltune.weights.formats.base import CHUNK, Decoder, Weight, check_scales, swap_halves
from reeltune.weights.formats.int8_scaled import ScaledInt8Decoder
from reeltune.weights.tensors import TensorFile

_MAGNITUDES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
_CODES = (*_MAGNITUDES, *(-magnitude for magnitude in _MAGNITUDES))
_QUARTER = 32  # rows of a tile that lie beside each other


@dataclass(frozen=True)
class Nvfp4Weight:
    """A weight of 4-bit numbers.

    `values`: uint8 [out, in / 2]; `scales`: e4m3 [out, in / 16], in rows; `factor`: of the whole weight, fp32;
    `high_first`: whether the first number of a byte is in its high half; `name`: what messages call it.
    """

    values: torch.Tensor
    scales: torch.Tensor
    factor: torch.Tensor
    high_first: bool
    name: str
    is_quantized: bool = False

    def rows(self, first: int, last: int) -> Self:
        """Some of its rows."""
        return self._with(self.values[first:last], self.scales[first:last])

    def swapped(self) -> Self:
        """Itself with the lower half of the rows before the upper one."""
        return self._with(swap_halves(self.values), swap_halves(self.scales.view(torch.uint8)).view(fp8.E4M3))

    def _with(self, values: torch.Tensor, scales: torch.Tensor) -> Self:
        return type(self)(values, scales, self.factor, self.high_first, self.name)

    def decoded(self, dtype: torch.dtype) -> torch.Tensor:
        """The numbers in a data type. Raises CheckpointError."""
        numbers = torch.empty((len(self.values), 2 * self.values.shape[1]), dtype=dtype)
        for part, block in self.blocks():
            numbers[part] = block
        return numbers

    def in_memory(self, dtype: torch.dtype) -> torch.Tensor:
        """The numbers in the run's data type. Raises CheckpointError."""
        return self.decoded(dtype)

    def kept(self, dtype: torch.dtype) -> None:
        """None: 4-bit numbers are converted."""
        return

    def blocks(self) -> Iterator[tuple[slice, torch.Tensor]]:
        """Its rows in fp32 [rows, columns], a few at a time. Each part is overwritten by the next.

        Raises CheckpointError.
        """
        count, columns = len(self.values), 2 * self.values.shape[1]
        step = max(1, CHUNK // max(1, columns))
        numbers = torch.empty(min(step, count), columns)
        for first in range(0, count, step):
            part = slice(first, min(first + step, count))
            block = numbers[: part.stop - first]
            fill(
                self.values[part], self.scales[part].to(torch.float32) * self.factor, self.high_first, block, self.name
            )
            yield part, block


class Nvfp4Decoder(ScaledInt8Decoder):
    """Reads packed weights; everything else as in files of scaled int8 and fp8."""

    quantization = Quantization.NVFP4
    readable = (*ScaledInt8Decoder.readable, "U8")

    def read(self, file: TensorFile, weight: StoredWeight) -> Weight:
        """A weight. Raises UnsupportedFormat, and CheckpointError where it is damaged."""
        tensor = file.header.tensors[weight.values]
        if not is_packed(tensor) or weight.scales is None:
            return super().read(file, weight)
        layout = _layout(file.header, tensor)
        scales = arranged(file[weight.scales], tensor, layout.tiled, 0, tensor.shape[0])
        numbers = [file[name].to(torch.float32) for name in weight.factors]
        factor = _factor(numbers, _is_divisor(file.header, tensor.name))
        return Nvfp4Weight(file[weight.values], scales, factor, layout.high_first, f"{file.path}: {tensor.name}")

    def for_tensor(self, header: Header, stored: str) -> Decoder:
        """The decoder of a packed weight's rows, or of another tensor's. Raises UnsupportedFormat."""
        tensor = header.tensors[stored]
        if not is_packed(tensor):
            return super().for_tensor(header, stored)
        return _PackedDecoder(_layout(header, tensor), _is_divisor(header, stored))


class _PackedDecoder(Nvfp4Decoder):
    """Reads rows of a packed weight. `is_divisor`: whether its factor is what weights were multiplied with."""

    def __init__(self, layout: PackedLayout, is_divisor: bool) -> None:
        self._layout = layout
        self._is_divisor = is_divisor

    def row_scales(
        self, tensor: Tensor, scales: torch.Tensor, factors: Sequence[torch.Tensor], first: int, count: int
    ) -> torch.Tensor:
        """Scales in fp32 [count, in / 16], those of the whole weight included."""
        rows = arranged(scales, tensor, self._layout.tiled, first, count)
        return _times(rows, _factor(factors, self._is_divisor))

    def decode_rows(
        self, tensor: Tensor, file_name: str, stored: torch.Tensor, scales: torch.Tensor | None, numbers: torch.Tensor
    ) -> None:
        """Fill `numbers` from some rows. Raises CheckpointError, and UnsupportedFormat where there are no scales."""
        name = f"{file_name}: {tensor.name}"
        if scales is None:
            raise UnsupportedFormat(f"{name} is stored in 4 bits, without its scales.")
        fill(stored, scales, self._layout.high_first, numbers, name)


def _layout(header: Header, tensor: Tensor) -> PackedLayout:
    layout = layout_of(header, tensor.name)
    if layout is None:
        message = f"{header.file}: the header doesn't tell how {tensor.name} is stored in 4 bits."
        raise UnsupportedFormat(message, hint="Use a bf16, fp8 or int8 version.")
    return layout


def _is_divisor(header: Header, tensor_name: str) -> bool:
    layer = module_of(tensor_name)
    return layer + WHOLE_SCALE not in header.tensors and layer + GLOBAL_SCALE in header.tensors


def _factor(numbers: Sequence[torch.Tensor], is_divisor: bool) -> torch.Tensor:
    """The scale of a whole weight, one fp32 number."""
    factor = functools.reduce(torch.mul, [number.reshape(()) for number in numbers], torch.tensor(1.0))
    return 1 / factor if is_divisor else factor


def _times(scales: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Scales e4m3 [rows, in / 16] times that of the whole weight, in fp32."""
    return fp8.decode(scales, factor.expand(len(scales), 1), torch.float32)


def arranged(scales: torch.Tensor, weight: Tensor, tiled: bool, first: int, count: int) -> torch.Tensor:
    """The scales of `count` rows of a weight from `first` on, row by row: e4m3 [count, in / 16].

    `scales`: all of the weight's as they are stored, e4m3 or its bytes; `tiled`: whether they lie in tiles.
    """
    stored, columns = scales.view(torch.uint8), 2 * weight.shape[1] // BLOCK
    if tiled:
        across = stored.shape[1] // TILE_COLUMNS
        tiles = stored.view(-1, across, _QUARTER, TILE_ROWS // _QUARTER, TILE_COLUMNS)
        top = first // TILE_ROWS
        tiles = tiles[top : -(-(first + count) // TILE_ROWS)]
        stored = tiles.permute(0, 3, 2, 1, 4).reshape(-1, across * TILE_COLUMNS)
        first -= top * TILE_ROWS
    return stored[first : first + count, :columns].view(fp8.E4M3)


@functools.cache
def _pairs(high_first: bool) -> torch.Tensor:
    """The two fp32 numbers of each byte, seen as one number of 8 bytes: [256]."""
    codes = torch.tensor(_CODES)
    high, low = codes.repeat_interleave(16), codes.repeat(16)
    return torch.stack((high, low) if high_first else (low, high), 1).view(torch.int64).squeeze(1)


def fill(stored: torch.Tensor, scales: torch.Tensor, high_first: bool, numbers: torch.Tensor, name: str) -> None:
    """Fill `numbers` fp32 [rows, columns] from the bytes of 4-bit numbers.

    `stored`: uint8 [rows, columns / 2]; `scales`: fp32 [rows, columns / 16], with that of the whole weight; `name`:
    what messages call the tensor. Raises CheckpointError where scales are NaN or infinite.
    """
    check_scales(scales, f"{name}: its nvfp4 scales are")
    pairs = numbers.view(-1).view(torch.int64)
    torch.index_select(_pairs(high_first), 0, stored.reshape(-1).to(torch.int32), out=pairs)
    numbers.view(len(numbers), -1, BLOCK).mul_(scales.unsqueeze(2))
