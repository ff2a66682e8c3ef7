"""Files that a definition names by a path on this machine: whether they are there, and what it says."""

from __future__ import annotations

from pathlib import Path

from reeltune.definitions import Definition
from reeltune.definitions.slots import PRELOAD
from reeltune.errors import Problem
from reeltune.library.inventory import Inventory
from reeltune.planning.facts import wanted_file


def local_problems(definition: Definition, file: Path, inventory: Inventory) -> list[Problem]:
    """A problem for each path that leads nowhere, or to a file that can't be what it is listed as."""
    found = []
    for slot, versions in {**definition.slots, PRELOAD: definition.preload}.items():
        for version in versions:
            if version.remote:
                continue
            here, unusable = inventory.find(wanted_file(definition, version, slot))
            if here is not None:
                continue
            where = f"model.{slot.key}" if slot == PRELOAD else slot
            reason = next((row.reason for row in unusable if row.named), "")
            if reason:
                message = f"{version.url} can't be used: {reason.rstrip('.')}."
                found.append(Problem(str(file), where, message, "List another file.", "warning"))
            else:
                place = inventory.place(wanted_file(definition, version, slot), unusable)
                message = f"{version.url} is not there ({place})."
                found.append(Problem(str(file), where, message, "Put the file there, or correct the path.", "warning"))
    return found
