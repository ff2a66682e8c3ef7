"""What models save by using files where the user or other programs have put them."""

from __future__ import annotations

from dataclasses import dataclass

from reeltune.definitions import Catalog
from reeltune.errors import ReeltuneError
from reeltune.library.inventory import Inventory
from reeltune.machine import Machine, probe
from reeltune.planning.plan import explain
from reeltune.preferences import Preferences


@dataclass(frozen=True)
class Savings:
    """The parts of a model that are used in place, in bytes, and the known bytes that it still needs.

    `missing`: None if the size of a missing file is unknown.
    """

    id: str
    in_place: int
    missing: int | None
    subjects: tuple[str, ...]


def savings_of(
    catalog: Catalog, preferences: Preferences, inventory: Inventory, machine: Machine | None = None
) -> list[Savings]:
    """The savings of every model that can run and uses a file in place, without the network."""
    machine = machine or probe()
    savings = []
    for id in catalog:
        try:
            definition = catalog[id]
            if not definition.runnable:
                continue
            plan = explain(definition, preferences, machine=machine, inventory=inventory)
        except ReeltuneError:  # `list` shows why
            continue
        subjects = tuple(item.subject for item in plan.items if item.present and item.in_place)
        sizes = [item.bytes for item in plan.missing]
        missing = None if None in sizes else sum(size or 0 for size in sizes)
        if subjects:
            savings.append(Savings(id, plan.bytes_in_place, missing, subjects))
    return savings
