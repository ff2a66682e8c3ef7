"""A recipe carried out as a stream: rows in, rows out, a few megabytes at a time, on all cores.

Each worker reads, computes and writes on its own, so that disk and cores are busy together. Every row goes to its
place in the new file at once; nothing is held but what is being worked on.
"""

from __future__ import annotations

import os
import queue
import threading
import time
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

import torch

from reeltune.checkpoints.fp8 import DTYPES, is_matrix
from reeltune.checkpoints.header import Tensor
from reeltune.errors import Cancelled, CheckpointError
from reeltune.events import CancelToken, Listener, Progress
from reeltune.files import write_all
from reeltune.library.inventory import PARTIAL
from reeltune.weights.edits import LEAST
from reeltune.weights.quanto import CHUNK, check_finite, off, quantize_rows
from reeltune.weights.recipe import Piece, Recipe, Task, pieces
from reeltune.weights.tensors import TORCH_DTYPES
from reeltune.weights.unscaled import check_plain

UNFINISHED = ".quantizing" + PARTIAL  # after a file's name while it is being written
_READ = 8 * 1024 * 1024  # bytes at once
_MOST_WORKERS = 8


Sums = dict[tuple[str, int], int]  # of what was written, by the source's name and the first row


class Hands:
    """One worker's open files and buffers. `seconds`: what it spent on each kind of work; `sums`: everyone's."""

    def __init__(self, output: Path, sums: Sums) -> None:
        self.output, self.sums = output, sums
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._files: dict[tuple[Path, str], FileIO] = {}
        self._buffers: dict[str, bytearray] = {}
        self._floats = torch.empty(0)
        self._products = torch.empty(0)
        self._levels = torch.empty(0, dtype=torch.int8)

    def close(self) -> None:
        """Close every file."""
        for file in self._files.values():
            file.close()

    def source(self, piece: Piece) -> torch.Tensor:
        """The piece as it is stored, [rows, columns]; valid until the next call. Raises CheckpointError, OSError."""
        return self._rows(piece.task.home, piece.task.source, piece, "source")

    def written(self, tensor: Tensor, piece: Piece) -> torch.Tensor:
        """The piece's rows of a tensor of the new file; valid until the next call for that tensor."""
        return self._rows(self.output, tensor, piece, tensor.dtype)  # data and scales are needed together

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
            self._levels = torch.empty(max(count, _READ // 2), dtype=torch.int8)
        return self._levels[:count].view(shape)

    def _rows(self, path: Path, tensor: Tensor, piece: Piece, buffer: str) -> torch.Tensor:
        dtype = TORCH_DTYPES[tensor.dtype]
        row = (tensor.end - tensor.begin) // piece.task.matrix[0]
        with self._timed("read"):
            raw = self._read(path, buffer, tensor.begin + piece.first * row, piece.rows * row)
        return torch.frombuffer(raw, dtype=dtype, count=piece.rows * row // dtype.itemsize).view(piece.rows, -1)

    def _read(self, path: Path, kind: str, offset: int, length: int) -> bytearray:
        buffer = self._buffers.get(kind)
        if buffer is None or len(buffer) < length:
            buffer = self._buffers[kind] = bytearray(max(length, _READ))
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
        """The piece in fp32, a few rows at a time: times the scale of scaled fp8, changed by the edits; or as it is
        stored and all at once, where there is nothing to change.

        `values` [rows, columns] as stored. Each block is overwritten by the next.
        """
        rows, columns = values.shape
        if piece.task.plain:
            yield slice(0, rows), values
            return
        task = piece.task
        scale, adds = self._scale(task), [edit.ready(self._room) for edit in task.edits]
        if scale is None and task.source.dtype in DTYPES and is_matrix(task.source.name, task.source.shape):
            check_plain(values, task.source.name, task.home.name)
        step = max(LEAST if adds else 1, CHUNK // columns)
        if self._floats.numel() < min(step, rows) * columns:
            self._floats = torch.empty(max(CHUNK, step * columns))
        for begin in range(0, rows, step):
            part, first = slice(begin, min(begin + step, rows)), piece.first + begin
            block = self._floats[: (part.stop - begin) * columns].view(-1, columns)
            block.copy_(values[part])
            if scale is not None:
                block.mul_(scale[first : first + len(block)] if len(scale) > 1 else scale)
            for add in adds:
                add(block, first)
            yield part, block

    def _room(self, rows: int, columns: int) -> torch.Tensor:
        if self._products.numel() < rows * columns:
            self._products = torch.empty(rows * columns)
        return self._products[: rows * columns].view(rows, columns)

    def _scale(self, task: Task) -> torch.Tensor | None:
        """Scale of an fp8 tensor in fp32: [1, 1] or [rows, 1]."""
        if task.scale is None:
            return None
        tensor, home = task.scale
        raw = self._read(home, "scale", tensor.begin, tensor.end - tensor.begin)[: tensor.end - tensor.begin]
        return torch.frombuffer(raw, dtype=TORCH_DTYPES[tensor.dtype]).to(torch.float32).view(-1, 1)

    @contextmanager
    def _timed(self, kind: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[kind] += time.perf_counter() - start


def write_piece(hands: Hands, piece: Piece) -> None:
    """Read, compute and write one piece. Raises CheckpointError for what can't be stored so, and for bad numbers."""
    task, values = piece.task, hands.source(piece)
    if task.quantized:
        data_row, scale_row = task.outputs
        data = hands.levels(values.shape)
        scale = torch.empty((piece.rows, 1), dtype=TORCH_DTYPES[scale_row.dtype])
        for part, block in hands.blocks(piece, values):
            quantize_rows(block, data[part], scale[part], task.source.name)
            if task.edits and off(block, data[part], scale[part]):
                raise CheckpointError(f"{task.source.name} was quantized wrongly.", hint="Please report it.")
        if task.edits:  # merging once more, to hold it against what is read again, would take as long as this did
            hands.sums[task.source.name, piece.first] = _sum(data, scale)
        hands.write(data_row, piece.first, data)
        hands.write(scale_row, piece.first, scale)
        return
    hands.write(task.outputs[0], piece.first, _converted(hands, piece, values))


def _converted(hands: Hands, piece: Piece, values: torch.Tensor) -> torch.Tensor:
    """The rows of a piece as the new file's data type holds them. Raises CheckpointError where that can't."""
    task, dtype = piece.task, TORCH_DTYPES[piece.task.outputs[0].dtype]
    found = torch.empty(values.shape, dtype=dtype)
    for part, block in hands.blocks(piece, values):
        check_finite(block, task.source.name)
        found[part] = block
        if dtype == torch.float16 and not bool(torch.isfinite(found[part]).all()):
            raise CheckpointError(f"{task.source.name} is too large for fp16.", hint="Use bf16.")
    return found


def verify_piece(hands: Hands, piece: Piece) -> None:
    """Read a piece of the new file again and hold it against the source. Raises CheckpointError."""
    task, values = piece.task, hands.source(piece)
    if task.quantized:
        data, scale = (hands.written(tensor, piece) for tensor in task.outputs)
        known = hands.sums.get((task.source.name, piece.first))
        if known is not None:
            wrong = known != _sum(data, scale)
        else:
            wrong = any(off(block, data[part], scale[part]) for part, block in hands.blocks(piece, values))
    else:
        wrong = not torch.equal(hands.written(task.outputs[0], piece), _converted(hands, piece, values))
    if wrong:
        raise CheckpointError(
            f"{task.outputs[0].name} was not written as it should be.", hint="Check the disk, and start again."
        )


def _sum(data: torch.Tensor, scale: torch.Tensor) -> int:
    """CRC-32 of rows as they are stored."""
    return zlib.crc32(scale.view(torch.uint8).numpy().data, zlib.crc32(data.numpy().data))


def work_through(
    recipe: Recipe,
    output: Path,
    work: Callable[[Hands, Piece], None],
    stage: str,
    listener: Listener,
    cancel: CancelToken,
    sums: Sums,
) -> dict[str, float]:
    """Do all pieces of a recipe on all cores; returns the seconds spent on reading, computing and writing, summed
    over the workers. `sums`: filled while writing, held against while verifying. Raises what the first piece that
    fails raises, and Cancelled.
    """
    count = min(_MOST_WORKERS, os.cpu_count() or 1)
    idle: queue.SimpleQueue[Hands] = queue.SimpleQueue()
    everyone = [Hands(output, sums) for _ in range(count)]
    for hands in everyone:
        idle.put(hands)
    stop = threading.Event()

    def job(piece: Piece) -> int:
        if stop.is_set():
            raise Cancelled("Stopped by request.")
        hands, start = idle.get(), time.perf_counter()
        before = sum(hands.seconds.values()) - hands.seconds["compute"]
        try:
            work(hands, piece)
        finally:
            moved = sum(hands.seconds.values()) - hands.seconds["compute"] - before
            hands.seconds["compute"] += time.perf_counter() - start - moved
            idle.put(hands)
        return piece.rows * (piece.task.source.end - piece.task.source.begin) // piece.task.matrix[0]

    threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(count, "stream", torch.set_num_threads, (1,))  # together they use all cores
    done, name = 0, output.name.removesuffix(UNFINISHED)
    try:
        jobs = [pool.submit(job, piece) for piece in pieces(recipe, _READ)]
        for finished in as_completed(jobs):
            done += finished.result()
            listener(Progress(stage, done, recipe.reads, "bytes", name))
            cancel.check()
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)  # what the workers set would count for every thread to come
        for hands in everyone:
            hands.close()
    return {kind: sum(hands.seconds[kind] for hands in everyone) for kind in ("read", "compute", "write")}
