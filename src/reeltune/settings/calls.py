"""Settings passed by a caller: checked strictly, because a typo should not cost minutes of computing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from reeltune.errors import InvalidJSON, SettingsError
from reeltune.families.values import ANY, BLOCKS, MULTIPLIERS, NAMES, PATHS, Settings
from reeltune.families.vocabulary import KEYS, shown
from reeltune.settings.nearest import nearest_setting
from reeltune.settings.renames import NEWEST_VERSION, OLD_NAMES, convert
from reeltune.untrusted import clean_text, parse_json

_LIST_KINDS = (ANY, BLOCKS, MULTIPLIERS, NAMES, PATHS)
_MAX_KEY = 60  # characters of a key in a message


def parse_assignments(pairs: Iterable[str]) -> Settings:
    """Settings from `key=value` texts. Raises SettingsError as `check_call`, and for a text without `=`."""
    settings: dict[str, Any] = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator:
            message = f"Invalid setting {shown(pair)}."
            raise SettingsError(message, hint="Write key=value, such as num_inference_steps=20.")
        settings[key.strip()] = _parse_value(key.strip(), value)
    return check_call(settings)


def _parse_value(key: str, text: str) -> Any:
    """A JSON list or object if the setting accepts one, else the text itself."""
    if key not in KEYS or KEYS[key].kind not in _LIST_KINDS or text.lstrip()[:1] not in ("[", "{"):
        return text
    try:
        return parse_json(clean_text(text), key)
    except InvalidJSON:
        return text


def check_call(values: Settings) -> Settings:
    """Settings passed by a caller, under their newest names and with normalized values.

    Raises SettingsError for an unknown key, an invalid value, or a setting under two names with different values.
    """
    checked: dict[str, Any] = {}
    for key, value in values.items():
        if key not in KEYS and key not in OLD_NAMES:
            raise unknown_setting(key)
        for name, normalized in convert(key, value, NEWEST_VERSION).items():
            if name in checked and checked[name] != normalized:
                raise SettingsError(f"{name} is set twice, once by an older name.", hint="Remove one of them.")
            checked[name] = normalized
    return checked


def unknown_setting(key: Any) -> SettingsError:
    """The error for an unknown key, with the setting that was probably meant."""
    nearest = nearest_setting(str(key))
    hint = f"Did you mean {nearest!r}?" if nearest else "`reeltune show ID` lists a model's settings."
    name = clean_text(str(key))[:_MAX_KEY]
    return SettingsError(f"Unknown setting {name!r}.", hint=hint, key=name)
