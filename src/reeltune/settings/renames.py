"""Older names and forms of settings: converted to the newest on reading, and back on writing.

WanGP's settings files contain a `settings_version`; files without one are old. All changes of names and forms since
June 2025 are declared in this module.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from reeltune._version import __version__
from reeltune.errors import SettingsError
from reeltune.families.base import LORA_SOURCES
from reeltune.families.values import NUMBER, PATHS, Settings
from reeltune.families.vocabulary import KEYS, coerce, shown
from reeltune.files import expand

NEWEST_VERSION = 2.74
_ENHANCER_VERSION = 2.61
_PROMPT_MODES = ("G", "W", "FG")  # by their former numbers 0, 1, 2
_IMAGE_LETTERS = ("S", "SE")  # by their former numbers 0, 1
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
_CONFIG = "config"
OLD_NAMES = (*RENAMED, _CACHE)

# Keys beside the settings in a file, which describe it and have no effect.
DESCRIPTIVE = frozenset(
    {
        "about", "base_model_type", "creation_date", "creation_timestamp", "generation_time", "lset_name", "mode",
        "program", "schema_version", "state",
    }
)  # fmt: skip


def convert(key: str, value: Any, version: float) -> Settings:
    """One setting of a file, under its newest names and with normalized values; empty for a value of None.

    `version`: the file's `settings_version`. Raises SettingsError, and KeyError for an unknown name.
    """
    if key == _CACHE:
        return _step_cache(value)
    newest = RENAMED.get(key, key)
    setting = KEYS[newest]
    if value is None and None not in setting.neutral and not setting.descriptive:
        return {}
    newest_form = _OLD_FORMS[newest](value, version) if newest in _OLD_FORMS else value
    try:
        return {newest: coerce(newest, newest_form)}
    except SettingsError as error:
        if newest == key:
            raise
        raise SettingsError(f"Invalid value {shown(value)} for {key}.", hint=error.hint, key=key) from None


def _step_cache(value: Any) -> Settings:
    """The settings of the step cache from its former single setting, a speed factor with 0 for off."""
    try:
        speed = NUMBER.convert(value)
    except ValueError as error:
        raise SettingsError(
            f"Invalid value {shown(value)} for {_CACHE}.", hint=f"It must be {error}.", key=_CACHE
        ) from None
    if speed <= 1:
        return {_CACHE_TYPE: ""}
    return {_CACHE_TYPE: "tea", _CACHE_SPEED: speed}


def _by_number(forms: tuple[str, ...], value: Any) -> Any:
    """The newest form of a former number, which may be text; other values are returned unchanged."""
    if isinstance(value, bool):
        return value
    for index, form in enumerate(forms):
        if value == index or (isinstance(value, str) and value.strip() == str(index)):
            return form
    return value


def _prompt_mode(value: Any, version: float) -> Any:
    return _by_number(_PROMPT_MODES, value)


def _image_letters(value: Any, version: float) -> Any:
    return _by_number(_IMAGE_LETTERS, value)


def _enhancer(value: Any, version: float) -> Any:
    return _ENHANCERS.get(value, value) if isinstance(value, str) and version < _ENHANCER_VERSION else value


_OLD_FORMS: Mapping[str, Callable[[Any, float], Any]] = MappingProxyType(
    {
        "multi_prompts_gen_type": _prompt_mode,
        "image_prompt_type": _image_letters,
        "prompt_enhancer": _enhancer,
    }
)


def settings_text(id: str, settings: Settings) -> str:
    """The text of a settings file for a definition, readable by WanGP too."""
    content = {"type": f"reeltune {__version__}", "model_type": id, **portable(settings)}
    return json.dumps(content, indent=4, ensure_ascii=False, default=str) + "\n"


def portable(settings: Settings) -> Settings:
    """Settings in a form that other programs can read.

    This is the form of June 2025, which every program reads, if it can represent them; else the newest, with its
    version. Paths in the home folder begin with `~`, as its name usually is that of a person.
    """
    settings = {key: _without_home(value) if _names_files(key) else value for key, value in settings.items()}
    if settings.get(_CONFIG):
        settings = {**settings, _CONFIG: portable_config(str(settings[_CONFIG]))}
    old = _oldest(settings)
    if old is not None:
        return old
    return {**settings, "settings_version": NEWEST_VERSION}


def _names_files(key: str) -> bool:
    return key == LORA_SOURCES or (key in KEYS and KEYS[key].kind is PATHS)


def _without_home(value: Any) -> Any:
    """A path, or a list of paths, with `~` in place of the home folder, which `expand` puts back."""
    if isinstance(value, list | tuple):
        return [_without_home(item) for item in value]
    home = str(expand("~"))
    if not isinstance(value, str) or not Path(home).name or not value.startswith((f"{home}/", f"{home}\\")):
        return value
    return f"~{value[len(home) :]}"


def portable_config(value: str) -> str:
    """The value of `config` as WanGP stores it: the definition's variant is the fourth of several choices."""
    return value if "," in value else f",,,{value}"


def _oldest(settings: Settings) -> Settings | None:
    """All settings under their names and forms of June 2025; None if one of them can't be represented."""
    older = {newest: old for old, newest in RENAMED.items() if old != "prompts"}
    cache = settings.get(_CACHE_TYPE, "")
    speed = settings.get(_CACHE_SPEED)
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
