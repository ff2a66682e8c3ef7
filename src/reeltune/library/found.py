"""What the model folders, the Hub's cache and `ckpts` contain: every checkpoint with what its header says."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from reeltune.checkpoints.formats import format_of
from reeltune.families import FAMILIES
from reeltune.library.header_cache import HeaderFacts
from reeltune.library.inventory import Inventory


@dataclass(frozen=True)
class FoundFile:
    """A checkpoint in one of the folders.

    `folder`: the folder in which it was found. `contents`: what it contains, such as a transformer of an architecture,
    or components; empty if that is unknown. `format`: how its weights are stored. `problem`: why it can't be used.
    """

    folder: Path
    path: Path
    bytes: int
    contents: tuple[str, ...]
    format: str
    problem: str = ""


@dataclass(frozen=True)
class FoundFiles:
    """All checkpoints, and notices about what could not be searched."""

    files: tuple[FoundFile, ...]
    notices: tuple[str, ...]


def find_files(inventory: Inventory) -> FoundFiles:
    """Every checkpoint in the folders of an inventory, folder by folder. Only headers are read."""
    search = inventory.components
    files = tuple(_found(path, facts, inventory) for path, facts in search.all_facts.items())
    return FoundFiles(files, (*inventory.notices, *search.notices))


def _found(path: Path, facts: HeaderFacts, inventory: Inventory) -> FoundFile:
    folder = next((folder for folder in inventory.folders if path.is_relative_to(folder)), path.parent)
    identity = facts.identity
    if identity is None:
        return FoundFile(folder, path, _size(path), (), "", facts.error.removeprefix(f"{path}").strip(" :"))
    weight_format = format_of(identity.quantization)
    contents = [match.label for match in identity.components]
    if identity.family is not None:
        label = next(family.label for family in FAMILIES if family.name == identity.family)
        fitting = " or ".join(identity.architectures) or identity.role
        contents.insert(0, f"{label} {identity.role}: {fitting}")
    if not contents and any("lora" in text for text in identity.evidence):
        contents.append("LoRA")
    return FoundFile(
        folder, path, identity.bytes, tuple(contents), weight_format.label, weight_format.reason_not_loadable
    )


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
