"""Slots: the places that versions of a definition are for."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum


class Role(Enum):
    """What the files of a slot are."""

    WHOLE = "whole"  # a whole model
    BASE = "base"  # a model that modules are merged into
    MODULE = "module"


class Slot(str):
    """What a version is for: the transformer, the second one, a module that is merged into them, or something else.

    A slot is a text as well, as reports and file formats show it: "transformer", "transformer_2", "modules[0]".
    """

    __slots__ = ()

    @classmethod
    def module(cls, index: int) -> Slot:
        """The slot of the module with this number, counted from 0."""
        return cls(f"{_MODULES}[{index}]")

    @property
    def is_module(self) -> bool:
        """Whether its files are modules."""
        return self.startswith(_MODULES)

    @property
    def key(self) -> str:
        """The key of a definition's `model` object that lists its versions."""
        if self.is_module:
            return _MODULES
        return _KEYS.get(self, "")


_MODULES = "modules"
TRANSFORMER = Slot("transformer")
TRANSFORMER_2 = Slot("transformer_2")
TRANSFORMERS = (TRANSFORMER, TRANSFORMER_2)
PRELOAD = Slot("preload")
_KEYS = {TRANSFORMER: "URLs", TRANSFORMER_2: "URLs2", PRELOAD: "preload_URLs"}


def has_modules(slots: Iterable[Slot]) -> bool:
    """Whether any of the slots is a module's."""
    return any(slot.is_module for slot in slots)


def role_of(slot: Slot, slots: Iterable[Slot]) -> Role:
    """What the files of a slot are, in a definition with these slots."""
    if slot.is_module:
        return Role.MODULE
    if has_modules(slots):
        return Role.BASE
    return Role.WHOLE
