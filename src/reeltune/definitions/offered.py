"""The resolutions that a definition offers: `832x480`, or a pair of a label and such a text."""

from __future__ import annotations

from typing import Any

from reeltune.errors import Problem, SettingsError
from reeltune.families.vocabulary import coerce, shown
from reeltune.untrusted import clean_text

Resolutions = tuple[tuple[str, str], ...]  # label and value
_MAX_ITEMS = 100


def offered_resolutions(items: list[Any] | None, file: str) -> tuple[Resolutions, list[Problem]]:
    """The label and value of each valid item, and a warning if some are invalid."""
    resolutions: list[tuple[str, str]] = []
    invalid: list[Any] = []
    for item in (items or [])[:_MAX_ITEMS]:
        label, value = item if isinstance(item, list) and len(item) == 2 else (item, item)
        try:
            resolution = str(coerce("resolution", value))
        except SettingsError:
            invalid.append(item)
            continue
        resolutions.append((clean_text(label) if isinstance(label, str) else resolution, resolution))
    if not invalid:
        return tuple(resolutions), []
    message = f"Invalid value {shown(invalid[0])}. It is left out."
    problem = Problem(file, "model.resolutions", message, "Use resolutions such as 832x480.", "warning")
    return tuple(resolutions), [problem]
