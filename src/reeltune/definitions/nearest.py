"""Suggestions for misspelled names of definitions and architectures; never the name of another model."""

from __future__ import annotations

import re
from collections.abc import Iterable

_MAX_LENGTH = 60  # the time of a comparison grows with the length, and no known name is longer
_SEPARATORS = re.compile(r"[\s_.\-]+")
_DIGITS = re.compile(r"\d+")
_IMPLIED = re.compile(r"[\s_.\-]*(14b|480p)$", re.IGNORECASE)  # sizes that the names of some architectures omit


def nearest_name(name: str, known: Iterable[str]) -> str:
    """The name among `known` that `name` is a misspelling of; empty if there is none, or more than one.

    Case, separators and a few letters may differ. Numbers must be equal: they are sizes and versions, and a name with
    another number is another model.
    """
    if not name or len(name) > _MAX_LENGTH:
        return ""
    candidates = sorted(set(known))
    for variant in (_normalized(name), _normalized(_IMPLIED.sub("", name))):
        for candidate in candidates:
            if _normalized(candidate) == variant:
                return candidate
    distances = {candidate: _distance(name, candidate) for candidate in candidates if _comparable(name, candidate)}
    smallest = min(distances.values(), default=_max_distance(name) + 1)
    nearest = [candidate for candidate, distance in distances.items() if distance == smallest]
    if smallest > _max_distance(name) or len(nearest) > 1:
        return ""
    return nearest[0]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The nearest name as a question for a hint; empty if there is none."""
    nearest = nearest_name(name, known)
    return f"Did you mean {nearest!r}?" if nearest else ""


def _normalized(name: str) -> str:
    return _SEPARATORS.sub("", name.casefold())


def _max_distance(name: str) -> int:
    return 1 if len(name) < 8 else 2


def _comparable(name: str, other: str) -> bool:
    """Whether two names contain the same numbers and have similar lengths."""
    return abs(len(name) - len(other)) <= _max_distance(name) and _DIGITS.findall(name) == _DIGITS.findall(other)


def _distance(left: str, right: str) -> int:
    """The number of inserted, deleted, replaced and swapped letters between two names (optimal string alignment)."""
    left = left.casefold()
    right = right.casefold()
    before_previous: list[int] = []
    previous: list[int] = []
    current = list(range(len(right) + 1))
    for row, letter in enumerate(left, start=1):
        before_previous = previous
        previous = current
        current = [row]
        for column, other in enumerate(right, start=1):
            replaced = previous[column - 1] + (letter != other)
            cost = min(previous[column] + 1, current[column - 1] + 1, replaced)
            if row > 1 and column > 1 and letter == right[column - 2] and left[row - 2] == other:
                cost = min(cost, before_previous[column - 2] + 1)
            current.append(cost)
    return current[-1]
