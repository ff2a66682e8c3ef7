"""A definition with all overrides and references resolved."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from reeltune.checkpoints.names import base_name
from reeltune.definitions.slots import Slot
from reeltune.errors import Problem
from reeltune.families import Architecture
from reeltune.families.values import Settings


@dataclass(frozen=True)
class Version:
    """A weight file in a definition: a URL, or a path (absolute or relative to the root)."""

    url: str

    @property
    def file_name(self) -> str:
        """The name of the file on disk."""
        return base_name(self.url)

    @property
    def remote(self) -> bool:
        """Whether it is a URL, not a path."""
        return self.url.lower().startswith(("http://", "https://"))


@dataclass(frozen=True)
class ListedFile:
    """A file in a definition: its URL or path, its slot, and all slots of the definition."""

    url: str
    architecture: Architecture
    slot: Slot
    slots: tuple[Slot, ...]


def _no_namesakes(version: Version) -> tuple[ListedFile, ...]:
    return ()


@dataclass(frozen=True)
class Definition:
    """A complete base model or finetune.

    `kind`: "base" or "finetune". `slots`: versions by slot, in the order of the file. `components`: a Hub repository
    (`owner/name`) or a folder in diffusers layout. `settings`: the base model's and its own, without the architecture's
    defaults. `loras`: LoRAs that are always applied; `lora_multipliers`: their weights, in the syntax of the setting
    `loras_multipliers`. `unsupported`: the unsupported features that it needs, as clauses such as "it makes images …".
    `files`:
    the files it was read from, built-in ones first. `root`: its working folder. `namesakes`: for a version, other files
    with the same name in all definitions of the catalog. `visible`: whether lists show it. `resolutions`: the labels
    and values of the resolutions it offers; empty for any resolution. `profile_folders`: the folders of its profiles
    below `profiles/`. `component_versions`: versions of components that replace the architecture's, by slot.
    `text_encoder_folder`: the folder with the text encoder's tokenizer, below `ckpts/`, a model folder or the root;
    empty for the architecture's.
    """

    id: str
    name: str
    description: str
    kind: str
    architecture: Architecture
    slots: Mapping[Slot, tuple[Version, ...]]
    preload: tuple[Version, ...]
    loras: tuple[Version, ...]
    lora_multipliers: str
    auto_quantize: bool
    components: str
    sha256: Mapping[str, str]
    settings: Settings
    unsupported: tuple[str, ...]
    files: tuple[Path, ...]
    notices: tuple[Problem, ...]
    root: Path
    namesakes: Callable[[Version], tuple[ListedFile, ...]] = field(default=_no_namesakes, compare=False, repr=False)
    visible: bool = True
    resolutions: tuple[tuple[str, str], ...] = ()
    profile_folders: tuple[str, ...] = ()
    component_versions: Mapping[Slot, tuple[Version, ...]] = field(default_factory=dict)
    text_encoder_folder: str = ""

    @property
    def all_versions(self) -> Mapping[Slot, tuple[Version, ...]]:
        """The versions of every slot, those of components last."""
        return {**self.slots, **self.component_versions}

    @property
    def own_file(self) -> Path | None:
        """The user's file among `files`; None if all are built in."""
        return next((path for path in self.files if path.parent == self.root / "finetunes"), None)

    @property
    def runnable(self) -> bool:
        """Whether videos can be made with it."""
        return not self.reason

    @property
    def reason(self) -> str:
        """Why it isn't runnable; empty if it is."""
        if not self.architecture.runnable:
            return self.architecture.unsupported
        return "; ".join(self.unsupported)
