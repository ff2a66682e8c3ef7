"""Settings that a caller gives: strict, because a slip of the pen should not cost minutes of computing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from reeltune.errors import InvalidJSON, SettingsError
from reeltune.families.values import ANY, BLOCKS, MULTIPLIERS, NAMES, PATHS
from reeltune.families.vocabulary import KEYS, shown
from reeltune.settings.nearest import nearest_setting
from reeltune.settings.renames import NEWEST_VERSION, OLD_NAMES, convert
from reeltune.untrusted import clean_text, parse_json

_LISTS = (ANY, BLOCKS, MULTIPLIERS, NAMES, PATHS)
_LONGEST_KEY = 60


def parse_assignments(pairs: Iterable[str]) -> dict[str, Any]:
    """Settings from `key=value` texts. Raises SettingsError for an unknown key, naming the nearest."""
    given: dict[str, Any] = {}
    for pair in pairs:
        key, sign, value = pair.partition("=")
        if not sign:
            raise SettingsError(f"{shown(pair)} is not a setting.", hint="Write key=value, as num_inference_steps=20.")
        given[key.strip()] = _from_text(key.strip(), value)
    return check_call(given)


def _from_text(key: str, text: str) -> Any:
    """A list or object written as JSON where the setting may be one; else the text itself."""
    if key not in KEYS or KEYS[key].kind not in _LISTS or text.lstrip()[:1] not in ("[", "{"):
        return text
    try:
        return parse_json(clean_text(text), key)
    except InvalidJSON:
        return text


def check_call(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings given by a caller, by their newest names and in their kinds.

    Raises SettingsError for an unknown key, an impossible value, or one setting under two names.
    """
    checked: dict[str, Any] = {}
    for key, value in values.items():
        if key not in KEYS and key not in OLD_NAMES:
            raise unknown_setting(key)
        found = convert(key, value, NEWEST_VERSION)
        if twice := [name for name in found if name in checked and checked[name] != found[name]]:
            raise SettingsError(f"{twice[0]} is given twice, once by an older name.", hint="Leave one of them out.")
        checked |= found
    return checked


def unknown_setting(key: Any) -> SettingsError:
    """The error for a name that is no setting, with the one that was probably meant."""
    near = nearest_setting(str(key))
    hint = f"Did you mean {near!r}?" if near else "`reeltune show ID` lists a model's settings."
    return SettingsError(f"There is no setting {clean_text(str(key))[:_LONGEST_KEY]!r}.", hint=hint)
