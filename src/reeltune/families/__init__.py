"""The supported families and architectures, one declaration each."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from reeltune.families import hunyuan, ltx, wan
from reeltune.families.base import Architecture, Component, ComponentPart, Family, Input, Rename, Signature

FAMILIES: tuple[Family, ...] = (wan.WAN, hunyuan.HUNYUAN, ltx.LTX)
ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType(
    {architecture.id: architecture for architecture in (*wan.ARCHITECTURES, *hunyuan.ARCHITECTURES, *ltx.ARCHITECTURES)}
)

__all__ = [
    "ARCHITECTURES",
    "FAMILIES",
    "Architecture",
    "Component",
    "ComponentPart",
    "Family",
    "Input",
    "Rename",
    "Signature",
]
