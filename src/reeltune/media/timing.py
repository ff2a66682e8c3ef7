"""Which frames of a video belong to which moments: by their time stamps, however its frame rate varies."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

import av

Frame = TypeVar("Frame")
Picture = TypeVar("Picture")

_BACKWARD = 1.0  # seconds; a larger step back in time is where recordings were joined
_TOLERANCE = 1e-3  # seconds; Matroska rounds time stamps to milliseconds


@dataclass(frozen=True)
class Stamped(Generic[Frame]):
    """A frame, and when it starts and ends to show, in seconds from the first one."""

    frame: Frame
    start: float
    end: float


def stamped(frames: Iterable[av.VideoFrame], rate: float) -> Iterator[Stamped[av.VideoFrame]]:
    """Frames in the order they show, from 0 on, whatever the first one's time stamp is.

    A frame without a stamp, or one that isn't later than the frame before, follows that one at `rate` frames a second.
    """
    offset: float | None = None
    before: float | None = None
    for frame in frames:
        expected = 0.0 if before is None else before + 1 / rate
        own = _seconds(frame)
        if own is not None and offset is not None and before is not None and own - offset < before - _BACKWARD:
            offset = None
        if own is not None and offset is None:
            offset = own - expected
        start = expected if own is None or offset is None else own - offset
        if before is not None and start <= before:
            start = expected
        yield Stamped(frame, start, start + (_duration(frame) or 1 / rate))
        before = start


def _seconds(frame: av.VideoFrame) -> float | None:
    if frame.pts is None or not frame.time_base:
        return None
    return float(frame.pts * frame.time_base)


def _duration(frame: av.VideoFrame) -> float:
    """How long a frame shows, in seconds; 0 where it is unknown."""
    if not frame.duration or frame.duration < 0 or not frame.time_base:
        return 0.0
    return float(frame.duration * frame.time_base)


def pace(
    frames: Iterable[Stamped[Frame]], count: int, fps: int, picture: Callable[[Frame], Picture]
) -> tuple[list[Picture], bool]:
    """At most `count` pictures, `fps` a second, and whether the video goes on after them.

    The picture of a moment is the frame that shows half an interval later: where frames follow each other at least as
    fast as the pictures, it is at most half an interval away; a frame that shows for long is repeated for as long.
    `picture` is called once for each frame that is taken.
    """
    taken: list[Picture] = []
    current: Stamped[Frame] | None = None
    for following in frames:
        if current is not None:
            _repeat(taken, current.frame, min(count, _moments(following.start, fps)), picture)
        if len(taken) >= count:
            return taken, True
        current = following
    if current is not None:
        until = max(_moments(current.end, fps), len(taken) if taken else 1)
        _repeat(taken, current.frame, min(count, until), picture)
    return taken, False


def _moments(seconds: float, fps: int) -> int:
    """How many intervals have their middle before or at a time."""
    return int(min(max(0.0, (seconds + _TOLERANCE) * fps + 0.5), 1e9))


def _repeat(taken: list[Picture], frame: Frame, until: int, picture: Callable[[Frame], Picture]) -> None:
    missing = until - len(taken)
    if missing > 0:
        taken.extend([picture(frame)] * missing)
