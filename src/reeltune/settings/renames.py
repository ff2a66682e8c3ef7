"""Older names and forms of settings: read into the newest, and written back where older programs may read the file.

WanGP's settings files carry a `settings_version`; a file without one is old. What has changed since June 2025 is in the
tables here, and nowhere else.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from reeltune._version import __version__
from reeltune.errors import SettingsError
from reeltune.families.values import NUMBER
from reeltune.families.vocabulary import KEYS, coerce, shown

NEWEST_VERSION = 2.74
_TEXT_MODES_VERSION = 2.55  # since then `multi_prompts_gen_type` is text
_ENHANCER_VERSION = 2.61
_PROMPT_MODES = ("G", "W", "FG")  # by their old numbers 0, 1, 2
_IMAGE_LETTERS = ("S", "SE")  # by their old numbers 0, 1
_ENHANCERS = MappingProxyType({"I": "TI", "IK": "TIK"})

RENAMED: Mapping[str, str] = MappingProxyType(
    {
        "prompts": "prompt",
        "slg_switch": "perturbation_switch",
        "slg_layers": "perturbation_layers",
        "slg_start_perc": "perturbation_start_perc",
        "slg_end_perc": "perturbation_end_perc",
        "tea_cache_start_step_perc": "skip_steps_start_step_perc",
    }
)
_CACHE, _CACHE_TYPE, _CACHE_SPEED = "tea_cache_setting", "skip_steps_cache_type", "skip_steps_multiplier"
OLD_NAMES = (*RENAMED, _CACHE)

# Of a file that a program wrote beside its settings: they describe it and ask for nothing.
DESCRIPTIVE = frozenset(
    {
        "base_model_type", "creation_date", "creation_timestamp", "generation_time", "lset_name", "mode", "program",
        "schema_version", "state",
    }
)  # fmt: skip


def convert(key: str, value: Any, version: float) -> dict[str, Any]:
    """One setting of a file of some version, by its newest names and in its kinds; empty where it asks for nothing.

    Raises SettingsError, KeyError for a name that never was a setting.
    """
    if key == _CACHE:
        return _step_cache(value)
    newest = RENAMED.get(key, key)
    row = KEYS[newest]
    if value is None and None not in row.neutral and not row.descriptive:
        return {}
    try:
        return {newest: coerce(newest, _FORMS[newest](value, version) if newest in _FORMS else value)}
    except SettingsError as error:
        if newest == key:
            raise
        raise SettingsError(f"Invalid value {shown(value)} for {key}.", hint=error.hint) from None


def _step_cache(value: Any) -> dict[str, Any]:
    """The speed factor that stood for the whole cache: 0 was off."""
    try:
        speed = NUMBER.convert(value)
    except ValueError as error:
        raise SettingsError(f"Invalid value {shown(value)} for {_CACHE}.", hint=f"It must be {error}.") from None
    return {_CACHE_TYPE: "tea", _CACHE_SPEED: speed} if speed > 1 else {_CACHE_TYPE: ""}


def _by_number(forms: tuple[str, ...], value: Any) -> Any:
    """The form of an old number, or of its digit as text; what is neither stays."""
    if isinstance(value, bool):
        return value
    number = value if isinstance(value, int | float) else None
    if isinstance(value, str) and value.strip() in [str(index) for index in range(len(forms))]:
        number = int(value)
    return next((form for index, form in enumerate(forms) if index == number), value)


def _prompt_mode(value: Any, version: float) -> Any:
    return _by_number(_PROMPT_MODES, value)


def _image_letters(value: Any, version: float) -> Any:
    return _by_number(_IMAGE_LETTERS, value)


def _enhancer(value: Any, version: float) -> Any:
    return _ENHANCERS.get(value, value) if isinstance(value, str) and version < _ENHANCER_VERSION else value


_FORMS: Mapping[str, Callable[[Any, float], Any]] = MappingProxyType(
    {
        "multi_prompts_gen_type": _prompt_mode,
        "image_prompt_type": _image_letters,
        "prompt_enhancer": _enhancer,
    }
)


def settings_text(id: str, settings: Mapping[str, Any]) -> str:
    """The text of a settings file for a definition, as this and other programs read it."""
    content = {"type": f"reeltune {__version__}", "model_type": id, **portable(settings)}
    return json.dumps(content, indent=4, ensure_ascii=False, default=str) + "\n"


def portable(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as they are written into files that other programs read: in the form of June 2025 where it can hold
    them, which every program reads; else in the newest, with its version.
    """
    old = _oldest(settings)
    if old is not None:
        return old
    return {**settings, "settings_version": NEWEST_VERSION}


def _oldest(settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """All settings by their names and forms of June 2025; None where one of them had none."""
    older = {newest: old for old, newest in RENAMED.items() if old != "prompts"}
    cache, speed = settings.get(_CACHE_TYPE, ""), settings.get(_CACHE_SPEED)
    if cache not in ("", "tea") or (cache and speed is None):
        return None
    written: dict[str, Any] = {}
    for key, value in settings.items():
        if key == _CACHE_TYPE:
            written[_CACHE] = speed if cache else 0
        elif key == "multi_prompts_gen_type":
            if value not in _PROMPT_MODES:
                return None
            written[key] = _PROMPT_MODES.index(value)
        elif key == "prompt_enhancer" and value in _ENHANCERS:
            return None
        elif key not in (_CACHE_SPEED, "settings_version"):
            written[older.get(key, key)] = value
    return written
