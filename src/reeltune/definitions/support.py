"""Unsupported features of definitions, which make a definition not runnable, and keys that have no effect."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from reeltune.checkpoints.names import format_objection, name_objection
from reeltune.definitions.adapting import needs_end_image
from reeltune.definitions.keys import REPORTED, has_value
from reeltune.definitions.model import Version
from reeltune.definitions.section import ModelSection
from reeltune.definitions.slots import TRANSFORMER_2, Slot, has_modules
from reeltune.errors import Problem
from reeltune.families import ARCHITECTURES, Architecture
from reeltune.families.values import Settings
from reeltune.settings import layer, refusals

Slots = Mapping[Slot, tuple[Version, ...]]


def unsupported_features(
    model: ModelSection, architecture: Architecture, slots: Slots, settings: Settings
) -> tuple[str, ...]:
    """The unsupported features that a definition needs, as clauses such as "it makes images …"; empty if it has none.

    Lists, plans and downloads show them as the reason why a definition isn't runnable.
    """
    clauses = []
    if TRANSFORMER_2 in slots and not architecture.two_models:
        clauses.append(f"it has a second transformer (URLs2), which {architecture.id} does not use")
    if has_modules(slots) and not _has_modules(architecture):
        clauses.append(f"it merges modules, which {architecture.id} does not support{_module_hint(architecture)}")
    if architecture.image_outputs and needs_end_image(architecture):
        clauses.append("it makes single images (image_outputs), and its architecture needs an end image")
    clauses += refusals(layer(architecture, settings), architecture)
    clauses += _unloadable_slots(slots, format_objection)
    return tuple(clauses)


def _has_modules(architecture: Architecture) -> bool:
    return any("vace" in name for name in architecture.signature.has)


def _module_hint(architecture: Architecture) -> str:
    """Which architecture with the same structure supports modules."""
    for other in ARCHITECTURES.values():
        same_structure = (
            other.family is architecture.family
            and other.signature.config == architecture.signature.config
            and other.signature.dim == architecture.signature.dim
            and other.two_models == architecture.two_models
        )
        if same_structure and _has_modules(other):
            return f': use "architecture": "{other.id}"'
    return ""


def unloadable_reason(slots: Slots) -> str:
    """Why no version of a slot can be loaded, judged by file names alone; empty if one may be."""
    clauses = _unloadable_slots(slots, name_objection)
    return clauses[0] if clauses else ""


def _unloadable_slots(slots: Slots, objection: Callable[[str], str]) -> list[str]:
    """A clause for each slot of which no version can be loaded. `objection`: the reason for a URL, or empty."""
    clauses = []
    for slot, versions in slots.items():
        reasons = [objection(version.url) for version in versions]
        if reasons and all(reasons):
            clauses.append(f"it lists no version of {slot} that can be loaded: {', '.join(dict.fromkeys(reasons))}")
    return clauses


def unused_key_warnings(model: ModelSection, file: str) -> list[Problem]:
    """A warning for each key that has an effect in other programs, but not in reeltune."""
    extra = model.model_extra or {}
    return [
        Problem(file, f"model.{key}", f"It is not used: {explanation}.", severity="warning")
        for key, explanation in REPORTED.items()
        if has_value(extra.get(key))
    ]
