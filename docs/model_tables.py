"""The tables of `models.md`: every architecture, and how many published definitions make videos here."""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reeltune.definitions import Definition
    from reeltune.families import Architecture, Family

TESTS = Path(__file__).parents[1] / "tests"
_KINDS = {"videos": "Other video models", "images": "Image models", "sound": "Sound models"}


def published_rows() -> list[str]:
    """A row for each family and each kind of other models, as Markdown, from the facts in `tests/data`."""
    sys.path.insert(0, str(TESTS))
    from published import facts, write_all
    from reeltune import load_catalog
    from reeltune.families import ARCHITECTURES
    from reeltune.families.others import makes

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "finetunes").mkdir()
        write_all(root)
        runnable = {row.id for row in load_catalog(root).summaries() if row.runnable}
    listed: Counter[str] = Counter()
    running: Counter[str] = Counter()
    for id, row in facts().items():
        architecture = ARCHITECTURES.get(row["architecture"])
        group = architecture.family.label if architecture else _KINDS[makes(row["architecture"])]
        listed[group] += 1
        running[group] += id in runnable
    order = [*(family.label for family in _families()), *_KINDS.values()]
    rows = [f"| {group} | {listed[group]} | {running[group]} |" for group in order if listed[group]]
    return [*rows, f"| **all** | **{listed.total()}** | **{running.total()}** |"]


def models_text() -> str:
    """The content of `models.md`."""
    parts = [_INTRODUCTION, "| family | published definitions | make videos here |\n|---|---|---|", *published_rows()]
    for family in _families():
        parts += ["", f"## {family.label}", "", _HEAD, *_rows(family)]
    return "\n".join(parts) + "\n"


_INTRODUCTION = """# Models

Written by `python docs/generate.py` from the declarations of architectures and the built-in definitions.

reeltune makes videos with these models and with every finetune of them. The first table counts the 217 definitions that
were published with WanGP in August 2026: *make videos here* means that nothing is missing but the download.

Inputs in bold are required. The numbers are defaults of the built-in definition; every setting can be changed.
"""
_HEAD = (
    "| architecture | model | inputs | size, frames, frames per second | steps | LoRAs in |\n|---|---|---|---|---|---|"
)


def _families() -> tuple[Family, ...]:
    from reeltune.families import FAMILIES

    return FAMILIES


def _rows(family: Family) -> list[str]:
    from reeltune import load_catalog
    from reeltune.families import ARCHITECTURES

    with tempfile.TemporaryDirectory() as folder:
        catalog = load_catalog(Path(folder))
        built_in = {id: catalog[id] for id in catalog}
    rows = []
    for architecture in ARCHITECTURES.values():
        if architecture.family is family and architecture.runnable:
            rows.append(_row(architecture, built_in[architecture.id]))
    return rows


def _row(architecture: Architecture, definition: Definition) -> str:
    from reeltune.settings import frame_count, layer

    settings = layer(architecture, definition.settings)
    inputs = [
        f"**{model_input.key}**" if model_input.required else model_input.key for model_input in architecture.inputs
    ]
    length = "an image" if architecture.image_outputs else f"{frame_count(settings, architecture)}"
    rate = "" if architecture.image_outputs else f", {architecture.frame_rate}"
    cells = (
        f"`{architecture.id}`",
        f"**{definition.name}.** {definition.description}",
        ", ".join(inputs) or "none",
        f"{settings['resolution']}, {length}{rate}",
        str(settings["num_inference_steps"]),
        f"`loras/{architecture.loras}`",
    )
    return f"| {' | '.join(cells)} |"
