"""Keys of the `model` object that other programs use, and how reeltune treats each of them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

# Keys that change the result in other programs and have no effect in reeltune: each one is reported.
REPORTED: Mapping[str, str] = MappingProxyType(
    {
        "k5_config_overrides": "attention isn't sparse, and timesteps are taken from the settings",
        "sample_solver": "the solver is taken from the settings",
        "lock_guidance_phases": "the number of phases is taken from the settings",
        "ltx2_msr_frame_count": "the length of the clip of reference images follows from the LoRA and their number",
        "guidance_max_phases": "the number of phases is taken from the settings",
    }
)

# Keys for the lists, pages, documentation, memory and tools of other programs, which don't change a video.
SILENT = frozenset(
    {
        "attention", "author", "finetune_source_model", "group", "infos", "ltx2_msr", "model_type", "parent_model_type",
        "prompt_infos", "resolutions_categories", "settings_dir", "source", "source2", "teacache_coefficients",
        "xresolutions",
    }
)  # fmt: skip
_SILENT_PARTS = ("prompt_enhancer",)


def is_silent(key: str) -> bool:
    """Whether a key of another program has no effect on videos."""
    return key in SILENT or any(part in key for part in _SILENT_PARTS)


def is_known(key: str) -> bool:
    """Whether a known program uses the key."""
    return key in REPORTED or is_silent(key)


def has_value(value: Any) -> bool:
    """Whether the value of a key is neither empty nor off."""
    return value not in (None, False, "", [], {}, [""])
