"""The first pass over the models: what slerp and ties need to know of a whole tensor before its first row is merged.

Each tensor is measured by one thread, from its first row to its last, so that the result is the same each time.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TypeVar

import torch

from reeltune.errors import Cancelled
from reeltune.events import CancelToken, Listener, Progress
from reeltune.weights.buffers import READ_BYTES
from reeltune.weights.edits import LEAST
from reeltune.weights.merging.rows import Operand

_VALUES = READ_BYTES // 16  # at once: 2 MB in fp32
_MOST_THREADS = 8
_BINS_BITS = 16  # of the 31 bits of a magnitude, those that the first histogram counts
_REST_BITS = 31 - _BINS_BITS
Result = TypeVar("Result")
Shape = tuple[int, int]


def each_tensor(
    shapes: Mapping[str, Shape],
    work: Callable[[str], Result],
    stage: str,
    listener: Listener,
    cancel: CancelToken,
    threads: int = _MOST_THREADS,
) -> dict[str, Result]:
    """Call `work` for each tensor, in several threads, and report the progress. Raises what it raises, and Cancelled.

    `shapes`: the rows and columns of each tensor. `threads`: at most; each computes on one core.
    """
    stop = threading.Event()

    def job(name: str) -> tuple[str, Result]:
        if stop.is_set():
            raise Cancelled("Stopped as asked.")
        return name, work(name)

    results: dict[str, Result] = {}
    threads_before = torch.get_num_threads()
    pool = ThreadPoolExecutor(min(threads, os.cpu_count() or 1), stage, torch.set_num_threads, (1,))
    try:
        largest_first = sorted(shapes, key=lambda name: -math.prod(shapes[name]))
        for finished in as_completed([pool.submit(job, name) for name in largest_first]):
            name, result = finished.result()
            results[name] = result
            listener(Progress(stage, len(results), len(shapes), "tensors"))
            cancel.check()
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads_before)
    return results


def dot_products(first: Operand, second: Operand, shape: Shape) -> tuple[tuple[float, float], float]:
    """The sums of the squared values of two tensors, and their dot product."""
    squares, product = [0.0, 0.0], 0.0
    for row, count in _steps(shape):
        left, right = torch.empty(count, shape[1]), torch.empty(count, shape[1])
        first.copy(row, left)
        second.copy(row, right)
        squares[0] += float(torch.dot(left.view(-1), left.view(-1)))
        squares[1] += float(torch.dot(right.view(-1), right.view(-1)))
        product += float(torch.dot(left.view(-1), right.view(-1)))
    return (squares[0], squares[1]), product


def threshold(model: Operand, base: Operand, shape: Shape, density: float) -> float:
    """The smallest magnitude that is kept of the differences of a tensor from the base model's.

    That is the k-th largest one, k the share `density` of all values, rounded, and 1 at least. It is found exactly,
    with two passes over the tensor. The order of fp32 values that aren't negative is that of their bits, so the first
    pass counts the upper bits, and the second one the lower bits of those in the bin of the k-th largest.
    """
    keep = max(1, round(density * math.prod(shape)))
    upper = torch.zeros(1 << _BINS_BITS, dtype=torch.int64)
    for bits in _magnitudes(model, base, shape):
        upper += torch.bincount(bits >> _REST_BITS, minlength=len(upper))
    bin, above = _bin_of(upper, keep)
    lower = torch.zeros(1 << _REST_BITS, dtype=torch.int64)
    for bits in _magnitudes(model, base, shape):
        within = bits[(bits >> _REST_BITS) == bin] & (len(lower) - 1)
        lower += torch.bincount(within, minlength=len(lower))
    rest, _ = _bin_of(lower, keep - above)
    return float(torch.tensor((bin << _REST_BITS) | rest, dtype=torch.int32).view(torch.float32))


def _bin_of(counts: torch.Tensor, rank: int) -> tuple[int, int]:
    """The bin that holds the `rank`-th largest value, and how many values are in the bins above it."""
    from_above = counts.flip(0).cumsum(0)
    position = int(torch.searchsorted(from_above, rank))
    above = int(from_above[position - 1]) if position else 0
    return len(counts) - 1 - position, above


def _magnitudes(model: Operand, base: Operand, shape: Shape) -> Iterator[torch.Tensor]:
    """The magnitudes of the differences as the bits of fp32 numbers: int32 [values], some at a time."""
    for row, count in _steps(shape):
        values, subtracted = torch.empty(count, shape[1]), torch.empty(count, shape[1])
        model.copy(row, values)
        base.copy(row, subtracted)
        yield values.sub_(subtracted).abs_().view(-1).view(torch.int32)


def _steps(shape: Shape) -> Iterator[tuple[int, int]]:
    """The rows of a tensor in steps: the first row of each, and how many there are."""
    rows, columns = shape
    step = max(LEAST, _VALUES // columns)
    for row in range(0, rows, step):
        yield row, min(step, rows - row)
