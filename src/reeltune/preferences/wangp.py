"""Import of preferences from WanGP's `wgp_config.json`."""

from __future__ import annotations

from typing import Any

from reeltune.errors import PreferencesError
from reeltune.preferences.fields import FIELDS
from reeltune.preferences.model import Preferences
from reeltune.untrusted import JsonObject

_UNSUPPORTED = ("vae_config", "vae_precision", "boost", "preload_in_VRAM")
# WanGP's profiles: 1 and 3 are for GPUs that the model fits on, 2 and 4 for smaller ones, 5 for little RAM as well.
_PROFILES = {"-1": "auto", "1": "resident", "2": "streamed", "3": "stages", "4": "streamed", "5": "minimum"}
_ATTENTION = {"": "auto", "sage2": "sage", "sage3": "sage"}


def from_wangp(config: JsonObject) -> tuple[Preferences, list[str]]:
    """The preferences in WanGP's configuration, and notices; unsupported ones are kept in `extra` under `wgp`."""
    translated = {
        "quantization": config.get("transformer_quantization"),
        "dtype": config.get("transformer_dtype_policy") or None,
        "text_encoder_quantization": config.get("text_encoder_quantization"),
        "memory_profile": _profile(config.get("profile")),
        "attention": _attention(config.get("attention_mode")),
        "outputs": config.get("save_path") or None,
    }
    values: dict[str, Any] = {"compile": bool(config.get("compile"))}
    notices: list[str] = []
    for name, value in translated.items():
        if value is None:
            continue
        try:
            values[name] = FIELDS[name].checked(value)
        except PreferencesError:
            default = getattr(Preferences(), name)
            notices.append(f"WanGP's value for {name} is not supported: {default!r} is used.")
    unsupported = {key: config[key] for key in _UNSUPPORTED if key in config}
    if unsupported:
        notices.append(f"Not supported, and kept in the file: {', '.join(unsupported)}.")
    if "profile" in config and "memory_profile" in values:
        notices.append(f"WanGP's profile {config['profile']} becomes memory profile {values['memory_profile']}.")
    return Preferences(**values, extra={"wgp": unsupported} if unsupported else {}), notices


def _profile(value: Any) -> Any:
    """The memory profile for a WanGP profile number; 3.5 is a variant of 3."""
    if value is None:
        return None
    return _PROFILES.get(str(value).partition(".")[0], value)


def _attention(value: Any) -> Any:
    return _ATTENTION.get(value, value) if isinstance(value, str) else value
