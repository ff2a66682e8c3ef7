"""What a family does in its own way while a video is made: one file each, beside its declaration in `families/`."""

from __future__ import annotations

from collections.abc import Mapping

from reeltune.engine.families import hunyuan, hunyuan15, kandinsky5, ltx, ltx2, wan, wan_relatives
from reeltune.engine.families.base import FamilyRuntime
from reeltune.families import Architecture

_RUNTIMES: Mapping[str, FamilyRuntime] = {
    "wan": wan.RUNTIME,
    "hunyuan": hunyuan.RUNTIME,
    "hunyuan_1_5": hunyuan15.RUNTIME,
    "ltx": ltx.RUNTIME,
    "ltx2": ltx2.RUNTIME,
    "kandinsky_5": kandinsky5.RUNTIME,
}


def runtime_of(architecture: Architecture) -> FamilyRuntime:
    """What the architecture, or else its family, does in its own way."""
    return wan_relatives.RUNTIMES.get(architecture.id) or _RUNTIMES[architecture.family.name]
