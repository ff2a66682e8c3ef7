"""A definition with all overrides and references resolved."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from reeltune.checkpoints.names import base_name
from reeltune.definitions.configs import Variants
from reeltune.definitions.slots import Slot
from reeltune.errors import Problem
from reeltune.families import Architecture
from reeltune.families.values import Settings
from reeltune.untrusted import JsonObject


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


def _no_variants(config: str) -> Definition:
    raise LookupError(config)


def _no_namesakes(version: Version) -> tuple[ListedFile, ...]:
    return ()


@dataclass(frozen=True)
class Definition:
    """A complete base model or finetune.

    `kind`: "base" or "finetune". `slots`: versions by slot, in the order of the file. `components`: a Hub repository
    (`owner/name`) or a folder in diffusers layout. `settings`: the base model's and its own, without the architecture's
    defaults. `loras`: LoRAs that are always applied; `lora_multipliers`: their weights, in the syntax of the setting
    `loras_multipliers`. `unsupported`: the unsupported features that it needs, as clauses such as "it makes images …".
    `files`: the files it was read from, built-in ones first. `root`: its working folder. `namesakes`: for a version,
    other files with the same name in all definitions of the catalog. `visible`: whether lists show it. `resolutions`:
    the labels and values of the resolutions it offers; empty for any resolution. `profile_folders`: the folders of its
    profiles below `profiles/`. `variants`: its named variants, None if it has none; `config`: the id of this variant,
    empty for the definition itself. `preload_bytes`: of the transformer that stay on the card while the rest is
    streamed to it. `component_versions`: versions of components that replace the architecture's, by slot.
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
    preload_bytes: int = 0
    variants: Variants | None = None
    config: str = ""
    variant_by_id: Callable[[str], Definition] = field(default=_no_variants, compare=False, repr=False)

    def variant(self, config: str) -> Definition:
        """The variant with this id; the definition itself for an empty or unknown one."""
        known = self.variants is not None and self.variants.find(config) is not None
        id = config if known else ""
        return self if id == self.config else self.variant_by_id(id)

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

    def as_json(self) -> JsonObject:
        """What the definition says, as `show --json` and the HTTP API print it; without settings and local paths."""
        return {
            "id": self.id,
            "name": self.name,
            "description": self.description,
            "kind": self.kind,
            "architecture": self.architecture.id,
            "slots": {slot: [version.url for version in versions] for slot, versions in self.all_versions.items()},
            "loras": [lora.url for lora in self.loras],
            "loras_multipliers": self.lora_multipliers,
            "preload": [version.url for version in self.preload],
            "auto_quantize": self.auto_quantize,
            "components": self.components,
            "visible": self.visible,
            "resolutions": [{"label": label, "value": value} for label, value in self.resolutions],
            "configs": [
                {"id": choice.id, "label": choice.label} for choice in (self.variants.choices if self.variants else ())
            ],
            "image_outputs": self.architecture.image_outputs,
            "fps": self.architecture.frame_rate,
            "notices": [str(problem) for problem in self.notices],
        }

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
