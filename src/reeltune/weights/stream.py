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
from reeltune.weights.buffers import READ_BYTES, Buffers, Checksums
from reeltune.weights.formats.quanto_int8 import check_finite, off, quantize_rows
from reeltune.weights.recipe import Piece, Recipe, pieces
from reeltune.weights.tensors import TORCH_DTYPES

UNFINISHED = ".quantizing" + PARTIAL  # after a file's name while it is being written
_MOST_THREADS = 8


def write_piece(buffers: Buffers, piece: Piece) -> None:
    """Read, compute and write one piece. Raises CheckpointError for values that can't be stored, NaN and infinity."""
    task, values = piece.task, buffers.source(piece)
    if task.quantized:
        data_row, scale_row = task.outputs
        data = buffers.levels((piece.rows, task.matrix[1]))
        scale = torch.empty((piece.rows, 1), dtype=TORCH_DTYPES[scale_row.dtype])
        for part, block in buffers.blocks(piece, values):
            quantize_rows(block, data[part], scale[part], task.source.name)
            if task.edits and off(block, data[part], scale[part]):
                raise CheckpointError(f"{task.source.name} was quantized wrongly.", hint="Please report it.")
        if task.edits:  # merging once more, to hold it against what is read again, would take as long as this did
            buffers.checksums[task.source.name, piece.first] = _checksum(data, scale)
        buffers.write(data_row, piece.first, data)
        buffers.write(scale_row, piece.first, scale)
        return
    buffers.write(task.outputs[0], piece.first, _converted(buffers, piece, values))


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
    if task.quantized:
        data, scale = (buffers.written(tensor, piece) for tensor in task.outputs)
        known = buffers.checksums.get((task.source.name, piece.first))
        if known is not None:
            wrong = known != _checksum(data, scale)
        else:
            wrong = any(off(block, data[part], scale[part]) for part, block in buffers.blocks(piece, values))
    else:
        wrong = not torch.equal(buffers.written(task.outputs[0], piece), _converted(buffers, piece, values))
    if wrong:
        raise CheckpointError(
            f"{task.outputs[0].name} was not written as it should be.", hint="Check the disk, and start again."
        )


def _checksum(data: torch.Tensor, scale: torch.Tensor) -> int:
    """CRC-32 of rows as they are stored."""
    return zlib.crc32(scale.view(torch.uint8).numpy().data, zlib.crc32(data.numpy().data))


def work_through(
    recipe: Recipe,
    output: Path,
    work: Callable[[Buffers, Piece], None],
    stage: str,
    listener: Listener,
    cancel: CancelToken,
    checksums: Checksums,
) -> dict[str, float]:
    """Do all pieces of a recipe on all cores; returns the seconds spent on reading, computing and writing, summed
    over the threads. `checksums`: filled while writing, held against while verifying. Raises what the first piece that
    fails raises, and Cancelled.
    """
    count = min(_MOST_THREADS, os.cpu_count() or 1)
    idle: queue.SimpleQueue[Buffers] = queue.SimpleQueue()
    everyone = [Buffers(output, checksums) for _ in range(count)]
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
