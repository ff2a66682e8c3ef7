"""Preferences from WanGP's `wgp_config.json`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reeltune.errors import PreferencesError
from reeltune.preferences.fields import FIELDS
from reeltune.preferences.model import Preferences

_LATER = ("vae_config", "vae_precision", "boost", "preload_in_VRAM")
# WanGP's profiles by number: 1 and 3 expect a card that holds the model, 2 and 4 a smaller one, 5 little of both.
_PROFILES = {"-1": "auto", "1": "resident", "2": "streamed", "3": "stages", "4": "streamed", "5": "minimum"}
_ATTENTION = {"": "auto", "sage2": "sage", "sage3": "sage"}


def from_wangp(config: Mapping[str, Any]) -> tuple[Preferences, list[str]]:
    """Translate WanGP's configuration; what has no meaning here yet is kept under `wgp` and named."""
    written = {
        "quantization": config.get("transformer_quantization"),
        "dtype": config.get("transformer_dtype_policy") or None,
        "text_encoder_quantization": config.get("text_encoder_quantization"),
        "memory_profile": _profile(config.get("profile")),
        "attention": _attention(config.get("attention_mode")),
        "outputs": config.get("save_path") or None,
    }
    values: dict[str, Any] = {"compile": bool(config.get("compile"))}
    notices: list[str] = []
    for name, value in written.items():
        if value is None:
            continue
        try:
            values[name] = FIELDS[name].checked(value)
        except PreferencesError:
            default = getattr(Preferences(), name)
            notices.append(f"Its value for {name} is not one this program knows: {default!r} is used.")
    kept = {key: config[key] for key in _LATER if key in config}
    if kept:
        notices.append(f"Kept for later, without effect yet: {', '.join(kept)}.")
    if "profile" in config and "memory_profile" in values:
        notices.append(f"Its profile {config['profile']} becomes the memory profile {values['memory_profile']}.")
    return Preferences(**values, extra={"wgp": kept} if kept else {}), notices


def _profile(value: Any) -> Any:
    """A profile by its number; 3.5 is a variant of 3."""
    if value is None:
        return None
    return _PROFILES.get(str(value).partition(".")[0], value)


def _attention(value: Any) -> Any:
    return _ATTENTION.get(value, value) if isinstance(value, str) else value
