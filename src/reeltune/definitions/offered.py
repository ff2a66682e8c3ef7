"""The resolutions a definition offers: texts such as `832x480`, or pairs of a label and such a text."""

from __future__ import annotations

from typing import Any

from reeltune.errors import Problem, SettingsError
from reeltune.families.vocabulary import coerce, shown
from reeltune.untrusted import clean_text

Offered = tuple[tuple[str, str], ...]
_MOST = 100


def offered_resolutions(values: list[Any] | None, file: str) -> tuple[Offered, list[Problem]]:
    """Label and resolution of each entry that can be used, and a warning where one can't."""
    found: list[tuple[str, str]] = []
    odd: list[Any] = []
    for row in (values or [])[:_MOST]:
        label, value = row if isinstance(row, list) and len(row) == 2 else (row, row)
        try:
            resolution = str(coerce("resolution", value))
        except SettingsError:
            odd.append(row)
            continue
        found.append((clean_text(label) if isinstance(label, str) else resolution, resolution))
    if not odd:
        return tuple(found), []
    message = f"Invalid value {shown(odd[0])}. It is left out."
    return tuple(found), [Problem(file, "model.resolutions", message, "Write resolutions such as 832x480.", "warning")]
