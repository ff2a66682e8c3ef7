"""The weights of a definition's LoRAs: a list, a text, or the id of a definition whose weights are used."""

from __future__ import annotations

from collections.abc import Mapping

from reeltune._text import counted
from reeltune.definitions.entries import Entry
from reeltune.definitions.nearest import did_you_mean
from reeltune.definitions.references import chain
from reeltune.errors import Problem, SettingsError
from reeltune.families.base import LORA_WEIGHTS
from reeltune.families.vocabulary import shown
from reeltune.settings.multipliers import items_of, parse_multipliers

_WHERE = f"model.{LORA_WEIGHTS}"
_FIX = "Write one weight for each LoRA, such as [0.8, 1], or the id of a definition."
Value = list[str | float | int] | str | None


def lora_weights(entry: Entry, entries: Mapping[str, Entry], loras: int) -> tuple[str, list[Problem]]:
    """One item for each LoRA that has a weight, separated by spaces, and warnings.

    `loras`: the number of the definition's LoRAs. Invalid weights and circular references are reported, and all weights
    are 1 then, as for an empty text. Surplus items are reported and left out.
    """
    value, file, circle = _followed(entry, entries)
    if circle:
        message = f"The references are circular: {chain(circle)}. The weights are 1."
        return "", [_warning(file, message, "Write the weights in one of them.")]
    try:
        items = _items(value)
        parse_multipliers(" ".join(items))
    except SettingsError as error:
        reason = error.message.removeprefix(f"{LORA_WEIGHTS}: ").rstrip(".")
        message = f"Invalid value {shown(value)}: {reason}. The weights are 1."
        suggestion = did_you_mean(value, entries) if isinstance(value, str) else ""
        return "", [_warning(file, message, suggestion or _FIX)]
    surplus = len(items) - loras
    if surplus <= 0:
        return " ".join(items), []
    unused = "the last one is" if surplus == 1 else f"the last {surplus:,} are"
    message = f"{counted(len(items), 'weight')} for {counted(loras, 'LoRA')}: {unused} not used in {shown(value)}."
    return " ".join(items[:loras]), [_warning(str(entry.files[-1]), message, "Write one weight for each LoRA.")]


def _followed(entry: Entry, entries: Mapping[str, Entry]) -> tuple[Value, str, list[str]]:
    """The value at the end of a chain of references, the file that contains it, and the ids of a circular chain."""
    visited: dict[tuple[str, int], None] = {}
    layer = entry.top
    while True:
        value, found = entry.value(LORA_WEIGHTS, layer)
        file = str(entry.files[found])
        if not isinstance(value, str) or value not in entries:
            return value, file, []
        key = (entry.id, layer)
        if key in visited:
            order = list(visited)
            return value, file, [id for id, _ in order[order.index(key) :]] + [entry.id]
        visited[key] = None
        if value == entry.id and found > 0:
            layer = found - 1  # a file that overrides a definition means what it overrides
        else:
            entry = entries[value]
            layer = entry.top


def _items(value: Value) -> tuple[str, ...]:
    """The items of a value; an empty one in a list is 1. Raises SettingsError for several weights in one item."""
    if not isinstance(value, list):
        return items_of(value or "")
    items: list[str] = []
    for part in value:
        text = str(part).strip() or "1"
        found = items_of(text)
        if len(found) != 1:
            raise SettingsError(f"{shown(part)} is not the weight of one LoRA.")
        items += found
    return tuple(items)


def _warning(file: str, message: str, fix: str) -> Problem:
    return Problem(file, _WHERE, message, fix, "warning")
