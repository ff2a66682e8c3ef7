"""A recipe carried out as a stream: rows in, rows out, a few megabytes at a time, on all cores.

Each thread reads, computes and writes on its own, so that disk and cores are busy together. Every row goes to its
place in the new file at once; nothing is held but what is being worked on.
"""

from __future__ import annotations

import os
import queue
import threading
import time
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import torch

from reeltune.errors import Cancelled, CheckpointError
from reeltune.events import CancelToken, Listener, Progress
from reeltune.library.inventory import PARTIAL
from reeltune.weights import fp8, fp8_rows
from reeltune.weights.buffers import READ_BYTES, Buffers, Checksums, Magnitudes
from reeltune.weights.formats.quanto_int8 import check_finite, largest_of_rows, off, quantize_rows
from reeltune.weights.recipe import Piece, Recipe, Task, pieces
from reeltune.weights.tensors import TORCH_DTYPES

UNFINISHED = ".quantizing" + PARTIAL  # after a file's name while it is being written
_MOST_THREADS = 8


def measure_piece(buffers: Buffers, piece: Piece) -> None:
    """Note the largest magnitude of one piece, for the scale of the whole weight. Raises CheckpointError."""
    task = piece.task
    if not task.whole_scale:
        return
    values = buffers.source(piece)
    name = task.source.name
    largest = [float(largest_of_rows(block, name).amax()) for _, block in buffers.blocks(piece, values)]
    buffers.largest[name, piece.first] = max(largest)


def write_piece(buffers: Buffers, piece: Piece) -> None:
    """Read, compute and write one piece. Raises CheckpointError for values that can't be stored, NaN and infinity."""
    task, values = piece.task, buffers.source(piece)
    if task.quantized:
        data = buffers.levels((piece.rows, task.matrix[1]))
        scale = torch.empty((piece.rows, 1), dtype=TORCH_DTYPES[task.outputs[1].dtype])
        for part, block in buffers.blocks(piece, values):
            quantize_rows(block, data[part], scale[part], task.source.name)
            if task.edits and off(block, data[part], scale[part]):
                raise _wrong(task)
        _write_quantized(buffers, piece, data, scale)
    elif task.to_fp8:
        data = torch.empty((piece.rows, task.matrix[1]), dtype=fp8.E4M3)
        scale = _fp8_scale(buffers, piece)
        for part, block in buffers.blocks(piece, values):
            part_scale = scale
            if task.row_scales:
                part_scale = scale[part] = fp8_rows.row_scales(block, task.source.name)
            if len(task.outputs) == 1:
                fp8_rows.refuse_too_large(block, task.source.name)
            fp8_rows.to_fp8(block, part_scale, data[part])
            if task.edits and fp8_rows.off(block, data[part], part_scale):
                raise _wrong(task)
        _write_quantized(buffers, piece, data, scale)
    else:
        buffers.write(task.outputs[0], piece.first, _converted(buffers, piece, values))


def _fp8_scale(buffers: Buffers, piece: Piece) -> torch.Tensor:
    """Room for the scales of a piece's rows; or the scale of the whole weight, 1 where it has none, [1, 1]."""
    task = piece.task
    if task.row_scales:
        return torch.empty((piece.rows, 1))
    if not task.whole_scale:
        return torch.ones(1, 1)
    largest = max(value for (name, _), value in buffers.largest.items() if name == task.source.name)
    return fp8_rows.scales_of(torch.tensor([[largest]]))


def _write_quantized(buffers: Buffers, piece: Piece, data: torch.Tensor, scale: torch.Tensor) -> None:
    """Write data and scales. A scale of the whole weight is written with its first rows."""
    task = piece.task
    if task.edits:  # merging once more, to hold it against what is read again, would take as long as this did
        buffers.checksums[task.source.name, piece.first] = _checksum(data, scale)
    buffers.write(task.outputs[0], piece.first, data)
    if len(task.outputs) > 1 and (piece.first == 0 or not task.whole_scale):
        buffers.write(task.outputs[1], piece.first, scale)


def _wrong(task: Task) -> CheckpointError:
    return CheckpointError(f"{task.source.name} was quantized wrongly.", hint="Please report it.")


def _converted(buffers: Buffers, piece: Piece, values: torch.Tensor) -> torch.Tensor:
    """The rows of a piece in the new file's data type. Raises CheckpointError for values that don't fit."""
    task, dtype = piece.task, TORCH_DTYPES[piece.task.outputs[0].dtype]
    converted = torch.empty((piece.rows, task.matrix[1]), dtype=dtype)
    for part, block in buffers.blocks(piece, values):
        check_finite(block, task.source.name)
        converted[part] = block
        if dtype == torch.float16 and not bool(torch.isfinite(converted[part]).all()):
            raise CheckpointError(f"{task.source.name} is too large for fp16.", hint="Use bf16.")
    return converted


def verify_piece(buffers: Buffers, piece: Piece) -> None:
    """Read a piece of the new file again and compare it with the source. Raises CheckpointError."""
    task, values = piece.task, buffers.source(piece)
    if task.quantized or task.to_fp8:
        data, scale = buffers.written(task.outputs[0], piece), _written_scale(buffers, piece)
        known = buffers.checksums.get((task.source.name, piece.first))
        if known is not None:
            wrong = known != _checksum(data, scale)
        else:
            compare = fp8_rows.off if task.to_fp8 else off
            wrong = False
            for part, block in buffers.blocks(piece, values):
                wrong |= compare(block, data[part], scale if len(scale) == 1 else scale[part])
    else:
        wrong = not torch.equal(buffers.written(task.outputs[0], piece), _converted(buffers, piece, values))
    if wrong:
        raise CheckpointError(
            f"{task.outputs[0].name} was not written as it should be.", hint="Check the disk, and start again."
        )


def _written_scale(buffers: Buffers, piece: Piece) -> torch.Tensor:
    """The scales of a piece in the new file: [rows, 1], or [1, 1] of the whole weight; 1 where it has none."""
    task = piece.task
    if len(task.outputs) == 1:
        return torch.ones(1, 1)
    return buffers.written_scalar(task.outputs[1]) if task.whole_scale else buffers.written(task.outputs[1], piece)


def _checksum(data: torch.Tensor, scale: torch.Tensor) -> int:
    """CRC-32 of rows as they are stored."""
    return zlib.crc32(scale.view(torch.uint8).numpy().data, zlib.crc32(data.view(torch.uint8).numpy().data))


def work_through(
    recipe: Recipe,
    output: Path,
    work: Callable[[Buffers, Piece], None],
    stage: str,
    listener: Listener,
    cancel: CancelToken,
    checksums: Checksums,
    largest: Magnitudes,
) -> dict[str, float]:
    """Do all pieces of a recipe on all cores; returns the seconds spent on reading, computing and writing, summed
    over the threads. `checksums`: filled while writing, held against while verifying; `largest`: filled while
    measuring, used while writing. Raises what the first piece that fails raises, and Cancelled.
    """
    count = min(_MOST_THREADS, os.cpu_count() or 1)
    idle: queue.SimpleQueue[Buffers] = queue.SimpleQueue()
    everyone = [Buffers(output, checksums, largest) for _ in range(count)]
    for buffers in everyone:
        idle.put(buffers)
    stop = threading.Event()

    def job(piece: Piece) -> int:
        if stop.is_set():
            raise Cancelled("Stopped as asked.")
        buffers, start = idle.get(), time.perf_counter()
        before = sum(buffers.seconds.values()) - buffers.seconds["compute"]
        try:
            work(buffers, piece)
        finally:
            moved = sum(buffers.seconds.values()) - buffers.seconds["compute"] - before
            buffers.seconds["compute"] += time.perf_counter() - start - moved
            idle.put(buffers)
        return piece.rows * piece.task.row_bytes

    threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(count, "stream", torch.set_num_threads, (1,))  # together they use all cores
    done, name = 0, output.name.removesuffix(UNFINISHED)
    try:
        jobs = [pool.submit(job, piece) for piece in pieces(recipe, READ_BYTES)]
        for finished in as_completed(jobs):
            done += finished.result()
            listener(Progress(stage, done, recipe.reads, "bytes", name))
            cancel.check()
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)  # what the threads set would count for every thread to come
        for buffers in everyone:
            buffers.close()
    return {kind: sum(buffers.seconds[kind] for buffers in everyone) for kind in ("read", "compute", "write")}
