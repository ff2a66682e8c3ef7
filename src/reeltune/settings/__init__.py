"""Generation settings: read from anywhere, checked, layered, split into single videos, written.

stored = read_settings(values)             # of files and other programs: tolerant, of every date
given = check_call({"num_inference_steps": 20})   # of a caller: strict
settings = layer(architecture, definition.settings, stored.settings, given)
"""

from __future__ import annotations

from reeltune.settings.calls import check_call, parse_assignments
from reeltune.settings.layers import layer, neutral, refusals, stored_layer, unused
from reeltune.settings.length import frame_count, frame_rate
from reeltune.settings.prompts import split_prompts, videos_asked
from reeltune.settings.reading import (
    StoredSettings,
    listed,
    read_settings,
    read_settings_file,
    stored_settings,
    unknown_problem,
)
from reeltune.settings.renames import portable, settings_text

__all__ = [
    "StoredSettings",
    "check_call",
    "frame_count",
    "frame_rate",
    "layer",
    "listed",
    "neutral",
    "parse_assignments",
    "portable",
    "read_settings",
    "read_settings_file",
    "refusals",
    "settings_text",
    "split_prompts",
    "stored_layer",
    "stored_settings",
    "unknown_problem",
    "unused",
    "videos_asked",
]
