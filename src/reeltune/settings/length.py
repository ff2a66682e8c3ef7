"""The number of frames and the frame rate of a video, from its settings and its family's frame step."""

from __future__ import annotations

from reeltune.families import Architecture
from reeltune.families.values import MAX_FRAMES, RATE_SOURCES, Settings, seconds_of


def frame_rate(settings: Settings, architecture: Architecture) -> int:
    """Frames per second: `force_fps` if it is a number, else the architecture's own rate."""
    rate = settings.get("force_fps")
    if rate in (None, "", 0, *RATE_SOURCES):
        return architecture.frame_rate
    return max(1, round(float(rate)))


def frame_count(settings: Settings, architecture: Architecture, rate: int | None = None) -> int:
    """The valid number of frames nearest to `video_length`: a multiple of the family's step plus one, up to MAX_FRAMES;
    1 for an image.

    `rate`: frames per second, which convert a duration to frames; by default the settings' frame rate.
    """
    if architecture.image_outputs:
        return 1
    step = architecture.family.frame_step
    length = settings["video_length"]
    seconds = seconds_of(length)
    frames = float(length) if seconds is None else seconds * (rate or frame_rate(settings, architecture))
    steps = min(round((frames - 1) / step), (MAX_FRAMES - 1) // step)
    return max(0, steps) * step + 1
