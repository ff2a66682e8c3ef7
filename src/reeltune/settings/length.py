"""How many frames a video has, and how many a second, from the settings and the steps of the family."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reeltune.families import Architecture
from reeltune.families.values import RATE_SOURCES, seconds_of


def frame_rate(settings: Mapping[str, Any], architecture: Architecture) -> int:
    """Frames a second: `force_fps` where it is a number, else the architecture's own rate."""
    rate = settings.get("force_fps")
    if rate in (None, "", 0, *RATE_SOURCES):
        return architecture.frame_rate
    return max(1, round(float(rate)))


def frame_count(settings: Mapping[str, Any], architecture: Architecture, rate: int | None = None) -> int:
    """The nearest number of frames the family makes to `video_length`: a multiple of its step, plus one.

    `rate`: frames a second that a duration is counted in; by default those of the settings.
    """
    step = architecture.family.frame_step
    length = settings["video_length"]
    seconds = seconds_of(length)
    wanted = length if seconds is None else seconds * (rate or frame_rate(settings, architecture))
    return max(0, round((float(wanted) - 1) / step)) * step + 1
