"""Problems with files that a definition lists by a path on this machine."""

from __future__ import annotations

from pathlib import Path

from reeltune.definitions import Definition, Version
from reeltune.definitions.slots import PRELOAD, Slot
from reeltune.errors import Problem
from reeltune.library.inventory import Inventory
from reeltune.planning.facts import file_query


def local_problems(definition: Definition, file: Path, inventory: Inventory) -> list[Problem]:
    """A problem for each listed path without a file, or with a file that can't be used."""
    problems = []
    for slot, versions in {**definition.all_versions, PRELOAD: definition.preload}.items():
        where = f"model.{slot.key}" if slot == PRELOAD else slot
        for version in versions:
            if version.remote:
                continue
            fault, fix = _fault_and_fix(definition, version, slot, inventory)
            if fault:
                problems.append(Problem(str(file), where, fault, fix, "warning"))
    return problems


def _fault_and_fix(definition: Definition, version: Version, slot: Slot, inventory: Inventory) -> tuple[str, str]:
    """What is wrong with the file at a version's path, and what to do; both empty if it can be used."""
    query = file_query(definition, version, slot)
    usable, unusable = inventory.find(query)
    if usable is not None:
        return "", ""
    for unusable_file in unusable:
        if unusable_file.named and unusable_file.reason:
            reason = unusable_file.reason.rstrip(".")
            return f"{version.url} can't be used: {reason}.", "List another file."
    path = inventory.download_path(query, unusable)
    return f"{version.url} doesn't exist ({path}).", "Put the file there, or correct the path."
