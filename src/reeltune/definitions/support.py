"""What a definition asks for that isn't done here: lists, plans and downloads then show that it isn't runnable."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from reeltune.checkpoints.names import format_objection, name_objection
from reeltune.definitions.keys import REPLACED_COMPONENTS, REPORTED, asks
from reeltune.definitions.model import Version
from reeltune.definitions.section import ModelSection
from reeltune.definitions.slots import TRANSFORMER_2, Slot, has_modules
from reeltune.errors import Problem
from reeltune.families import ARCHITECTURES, Architecture
from reeltune.settings import layer, refusals

Slots = Mapping[Slot, tuple[Version, ...]]


def reasons_against(
    model: ModelSection, architecture: Architecture, slots: Slots, settings: Mapping[str, Any], loras: Iterable[object]
) -> tuple[str, ...]:
    """Clauses such as "it applies LoRAs …"; none where videos can be made with the definition."""
    found = []
    if any(loras):
        merge = "merge them into its file with `reeltune quantize FILE --lora LORA`, and list that one"
        found.append(f"it applies LoRAs, which are not supported yet ({merge})")
    if TRANSFORMER_2 in slots and not _takes_two(architecture):
        found.append(f"it has a second transformer (URLs2), which {architecture.id} does not use")
    if has_modules(slots) and not _takes_modules(architecture):
        found.append(f"it merges modules, which {architecture.id} does not take{_advice(architecture)}")
    if model.image_outputs:
        found.append("it makes images in place of videos (image_outputs), which is not supported")
    extra = model.model_extra or {}
    found += [f"it replaces components by {key}, which is not supported yet"
              for key in REPLACED_COMPONENTS if asks(extra.get(key))]  # fmt: skip
    found += refusals(layer(architecture, settings), architecture)
    found += _never_loaded(slots)
    return tuple(found)


def _takes_two(architecture: Architecture) -> bool:
    return "guidance_phases" in architecture.defaults


def _takes_modules(architecture: Architecture) -> bool:
    return any("vace" in name for name in architecture.signature.has)


def _advice(architecture: Architecture) -> str:
    """Which architecture of the same structure takes modules."""
    signature = architecture.signature
    fitting = [
        row.id
        for row in ARCHITECTURES.values()
        if row.family is architecture.family
        and _takes_modules(row)
        and _takes_two(row) == _takes_two(architecture)
        and (row.signature.config, row.signature.dim) == (signature.config, signature.dim)
    ]
    return f': write "architecture": "{fitting[0]}"' if fitting else ""


def _never_loaded(slots: Slots) -> list[str]:
    """The slots of which every version is in a format that is never loaded."""
    return [clause for slot, versions in slots.items() if (clause := _clause(slot, versions, format_objection))]


def unloadable_by_name(slots: Slots) -> str:
    """Why nothing of some slot can be loaded, as far as file names show; a file's header may know better."""
    clauses = (_clause(slot, versions, name_objection) for slot, versions in slots.items())
    return next((clause for clause in clauses if clause), "")


def _clause(slot: Slot, versions: tuple[Version, ...], objection: Callable[[str], str]) -> str:
    """Why none of the versions of a slot can be used; empty where one may be."""
    found = [objection(version.url) for version in versions]
    if not found or not all(found):
        return ""
    return f"it lists no version of {slot} that can be loaded: {', '.join(dict.fromkeys(found))}"


def not_done(model: ModelSection, file: str) -> list[Problem]:
    """A warning for each key that other programs act on and this one doesn't."""
    extra = model.model_extra or {}
    return [
        Problem(file, f"model.{key}", f"It is not used: {what}.", severity="warning")
        for key, what in REPORTED.items()
        if asks(extra.get(key))
    ]
