"""Generation settings: reading, checking, layering, splitting into videos, and writing.

stored = read_settings(values)                    # from files and other programs, of any version: tolerant
call = check_call({"num_inference_steps": 20})    # from a caller: strict
settings = layer(architecture, definition.settings, stored.settings, call=call)
"""

from __future__ import annotations

from reeltune.settings.calls import check_call, parse_assignments
from reeltune.settings.layers import is_neutral, layer, refusals, stored_layer, unused
from reeltune.settings.length import frame_count, frame_rate
from reeltune.settings.prompts import split_prompts, split_videos
from reeltune.settings.reading import (
    StoredSettings,
    is_lora_preset,
    listed,
    read_lora_preset,
    read_settings,
    read_settings_file,
    stored_settings,
    unknown_settings,
)
from reeltune.settings.renames import portable, settings_text

__all__ = [
    "StoredSettings",
    "check_call",
    "frame_count",
    "frame_rate",
    "is_lora_preset",
    "is_neutral",
    "layer",
    "listed",
    "parse_assignments",
    "portable",
    "read_lora_preset",
    "read_settings",
    "read_settings_file",
    "refusals",
    "settings_text",
    "split_prompts",
    "split_videos",
    "stored_layer",
    "stored_settings",
    "unknown_settings",
    "unused",
]
