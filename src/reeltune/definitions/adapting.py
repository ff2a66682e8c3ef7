"""What a definition changes about its architecture: the frame rate, images instead of videos, and named variants."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

from reeltune.families import Architecture
from reeltune.families.base import END_IMAGE

_VIDEO_ONLY = frozenset({"video_length", "force_fps", "RIFLEx_setting"})
CONFIG = "config"  # the setting that selects a variant


def with_frame_rate(architecture: Architecture, fps: int | None) -> Architecture:
    """The architecture with another frame rate; unchanged for None."""
    return replace(architecture, fps=fps) if fps else architecture


def making_images(architecture: Architecture) -> Architecture:
    """The architecture as it makes a single image: without a length, a frame rate, and an optional end image."""
    optional_end = [accepted.key for accepted in architecture.inputs if accepted.key == END_IMAGE.key]
    optional_end = [] if needs_end_image(architecture) else optional_end
    without = _VIDEO_ONLY | set(optional_end)
    return replace(
        architecture,
        image_outputs=True,
        inputs=tuple(accepted for accepted in architecture.inputs if accepted.key not in optional_end),
        settings=architecture.settings - without,
        defaults=MappingProxyType({key: value for key, value in architecture.defaults.items() if key not in without}),
        call_only=architecture.call_only | _VIDEO_ONLY,
    )


def needs_end_image(architecture: Architecture) -> bool:
    """Whether videos of an architecture need an end image, so that it can't make a single image."""
    return any(accepted.key == END_IMAGE.key and accepted.required for accepted in architecture.inputs)


def with_variants(architecture: Architecture) -> Architecture:
    """The architecture with the setting that selects a variant."""
    return replace(architecture, settings=architecture.settings | {CONFIG})
