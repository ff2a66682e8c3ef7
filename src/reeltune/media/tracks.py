"""Trajectories of points, from NumPy files that are read without trusting them: no pickle, and of a limited size."""

from __future__ import annotations

import io
import math
import tokenize
import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt

from reeltune.errors import FileError, MediaError
from reeltune.files import read_bytes
from reeltune.media.kinds import NUMPY_FILE, display, kind_of_bytes
from reeltune.untrusted import clean_text

_MAX_BYTES = 64_000_000
_MAX_HEADER = 10_000  # characters
_READERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
_FAILURES = (
    ValueError,
    KeyError,
    TypeError,
    SyntaxError,
    tokenize.TokenError,
    OverflowError,
    RecursionError,
    MemoryError,
)
_SHAPE = "It must hold numbers of shape [frames, points, 2]: x and y of each point in each frame."
_OUTSIDE = -1.0
_MOST_OUTSIDE = 2.0  # fractions of points that leave the picture; a file in pixels has larger numbers
_MAX_POINTS = 100_000  # copies take 100 bytes and more for each point in each frame
Tracks = npt.NDArray[np.float32]


def read_tracks(path: Path) -> Tracks:
    """The points in a file, float32 [frames, points, 2]: x and y, as they are stored; -1 for those that aren't numbers.

    Raises MediaError for a file that isn't a NumPy array of such a shape, or is too large.
    """
    try:
        content = read_bytes(path, _MAX_BYTES)
    except FileError as error:
        raise MediaError(clean_text(error.message), hint=error.hint) from error
    name, kind = display(path), kind_of_bytes(content[:4096])
    if kind.label != NUMPY_FILE:
        raise MediaError(f"{name} is {kind.label}, not a NumPy file of trajectories.", hint=_SHAPE)
    try:
        return _points(content)
    except _FAILURES as error:
        raise MediaError(f"{name} can't be used as trajectories.", hint=_SHAPE) from error


def in_pixels(tracks: Tracks, width: int, height: int) -> Tracks:
    """Points in pixels of a video of that size; those of a file without any number above 2 are fractions of it."""
    if tracks.size and tracks.max() > _MOST_OUTSIDE:
        return tracks
    return np.where(tracks < 0, tracks, np.round(tracks * np.array([width, height], np.float32)))


def _points(content: bytes) -> Tracks:
    """The points in the content of a file. Raises one of `_FAILURES`."""
    stream = io.BytesIO(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about headers of Python 2
        shape, by_columns, dtype = _READERS[np.lib.format.read_magic(stream)](stream, max_header_size=_MAX_HEADER)
    start = stream.tell()
    if dtype.kind not in "iuf" or math.prod(shape) * dtype.itemsize != len(content) - start:
        raise ValueError("other values")
    flat = np.frombuffer(content, dtype, offset=start)
    points = flat.reshape(shape[::-1]).T if by_columns else flat.reshape(shape)
    if points.ndim == 4 and len(points) == 1:
        points = points[0]
    if points.ndim != 3 or points.shape[2] != 2 or not points.size:
        raise ValueError("another shape")
    if points.shape[1] > _MAX_POINTS:
        raise ValueError("too many points")
    with np.errstate(over="ignore"):
        values = points.astype(np.float32)
    return np.where(np.isfinite(values), values, np.float32(_OUTSIDE))
