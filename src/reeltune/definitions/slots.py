"""Slots: the parts of a model that a definition lists versions for."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum


class Role(Enum):
    """What the files of a slot contain."""

    WHOLE = "whole"  # a complete model
    BASE = "base"  # a model that modules are merged into
    MODULE = "module"
    COMPONENT = "component"  # a text encoder or a VAE


class Slot(str):
    """The part of a model that a version is for: a transformer, a module that is merged into it, or a component.

    A slot is also a string, as in reports and files: "transformer", "transformer_2", "modules[0]".
    """

    __slots__ = ()

    @classmethod
    def module(cls, index: int) -> Slot:
        """The slot of the module with this index."""
        return cls(f"{_MODULES}[{index}]")

    @property
    def is_module(self) -> bool:
        """Whether it is the slot of a module."""
        return self.startswith(_MODULES)

    @property
    def key(self) -> str:
        """The key of the `model` object that lists its versions; empty for a component that none lists."""
        if self.is_module:
            return _MODULES
        return _KEYS.get(self, "")


_MODULES = "modules"
TRANSFORMER = Slot("transformer")
TRANSFORMER_2 = Slot("transformer_2")
TRANSFORMERS = (TRANSFORMER, TRANSFORMER_2)
PRELOAD = Slot("preload")
TEXT_ENCODER = Slot("text_encoder")
VAE = Slot("vae")
REPLACEABLE = (TEXT_ENCODER, VAE)  # components of which a definition may list versions of its own
_KEYS = {
    TRANSFORMER: "URLs",
    TRANSFORMER_2: "URLs2",
    PRELOAD: "preload_URLs",
    TEXT_ENCODER: "text_encoder_URLs",
    VAE: "VAE_URLs",
}


def has_modules(slots: Iterable[Slot]) -> bool:
    """Whether any of the slots is for a module."""
    return any(slot.is_module for slot in slots)


def role_of(slot: Slot, slots: Iterable[Slot]) -> Role:
    """What the files of a slot contain, in a definition with these slots."""
    if slot.is_module:
        return Role.MODULE
    if slot in REPLACEABLE:
        return Role.COMPONENT
    if has_modules(slots):
        return Role.BASE
    return Role.WHOLE
