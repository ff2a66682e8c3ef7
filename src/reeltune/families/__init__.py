"""The supported families and architectures, one declaration each."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from reeltune.families import hunyuan, hunyuan15, kandinsky5, ltx, ltx2, ltx2_references, wan, wan_conditioned
from reeltune.families.base import Architecture, Component, ComponentPart, Family, Input, Rename, Signature

_DECLARATIONS = (wan, wan_conditioned, hunyuan, hunyuan15, ltx, ltx2, ltx2_references, kandinsky5)
FAMILIES: tuple[Family, ...] = (
    wan.WAN, hunyuan.HUNYUAN, hunyuan15.HUNYUAN_1_5, ltx.LTX, ltx2.LTX_2, kandinsky5.KANDINSKY_5,
)  # fmt: skip
ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType(
    {architecture.id: architecture for declared in _DECLARATIONS for architecture in declared.ARCHITECTURES}
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
