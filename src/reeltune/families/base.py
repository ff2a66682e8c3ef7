"""What a family and an architecture declare. Data only: nothing heavy is imported here.

A family is a group of architectures that share code: layouts of weight names, diffusers classes,
components. An architecture adds what differs: the inputs it takes, its settings, its signature in a header.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

MOST_HEAD_SIZE = 1024  # of a config in a file's metadata: tables of positions are as wide
WEIGHT_FILES = ("config.json", "*.safetensors", "*.safetensors.index.json")  # of a component in diffusers layout
Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]  # tensor name in the family's original layout -> shape
Config = Mapping[str, Any]  # keyword arguments of the diffusers transformer class


def frozen(**values: Any) -> Mapping[str, Any]:
    """Read-only mapping, so that declarations can't be changed by accident."""
    return MappingProxyType(values)


@dataclass(frozen=True)
class Rename:
    """One module under its two names; `{}` stands for a block's number.

    `more`: further modules of diffusers whose rows the original keeps stacked below the first one's, in this order.
    `swapped`: the two halves of its rows change places.
    """

    original: str
    diffusers: str
    more: tuple[str, ...] = ()
    swapped: bool = False


@dataclass(frozen=True)
class Component:
    """A part of the pipeline besides the transformer: where it lies and which class loads it.

    `loose`: the files or folders that hold it in a WanGP `ckpts` folder, in order of preference; `layout`: the names
    that such a file's weights go by (`families.components`).
    """

    name: str  # also the subfolder in a repository of diffusers layout
    library: str  # "transformers" | "diffusers"
    class_name: str
    files: tuple[str, ...]  # patterns of the files that are needed, relative to the subfolder
    loose: tuple[str, ...] = ()
    layout: str = ""


@dataclass(frozen=True)
class Input:
    """An image or a video that an architecture takes besides its settings.

    `key`: the setting that holds its path(s); `kind`: "image" | "images" | "video" | "mask"; `letter` and
    `letters_key`: the letter that asks for it, and the setting such letters stand in.
    """

    key: str
    kind: str
    letters_key: str
    letter: str
    required: bool = False


# Groups of settings; the first of each switches the group on.
STEP_CACHE = ("skip_steps_cache_type", "skip_steps_multiplier", "skip_steps_start_step_perc")
ZERO_STAR = ("cfg_star_switch", "cfg_zero_step")
SKIPPED_LAYERS = (
    "perturbation_switch", "perturbation_layers", "perturbation_start_perc", "perturbation_end_perc",
)  # fmt: skip
LONGER = ("RIFLEx_setting",)


def refuse(groups: tuple[tuple[str, ...], ...], why: str) -> Mapping[str, str]:
    """The switches of groups of settings, refused for a reason."""
    return MappingProxyType({group[0]: why for group in groups})


START_IMAGE = Input("image_start", "image", "image_prompt_type", "S")
END_IMAGE = Input("image_end", "image", "image_prompt_type", "E")
CONTROL_VIDEO = Input("video_guide", "video", "video_prompt_type", "V")
MASK_VIDEO = Input("video_mask", "mask", "video_prompt_type", "A")
REFERENCE_IMAGES = Input("image_refs", "images", "video_prompt_type", "I")


@dataclass(frozen=True)
class Family:
    """A group of architectures sharing code.

    `markers` are original names one of which every checkpoint of the family holds. `derive_config` makes
    the transformer's config from the shapes, and from the config stored in the file where shapes can't tell.
    `quantizable` are the modules, in original names, that a quanto int8 file quantizes.
    `frame_step`: frames are a multiple of it, plus one; `size_step`: width and height are multiples of it. `aliases`:
    further names of modules, as other programs write them, and the original ones. `sized_by`: tensors whose first side
    is the hidden size, the first that is there counts. `whole`: how the names of tensors begin that only whole models
    hold, not modules; empty where there are no modules.
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
    trained_frames: int  # of the longest videos it was trained on
    aliases: Mapping[str, str] = field(default_factory=frozen, hash=False)
    position_table: int = 0  # places of each axis it knows, unless the model's config says so; 0: any number
    sized_by: tuple[str, ...] = ()
    whole: str = ""

    def hidden_size(self, shapes: Shapes) -> int | None:
        """The hidden size of a model or a module, from the shapes of its tensors by original name."""
        for name in self.sized_by:
            if shapes.get(name):
                return shapes[name][0]
        return None

    def is_whole(self, names: Iterable[str]) -> bool:
        """Whether tensors of these original names are those of a whole model, and not of a module."""
        return not self.whole or any(name.startswith(self.whole) for name in names)

    def solver(self, name: str) -> str:
        """The solver that is used where this one is asked for: its own, the first where none is, else Euler's.

        Most solvers that no family has here are variants of that one, and every family has it.
        """
        if not name:
            return self.solvers[0]
        return name if name in self.solvers else "euler"


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

    def allows(self, config: Mapping[str, Any] | None) -> bool:
        """Whether a derived config has the structure; one that isn't known contradicts nothing."""
        wanted = {key: value if isinstance(value, tuple) else (value,) for key, value in self.config.items()}
        return config is None or all(config.get(key) in values for key, values in wanted.items())


@dataclass(frozen=True)
class Architecture:
    """What a definition derives from.

    `pipeline` is the diffusers class, empty while the architecture does not run here (`unsupported` says why);
    `image_pipeline` takes its place when a start image is given, where that is another class. `data_types` in order
    of preference. `inputs`: the images and videos it takes; `settings`: the keys it uses, those of its inputs among
    them; `defaults`: what it starts from. `components_repo`: the Hub repository, in diffusers layout, that its
    components come from (`components`, where they aren't the family's). `config`: what a header can't tell of the
    transformer's config; `options`: fixed arguments of the pipeline; `fps`, `size_step`: where not the family's.
    `refused`: settings that would spoil its videos, and why: they are an error, where others that it doesn't use are
    only named. `only_called`: settings that count only where a caller gives them, because other programs write values
    into every file that they never use. `two_transformers`: the architecture of the same kind that has two.
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
    inputs: tuple[Input, ...] = ()
    components: tuple[Component, ...] = ()
    config: Mapping[str, Any] = field(default_factory=frozen)
    options: Mapping[str, Any] = field(default_factory=frozen)
    image_pipeline: str = ""
    refused: Mapping[str, str] = field(default_factory=frozen)
    only_called: frozenset[str] = frozenset()
    fps: int = 0
    size_step: int = 0
    two_transformers: str = ""

    @property
    def frame_rate(self) -> int:
        """Frames a second of its videos."""
        return self.fps or self.family.fps

    @property
    def side_step(self) -> int:
        """Width and height are multiples of it."""
        return self.size_step or self.family.size_step

    @property
    def runnable(self) -> bool:
        """Whether this program can make videos with it."""
        return bool(self.pipeline)

    @property
    def parts(self) -> tuple[Component, ...]:
        """The components of its pipeline: its own where it has any, else the family's."""
        return self.components or self.family.components
