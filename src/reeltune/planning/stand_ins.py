"""Files of ComfyUI in place of the same published models that would have to be downloaded."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from types import MappingProxyType

from reeltune.definitions import Definition, Version
from reeltune.definitions.slots import TRANSFORMERS, Slot
from reeltune.library.inventory import Inventory
from reeltune.planning.selection import Cause, Rejection, Selection


def stand_ins(definition: Definition, inventory: Inventory, on_disk: Collection[str]) -> Definition | None:
    """The definition with other files for each transformer of which no version is on disk; None if there are none.

    `on_disk`: the URLs of the versions that are. Other files become int8 while loading, if int8 is preferred.
    """
    slots: dict[Slot, tuple[Version, ...]] = {}
    for slot, versions in definition.slots.items():
        if slot not in TRANSFORMERS or any(version.url in on_disk for version in versions):
            continue
        paths = [path for version in versions for path in inventory.stand_ins(version)]
        if paths:
            slots[slot] = tuple(Version(str(path)) for path in dict.fromkeys(paths))
    if not slots:
        return None
    return replace(definition, slots=MappingProxyType({**definition.slots, **slots}), auto_quantize=True)


def with_stand_ins(definition: Definition, selection: Selection) -> Selection:
    """The selection with the reason why the listed versions are passed over, and a notice."""
    rejected, notices = list(selection.rejected), list(selection.notices)
    for slot, choice in selection.choices.items():
        versions = definition.slots[slot]
        if choice.version in versions:
            continue
        name = choice.version.file_name
        reason = f"{name} has the same model, and is on disk"
        rejected += [Rejection(slot, version, reason, Cause.RANK) for version in versions]
        notices.append(
            f"{slot}: {choice.version.url} is used, since it is the same published model as {versions[0].file_name}."
        )
    return replace(selection, rejected=tuple(rejected), notices=tuple(notices))
