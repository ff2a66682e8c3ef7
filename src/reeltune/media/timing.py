"""Sample the frames of a video at a constant rate by their timestamps, even if its own rate varies."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

import av

Frame = TypeVar("Frame")
Converted = TypeVar("Converted")

_BACKWARD = 1.0  # seconds; timestamps jump back by more where recordings were joined
_TOLERANCE = 1e-3  # seconds; Matroska rounds timestamps to milliseconds


@dataclass(frozen=True)
class TimedFrame(Generic[Frame]):
    """A frame with the times at which it appears and disappears, in seconds from the first frame."""

    frame: Frame
    start: float
    end: float


def timed_frames(frames: Iterable[av.VideoFrame], rate: float) -> Iterator[TimedFrame[av.VideoFrame]]:
    """Frames with their times, which start at 0 for any first timestamp.

    A frame without a timestamp, or with one that is not later than the previous frame's, follows the previous frame at
    `rate` frames per second.
    """
    offset: float | None = None
    previous: float | None = None
    for frame in frames:
        expected = 0.0 if previous is None else previous + 1 / rate
        timestamp = _seconds(frame)
        start = expected
        if timestamp is not None:
            if offset is None or (previous is not None and timestamp - offset < previous - _BACKWARD):
                offset = timestamp - expected
            start = timestamp - offset
        if previous is not None and start <= previous:
            start = expected
        yield TimedFrame(frame, start, start + (_duration(frame) or 1 / rate))
        previous = start


def _seconds(frame: av.VideoFrame) -> float | None:
    if frame.pts is None or not frame.time_base:
        return None
    return float(frame.pts * frame.time_base)


def _duration(frame: av.VideoFrame) -> float:
    """How long a frame is shown, in seconds; 0 if unknown."""
    if not frame.duration or frame.duration < 0 or not frame.time_base:
        return 0.0
    return float(frame.duration * frame.time_base)


def sample_frames(
    frames: Iterable[TimedFrame[Frame]], count: int, fps: int, convert: Callable[[Frame], Converted]
) -> tuple[list[Converted], bool]:
    """The first `count` samples at `fps` samples per second, and whether the video continues after them.

    A sample is the frame that is shown in the middle of its interval; a frame that is shown for several intervals is
    repeated. `convert` is called once for each frame in the result.
    """
    samples: list[Converted] = []
    current: TimedFrame[Frame] | None = None
    for following in frames:
        if current is not None:
            _repeat(samples, current.frame, min(count, _intervals(following.start, fps)), convert)
        if len(samples) >= count:
            return samples, True
        current = following
    if current is not None:
        total = max(_intervals(current.end, fps), len(samples), 1)
        _repeat(samples, current.frame, min(count, total), convert)
    return samples, False


def _intervals(seconds: float, fps: int) -> int:
    """The number of intervals whose middle is not after a time."""
    return int(min(max(0.0, (seconds + _TOLERANCE) * fps + 0.5), 1e9))


def _repeat(samples: list[Converted], frame: Frame, total: int, convert: Callable[[Frame], Converted]) -> None:
    """Add a frame to the samples until there are `total`."""
    missing = total - len(samples)
    if missing > 0:
        samples.extend([convert(frame)] * missing)
