"""What a family and an architecture declare. Data only: nothing heavy is imported here.

A family is a group of architectures that share code: layouts of weight names, diffusers classes,
components. An architecture adds what differs: the inputs it takes, its settings, its signature in a header.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]  # tensor name in the family's original layout -> shape
Config = dict[str, Any]  # keyword arguments of the diffusers transformer class


def frozen(**values: Any) -> Mapping[str, Any]:
    """Read-only mapping, so that declarations can't be changed by accident."""
    return MappingProxyType(values)


@dataclass(frozen=True)
class Rename:
    """One module under its two names; `{}` stands for a block's number."""

    original: str
    diffusers: str


@dataclass(frozen=True)
class Component:
    """A part of the pipeline besides the transformer: where it lies and which class loads it."""

    name: str  # also the subfolder in a repository of diffusers layout
    library: str  # "transformers" | "diffusers"
    class_name: str
    files: tuple[str, ...]  # patterns of the files that are needed, relative to the subfolder


@dataclass(frozen=True)
class Family:
    """A group of architectures sharing code.

    `markers` are original names one of which every checkpoint of the family holds. `derive_config` makes
    the transformer's config from the shapes, and from the config stored in the file where shapes can't tell.
    `quantizable` are the modules, in original names, that a quanto int8 file quantizes. `frame_step`: frames are
    a multiple of it, plus one; `size_step`: width and height are multiples of it. `landmarks`: the few names by
    which a diffusers layout is recognised while `renames` is still empty.
    """

    name: str
    label: str
    markers: tuple[str, ...]
    renames: tuple[Rename, ...]
    quantizable: tuple[str, ...]
    derive_config: Callable[[Shapes, Config], Config]
    transformer_class: str
    components: tuple[Component, ...]
    solvers: tuple[str, ...]
    fps: int
    frame_step: int
    size_step: int
    max_text_tokens: int
    landmarks: tuple[Rename, ...] = ()


@dataclass(frozen=True)
class Signature:
    """How a header of this architecture looks.

    `config`: values the derived config must have (structure: a mismatch can't load). `dim`: the hidden size
    of the published models (None = any); it narrows candidates but smaller or larger models are no error.
    `has` / `lacks`: original names; one that ends in a dot stands for all that begin so.
    """

    config: Mapping[str, Any] = field(default_factory=frozen)
    dim: int | None = None
    has: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Architecture:
    """What a definition derives from.

    `pipeline` is the diffusers class, empty while the architecture does not run here (`unsupported` says why).
    `data_types` in order of preference. `settings`: keys the model uses; `defaults`: what it starts from.
    `components_repo`: the Hub repository, in diffusers layout, its components come from.
    """

    id: str
    family: Family
    signature: Signature
    data_types: tuple[str, ...]
    settings: frozenset[str]
    defaults: Mapping[str, Any]
    components_repo: str
    pipeline: str = ""
    unsupported: str = ""

    @property
    def runnable(self) -> bool:
        """Whether this program can make videos with it."""
        return bool(self.pipeline)
