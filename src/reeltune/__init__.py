"""reeltune: from a finetune definition to a video.

    from reeltune import Engine, load_catalog
    catalog = load_catalog("~/videos")
    with Engine(catalog["nano_t2v"]) as engine:
        video = engine.generate(prompt="a red circle moves right on a black background", seed=7)
    video.save("out.mp4")

Everything is imported on first use: `import reeltune` alone loads nothing heavy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from reeltune._quiet import importing
from reeltune._version import __version__

if TYPE_CHECKING:
    from reeltune import errors
    from reeltune.checkpoints.inspection import Inspection, inspect
    from reeltune.definitions import Catalog, Definition, Summary, Version, load_catalog
    from reeltune.engine.engine import Engine
    from reeltune.events import CancelToken, Event, Notice, Planned, PlannedFile, Progress
    from reeltune.fetch import pull
    from reeltune.media.origin import Origin
    from reeltune.media.video import Video
    from reeltune.planning.choose import Choice, Rejection, Selection
    from reeltune.planning.item import Item
    from reeltune.planning.plan import Plan, explain
    from reeltune.preferences import Preferences
    from reeltune.weights.quantize import Quantized, quantize

_HOMES = {
    "errors": "reeltune.errors",
    "Inspection": "reeltune.checkpoints.inspection",
    "inspect": "reeltune.checkpoints.inspection",
    "Catalog": "reeltune.definitions",
    "Definition": "reeltune.definitions",
    "Summary": "reeltune.definitions",
    "Version": "reeltune.definitions",
    "load_catalog": "reeltune.definitions",
    "Engine": "reeltune.engine.engine",
    "CancelToken": "reeltune.events",
    "Event": "reeltune.events",
    "Notice": "reeltune.events",
    "Planned": "reeltune.events",
    "PlannedFile": "reeltune.events",
    "Progress": "reeltune.events",
    "Plan": "reeltune.planning.plan",
    "Item": "reeltune.planning.plan",
    "explain": "reeltune.planning.plan",
    "pull": "reeltune.fetch",
    "Origin": "reeltune.media.origin",
    "Video": "reeltune.media.video",
    "Preferences": "reeltune.preferences",
    "Choice": "reeltune.planning.choose",
    "Rejection": "reeltune.planning.choose",
    "Selection": "reeltune.planning.choose",
    "Quantized": "reeltune.weights.quantize",
    "quantize": "reeltune.weights.quantize",
}

__all__ = [
    "CancelToken", "Catalog", "Choice", "Definition", "Engine", "Event", "Inspection", "Item", "Notice",
    "Origin", "Plan", "Planned", "PlannedFile", "Preferences", "Progress", "Quantized", "Rejection", "Selection",
    "Summary", "Version", "Video", "__version__", "errors", "explain", "inspect", "load_catalog", "pull", "quantize",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'reeltune' has no attribute {name!r}")
    with importing():
        module = importlib.import_module(_HOMES[name])
    return module if name == "errors" else getattr(module, name)


def __dir__() -> list[str]:
    return sorted(__all__)
