"""What a definition comes to once overrides and references are resolved: the value everything else takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reeltune.checkpoints.names import base_name
from reeltune.definitions.slots import Slot
from reeltune.errors import Problem
from reeltune.families import Architecture


@dataclass(frozen=True)
class Version:
    """One weight file a definition lists: a URL, or a path (absolute or relative to the root)."""

    url: str

    @property
    def file_name(self) -> str:
        """Name the file has on disk."""
        return base_name(self.url)

    @property
    def remote(self) -> bool:
        """Whether it can be downloaded."""
        return self.url.lower().startswith(("http://", "https://"))


@dataclass(frozen=True)
class Listed:
    """A file that some definition lists: its URL or path, the slot it is for, and all slots of that definition."""

    url: str
    architecture: Architecture
    slot: Slot
    slots: tuple[Slot, ...]


def _no_namesakes(version: Version) -> tuple[Listed, ...]:
    return ()


@dataclass(frozen=True)
class Definition:
    """A base model or finetune, complete.

    `slots`: versions by slot, in the order of the file.
    `settings`: the base model's and the definition's own, without the architecture's defaults.
    `components`: repository (`owner/name`) or folder in diffusers layout. `asks`: things it asks for that
    this program does not do, such as LoRAs. `root`: the working folder it belongs to. `namesakes`: other files that
    have the name of a version's, as all definitions of the catalog list them. `visible`: whether lists show it.
    `resolutions`: label and value of those it offers; any where it offers none.
    """

    id: str
    name: str
    description: str
    kind: str  # "base" | "finetune"
    architecture: Architecture
    slots: Mapping[Slot, tuple[Version, ...]]
    preload: tuple[Version, ...]
    auto_quantize: bool
    components: str
    sha256: Mapping[str, str]
    settings: Mapping[str, Any]
    asks: tuple[str, ...]
    files: tuple[Path, ...]  # the files it was read from, built-in first
    notices: tuple[Problem, ...]
    root: Path
    namesakes: Callable[[Version], tuple[Listed, ...]] = field(default=_no_namesakes, compare=False, repr=False)
    visible: bool = True
    resolutions: tuple[tuple[str, str], ...] = ()

    @property
    def own_file(self) -> Path | None:
        """The user's file among those it was read from; None for one that is built in."""
        return next((path for path in self.files if path.parent == self.root / "finetunes"), None)

    @property
    def runnable(self) -> bool:
        """Whether videos can be made with it here."""
        return not self.reason

    @property
    def reason(self) -> str:
        """Why it isn't runnable; empty if it is."""
        if not self.architecture.runnable:
            return self.architecture.unsupported
        return "; ".join(self.asks)
