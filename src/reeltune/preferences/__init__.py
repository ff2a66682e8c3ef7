"""The user's preferences, stored in `<root>/reeltune.json` and overridden by command-line options.

preferences, notices = load_preferences(root)
preferences = preferences.with_flags(dtype="FP16")
"""

from __future__ import annotations

from reeltune.preferences.fields import CHOICES, FIELDS, TOKENS, PreferenceField
from reeltune.preferences.model import Preferences
from reeltune.preferences.store import FILE_NAME, SCHEMA_VERSION, check_outputs, load_preferences, save_preferences

__all__ = [
    "CHOICES",
    "FIELDS",
    "FILE_NAME",
    "SCHEMA_VERSION",
    "TOKENS",
    "PreferenceField",
    "Preferences",
    "check_outputs",
    "load_preferences",
    "save_preferences",
]
