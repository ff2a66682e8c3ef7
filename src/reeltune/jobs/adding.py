"""Checks the settings of a job that is added or edited, and writes them as the queue stores them."""

from __future__ import annotations

from pathlib import Path

from reeltune.errors import InvalidJSON, SettingsError
from reeltune.families.values import Settings
from reeltune.jobs.confine import Confinement
from reeltune.jobs.rows import dumped
from reeltune.settings import check_call
from reeltune.untrusted import parse_json

_MOST_SETTINGS = 200_000  # characters of one job's


def confinement_of(root: Path, confined: bool) -> Confinement | None:
    """The folders that jobs of a root may use; None if they aren't confined."""
    return Confinement.of(root) if confined else None


def checked_text(settings: Settings, confinement: Confinement | None) -> str:
    """Settings as they are stored. Raises SettingsError."""
    values = check_call(settings)
    if confinement is not None:
        confinement.check_settings(values)
    text = dumped(values)
    if len(text) > _MOST_SETTINGS:
        message = f"The settings have {len(text):,} characters."
        raise SettingsError(message, hint=f"At most {_MOST_SETTINGS:,} are stored.")
    try:
        parse_json(text, "the settings")
    except InvalidJSON as error:
        raise SettingsError(f"The settings can't be stored: {error.message}") from error
    return text
