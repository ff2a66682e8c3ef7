"""Profiles: partial settings, usually with LoRAs, that make a model faster. LoRA presets are read as profiles too.

    offered = profiles_of(catalog["t2v_2_2"], preferences.model_folders)
    settings = apply_profile(settings, offered.named("Lightning, 2 phases"))

A memory profile is something else: it says where weights are stored while a video is made.
"""

from __future__ import annotations

from reeltune.profiles.applying import (
    applied_profile,
    apply_profile,
    call_with_profile,
    remove_profile,
    repeated_loras,
    settings_of_call,
)
from reeltune.profiles.finding import NO_PROFILE, OfferedProfiles, all_profiles, presets_of, profiles_of
from reeltune.profiles.model import Profile
from reeltune.profiles.reading import read_preset, read_profile

__all__ = [
    "NO_PROFILE",
    "OfferedProfiles",
    "Profile",
    "all_profiles",
    "applied_profile",
    "apply_profile",
    "call_with_profile",
    "presets_of",
    "profiles_of",
    "read_preset",
    "read_profile",
    "remove_profile",
    "repeated_loras",
    "settings_of_call",
]
