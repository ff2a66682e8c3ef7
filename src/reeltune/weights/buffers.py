"""What a thread reads pieces of tensors into, and writes them from: buffers that the next piece uses again."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

import torch

from reeltune.checkpoints.contents import Tensor
from reeltune.errors import CheckpointError
from reeltune.files import write_all
from reeltune.weights.edits import LEAST
from reeltune.weights.formats.base import CHUNK
from reeltune.weights.recipe import Piece
from reeltune.weights.tensors import TORCH_DTYPES

READ_BYTES = 8 * 1024 * 1024  # at once
Checksums = dict[tuple[str, int], int]  # CRC-32 of what was written, by the source's name and the first row
Magnitudes = dict[tuple[str, int], float]  # the largest in each piece of a weight, by the same


class Buffers:
    """One thread's open files and buffers. `seconds`: spent on each kind of work; `checksums`, `largest`: those of all
    threads.
    """

    def __init__(self, output: Path, checksums: Checksums, largest: Magnitudes) -> None:
        self.output, self.checksums, self.largest = output, checksums, largest
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._files: dict[tuple[Path, str], FileIO] = {}
        self._raw: dict[str, bytearray] = {}
        self._floats = torch.empty(0)
        self._products = torch.empty(0)
        self._levels = torch.empty(0, dtype=torch.int8)

    def close(self) -> None:
        """Close every file."""
        for file in self._files.values():
            file.close()

    def source(self, piece: Piece) -> torch.Tensor:
        """The piece as it is stored, [rows, columns], or [1, bytes] where rows can't be told apart.

        Valid until the next call. Raises CheckpointError, OSError.
        """
        task = piece.task
        if task.rows_apart:
            return self._rows(task.home, task.source, piece, "source")
        length = task.source.end - task.source.begin
        with self._timed("read"):
            raw = self._read(task.home, "source", task.source.begin, length)
        return torch.frombuffer(raw, dtype=torch.uint8, count=length).view(1, -1)

    def written(self, tensor: Tensor, piece: Piece) -> torch.Tensor:
        """The piece's rows of a tensor of the new file; valid until the next call for that tensor."""
        return self._rows(self.output, tensor, piece, tensor.dtype)  # data and scales are needed together

    def written_scalar(self, tensor: Tensor) -> torch.Tensor:
        """A single number of the new file, [1, 1]; valid until the next call."""
        with self._timed("read"):
            raw = self._read(self.output, "scalar", tensor.begin, tensor.end - tensor.begin)
        return torch.frombuffer(raw, dtype=TORCH_DTYPES[tensor.dtype], count=1).view(1, 1)

    def write(self, tensor: Tensor, first: int, values: torch.Tensor) -> None:
        """Write rows [rows, columns] of a tensor of the new file, from row `first` on. Raises OSError."""
        with self._timed("write"):
            view = values.view(torch.uint8).numpy().data.cast("B")
            file = self._at(self.output, "r+b", tensor.begin + first * values[0].nbytes)
            write_all(file.write, view)

    def levels(self, shape: tuple[int, ...]) -> torch.Tensor:
        """Room for int8 rows [rows, columns]; used again by the next piece."""
        count = shape[0] * shape[1]
        if self._levels.numel() < count:
            self._levels = torch.empty(max(count, READ_BYTES // 2), dtype=torch.int8)
        return self._levels[:count].view(shape)

    def _rows(self, path: Path, tensor: Tensor, piece: Piece, buffer: str) -> torch.Tensor:
        dtype = TORCH_DTYPES.get(tensor.dtype, torch.uint8)  # packed numbers are bytes, which their format decodes
        row = (tensor.end - tensor.begin) // piece.task.matrix[0]
        with self._timed("read"):
            raw = self._read(path, buffer, tensor.begin + piece.first * row, piece.rows * row)
        return torch.frombuffer(raw, dtype=dtype, count=piece.rows * row // dtype.itemsize).view(piece.rows, -1)

    def _read(self, path: Path, kind: str, offset: int, length: int) -> bytearray:
        buffer = self._raw.get(kind)
        if buffer is None or len(buffer) < length:
            buffer = self._raw[kind] = bytearray(max(length, READ_BYTES))
        try:
            file, view = self._at(path, "rb", offset), memoryview(buffer)[:length]
            while view:
                if not (count := file.readinto(view)):
                    raise CheckpointError(f"{path} ended while it was read.", hint="Was it replaced? Start again.")
                view = view[count:]
        except OSError as error:
            raise CheckpointError(f"{path} can't be read: {error.strerror or error}.", hint="Start again.") from error
        return buffer

    def _at(self, path: Path, mode: str, offset: int) -> FileIO:
        file = self._files.get((path, mode))
        if file is None:
            file = self._files[path, mode] = FileIO(path, mode)
        file.seek(offset)
        return file

    def blocks(self, piece: Piece, values: torch.Tensor) -> Iterator[tuple[slice, torch.Tensor]]:
        """The piece in fp32, a few rows at a time: decoded by its format, changed by the edits; or as it is stored and
        all at once, where there is nothing to change.

        `values` [rows, ...] as stored. Each block is overwritten by the next.
        """
        task = piece.task
        rows, columns = piece.rows, task.matrix[1]
        if task.plain:
            yield slice(0, rows), values
            return
        scale, adds = self._scale(piece), [edit.ready(self._room) for edit in task.edits]
        step = max(LEAST if adds else 1, CHUNK // columns) if task.rows_apart else rows
        if self._floats.numel() < min(step, rows) * columns:
            self._floats = torch.empty(max(CHUNK, step * columns))
        for begin in range(0, rows, step):
            part = slice(begin, min(begin + step, rows))
            block = self._floats[: (part.stop - begin) * columns].view(-1, columns)
            block_scale = scale if scale is None or len(scale) == 1 else scale[part]
            task.decoder.decode_rows(task.source, task.home.name, values[part], block_scale, block)
            for add in adds:
                add(block, piece.first + begin)
            yield part, block

    def _room(self, rows: int, columns: int) -> torch.Tensor:
        if self._products.numel() < rows * columns:
            self._products = torch.empty(rows * columns)
        return self._products[: rows * columns].view(rows, columns)

    def _scale(self, piece: Piece) -> torch.Tensor | None:
        """Scales of a piece's rows in fp32: [1, 1] or [rows, ...]; None where the tensor has none."""
        task = piece.task
        if task.scale is None:
            return None
        factors = [self._stored(*factor).to(torch.float32, copy=True) for factor in task.factors]
        return task.decoder.row_scales(task.source, self._stored(*task.scale), factors, piece.first, piece.rows)

    def _stored(self, tensor: Tensor, home: Path) -> torch.Tensor:
        """Scales as they are stored; valid until the next call."""
        length = tensor.end - tensor.begin
        raw = self._read(home, "scale", tensor.begin, length)
        dtype = TORCH_DTYPES[tensor.dtype]
        return torch.frombuffer(raw, dtype=dtype, count=length // dtype.itemsize).view(tensor.shape)

    @contextmanager
    def _timed(self, kind: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[kind] += time.perf_counter() - start
