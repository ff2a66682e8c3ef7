"""The name that was probably meant by one that doesn't exist: slips of the pen only, never another model."""

from __future__ import annotations

import re
from collections.abc import Iterable

_LONGEST = 60  # comparing takes time that grows with the length, and no name that is known is longer
_SEPARATORS = re.compile(r"[\s_.\-]+")
_DIGITS = re.compile(r"\d+")
_IMPLIED = re.compile(r"[\s_.\-]*(14b|480p)$", re.IGNORECASE)  # of architectures that don't say so in their name


def nearest_name(name: str, known: Iterable[str]) -> str:
    """The one of `known` that `name` is a misspelling of; empty where there is none, or more than one.

    Case, separators and a few letters may differ. Numbers may not: they are sizes and versions, so that another number
    is another model.
    """
    if not name or len(name) > _LONGEST:
        return ""
    candidates = sorted(set(known))
    for variant in (_plain(name), _plain(_IMPLIED.sub("", name))):
        if same := [row for row in candidates if _plain(row) == variant]:
            return same[0]
    scored = [(_slips(name, row), row) for row in candidates if _comparable(name, row)]
    near = sorted(row for row in scored if row[0] <= _most_slips(name))
    if not near or (len(near) > 1 and near[1][0] == near[0][0]):
        return ""
    return near[0][1]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`nearest_name` as a question, or an empty string."""
    found = nearest_name(name, known)
    return f"Did you mean {found!r}?" if found else ""


def _plain(name: str) -> str:
    return _SEPARATORS.sub("", name.casefold())


def _most_slips(name: str) -> int:
    return 1 if len(name) < 8 else 2


def _comparable(name: str, other: str) -> bool:
    """Whether two names hold the same numbers and are about as long."""
    return abs(len(name) - len(other)) <= _most_slips(name) and _DIGITS.findall(name) == _DIGITS.findall(other)


def _slips(left: str, right: str) -> int:
    """The number of letters added, left out, replaced or exchanged with the next (optimal string alignment)."""
    left, right = left.casefold(), right.casefold()
    before: list[int] = []
    row = list(range(len(right) + 1))
    for index, letter in enumerate(left, start=1):
        before, last, row = row, before, [index]
        for column, other in enumerate(right, start=1):
            cost = min(before[column] + 1, row[column - 1] + 1, before[column - 1] + (letter != other))
            if column > 1 and last and letter == right[column - 2] and left[index - 2] == other:
                cost = min(cost, last[column - 2] + 1)
            row.append(cost)
    return row[-1]
