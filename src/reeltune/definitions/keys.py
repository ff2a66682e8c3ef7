"""Keys of the `model` object that other programs write, and what becomes of each here."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

# They change what other programs make of the definition, and aren't done here: reported wherever it is used.
REPORTED: Mapping[str, str] = MappingProxyType(
    {
        "configs": "its variants of the model can't be chosen here",
        "LTXV_config": "guidance and timesteps are those of the settings, not of that file",
        "text_encoder_folder": "the text encoder is the architecture's own",
        "sample_solver": "the solver is the one of the settings",
        "lock_guidance_phases": "the number of phases is the one of the settings",
        "guidance_max_phases": "the number of phases is the one of the settings",
    }
)

# About lists, pages, documents, memory and tools of other programs: nothing of it shows in a video.
SILENT = frozenset(
    {
        "attention", "author", "finetune_source_model", "group", "infos", "model_type", "parent_model_type",
        "preload_in_VRAM", "profile_dirs", "profiles_dir", "prompt_infos", "resolutions_categories", "settings_dir",
        "source", "source2", "teacache_coefficients", "xresolutions",
    }
)  # fmt: skip
_SILENT_PARTS = ("prompt_enhancer",)

# Replacements of components; a definition that uses one isn't run without it.
REPLACED_COMPONENTS = ("text_encoder_URLs", "VAE_URLs")


def is_silent(key: str) -> bool:
    """Whether a key of another program asks for nothing that a video would show."""
    return key in SILENT or any(part in key for part in _SILENT_PARTS)


def is_known(key: str) -> bool:
    """Whether some program is known to write the key."""
    return key in REPORTED or key in REPLACED_COMPONENTS or is_silent(key)


def asks(value: Any) -> bool:
    """Whether the value of a key asks for anything: not empty, not off."""
    return value not in (None, False, "", [], {}, [""])
