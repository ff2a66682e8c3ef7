"""Declarations of families and architectures: data only, without torch.

A family is a group of architectures that share code: names of weights, diffusers classes, components. An architecture
declares what differs: its inputs, its settings, and how to recognize it by a checkpoint's header.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from reeltune.families.scales import TwoScales

MAX_HEAD_SIZE = 1024  # accepted from a file's metadata, because position tables are as wide as a head
WEIGHT_FILES = ("config.json", "*.safetensors", "*.safetensors.index.json")  # of a component in diffusers layout
Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]  # tensor name in the family's original layout -> shape
Config = Mapping[str, Any]  # keyword arguments of the diffusers transformer class


def frozen(**values: Any) -> Config:
    """A read-only mapping, so that declarations can't be changed by accident."""
    return MappingProxyType(values)


def width_of(config: Config) -> int:
    """Features of a token in a transformer with that config; 0 if the config doesn't tell."""
    return int(config.get("model_dim") or config.get("num_attention_heads", 0) * config.get("attention_head_dim", 0))


def blocks_of(config: Config) -> int:
    """The number of blocks of a transformer with that config; 0 if the config doesn't tell."""
    keys = ("num_layers", "num_single_layers", "num_text_blocks", "num_visual_blocks")
    return sum(config.get(key, 0) for key in keys)


def rotary_axes(stored: object, head: int, usual: tuple[int, ...]) -> tuple[int, ...]:
    """The axes of a rotary embedding that a file's config stores, if they are valid for the head size; else `usual`."""
    if not isinstance(stored, list | tuple) or len(stored) != len(usual):
        return usual
    if not all(type(axis) is int and axis > 0 for axis in stored) or sum(stored) != head:
        return usual
    return tuple(stored)


def block_counts(shapes: Shapes, pattern: re.Pattern[str]) -> dict[str, int]:
    """The number of blocks of each kind. `pattern` has a group for the kind and one for the number.

    Raises ValueError if a forged number exceeds the tensor count.
    """
    counts: dict[str, int] = {}
    for name in shapes:
        match = pattern.match(name)
        if match:
            counts[match[1]] = max(counts.get(match[1], 0), int(match[2]) + 1)
    if max(counts.values(), default=0) > len(shapes):
        raise ValueError("more blocks than tensors")
    return counts


@dataclass(frozen=True)
class Rename:
    """A module's name in the original layout and in diffusers; `{}` stands for the number of a block.

    The name in diffusers is empty for a constant that is stored in original files and computed by diffusers.
    `more`: further diffusers modules whose rows the original module stacks below the first one's, in this order.
    `swapped`: whether the two halves of the rows are in the opposite order.
    """

    original: str
    diffusers: str
    more: tuple[str, ...] = ()
    swapped: bool = False


@dataclass(frozen=True)
class ComponentPart:
    """A part of a component in a file. `kind`, `published`: as in `Component`. `prefix`: of its names in the class."""

    kind: str
    prefix: str
    published: tuple[str, ...] = ()


@dataclass(frozen=True)
class Component:
    """A part of the pipeline besides the transformer.

    `name`: also its subfolder in a repository in diffusers layout. `library`: "transformers" or "diffusers". `files`:
    patterns of the required files, relative to the subfolder. `folders`: folders of other programs that have these
    files, in order of preference. `kind`: the model in a single file, a key of `families.components.KINDS`; empty if
    it is never in one. `assembled`: the files that together are the same model. `feeds`: the key of the transformer's
    config with the size that it must have. `repository`: the Hub repository to download it from, if it isn't that of
    the others. `published`: the names of files with this model, where headers don't tell it from others of its kind; a
    file with another name is never used. `part_of_folder`: whether the class is a part of the model that folders hold,
    such as the part that reads texts.
    """

    name: str
    library: str
    class_name: str
    files: tuple[str, ...]
    folders: tuple[str, ...] = ()
    kind: str = ""
    assembled: tuple[ComponentPart, ...] = ()
    feeds: str = ""
    repository: str = ""
    published: tuple[str, ...] = ()
    part_of_folder: bool = False

    @property
    def is_model(self) -> bool:
        """Whether it has weights; tokenizers and processors of images have none."""
        return WEIGHT_FILES[1] in self.files


# Components that work on latents while a video is made, and not before, as encoders do.
VAE, LATENT_UPSAMPLER, AUDIO_VAE, VOCODER = "vae", "latent_upsampler", "audio_vae", "vocoder"
SMALL_COMPONENTS = (LATENT_UPSAMPLER, AUDIO_VAE, VOCODER)  # they compute in fp32, and only now and then
LATENT_COMPONENTS = (VAE, *SMALL_COMPONENTS)


@dataclass(frozen=True)
class Input:
    """An image or a video that an architecture accepts as input.

    `key`: the setting with its path or paths. `kind`: "image", "images", "video", "mask" or "tracks" (of points).
    `letters_key`: the setting whose letters select inputs. `letter`: the letters that select this one; empty if none
    does. `held`: whether the last frame of a video that is too short is used for the rest; otherwise the model makes up
    the rest. `border`: the brightness, 0 to 255, of the border around an image of another shape. `clip`: whether the
    model sees the images one after the other, as a short clip beside the video. `label`, `help`: those of the form, if
    they aren't those of the setting.
    """

    key: str
    kind: str
    letters_key: str
    letter: str
    required: bool = False
    held: bool = False
    border: int = 255
    clip: bool = False
    label: str = ""
    help: str = ""


@dataclass(frozen=True)
class Windows:
    """How an architecture makes videos that are longer than one window, each of which begins with frames of the last.

    `overlaps`: the numbers of frames that two windows may share; empty for any number that the family can make.
    `block`: the number of latent frames that are made at once in every mode but the first; 0 for architectures without
    modes. `anchor`: frames that each window but the first begins with besides the shared ones, and that aren't shown.
    """

    overlaps: tuple[int, ...] = ()
    block: int = 0
    anchor: int = 0


# Groups of settings; the first setting of each group turns it on.
STEP_CACHE = ("skip_steps_cache_type", "skip_steps_multiplier", "skip_steps_start_step_perc")
LORA_SOURCES, LORA_WEIGHTS = "activated_loras", "loras_multipliers"
LORAS = (LORA_SOURCES, LORA_WEIGHTS)
ZERO_STAR = ("cfg_star_switch", "cfg_zero_step")
SKIPPED_LAYERS = (
    "perturbation_switch", "perturbation_layers", "perturbation_start_perc", "perturbation_end_perc",
)  # fmt: skip
RIFLEX = ("RIFLEx_setting",)


def refused_groups(groups: tuple[tuple[str, ...], ...], reason: str) -> Mapping[str, str]:
    """The settings that turn groups on, with the reason why an architecture refuses them."""
    return MappingProxyType({group[0]: reason for group in groups})


START_IMAGE = Input("image_start", "image", "image_prompt_type", "S")
END_IMAGE = Input("image_end", "image", "image_prompt_type", "E")
CONTROL_VIDEO = Input("video_guide", "video", "video_prompt_type", "V")
MASK_VIDEO = Input("video_mask", "mask", "video_prompt_type", "A")
REFERENCE_IMAGES = Input("image_refs", "images", "video_prompt_type", "I")
FACE_VIDEO = Input("video_guide2", "video", "video_prompt_type", "B")
BACKGROUND_VIDEO = Input("custom_guide", "video", "video_prompt_type", "", label="Background video")
TRAJECTORIES = Input(
    "custom_guide",
    "tracks",
    "video_prompt_type",
    "",
    label="Trajectories",
    help="A NumPy file (.npy) of shape [frames, points, 2]: x and y of each point in each frame, in pixels of the "
    "video, or as fractions of its width and height. Negative where a point can't be seen.",
)


@dataclass(frozen=True, eq=False)  # each family exists once; a hash of all names would be slow
class Family:
    """A group of architectures that share code.

    `markers`: original tensor names; every checkpoint of the family contains one of them. `derive_config`: computes the
    transformer's config from the shapes, and from the config stored in the file where the shapes don't determine it.
    `quantizable`: the modules, by original name, that a quanto int8 file quantizes. `frame_step`: the number of frames
    is a multiple of it plus one. `size_step`: width and height are multiples of it. `trained_frames`: the length of the
    longest videos that the models were trained on. `aliases`: names of modules in other programs, and the original
    ones. `position_table`: positions in each axis, unless the model's config has the number; 0 for no limit.
    `sized_by`: tensors whose first side is the hidden size; the first one that exists counts. `whole`: how the names of
    tensors start that only whole models contain, not modules; empty where there are no modules. `mask_bytes`: bytes of
    attention masks for each pair of tokens. `own_timesteps`: whether its pipeline takes the timesteps from the
    scheduler, so that those that the models were made for must be set there. `others`: how the names of tensors begin
    that the release stores in the same file, and that belong to components. `passes_at_once`: the most passes that its
    pipeline makes in one batch.
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
    trained_frames: int
    aliases: Mapping[str, str] = field(default_factory=frozen, hash=False)
    position_table: int = 0
    sized_by: tuple[str, ...] = ()
    whole: str = ""
    mask_bytes: int = 0
    own_timesteps: bool = False
    others: tuple[str, ...] = ()
    passes_at_once: int = 1

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
        """The solver to use for a name: the family's default for an empty name, "euler" for an unsupported one.

        Every family supports "euler", and most unsupported solvers are variants of it.
        """
        return _solver(name, self.solvers)


def _solver(name: str, solvers: tuple[str, ...]) -> str:
    """The solver to use for a name: the first for an empty name; "euler", or else the first, for an unknown one."""
    if name in solvers:
        return name
    plain = name.removesuffix("_ancestral")  # such variants add noise after each step
    if plain in solvers:
        return plain
    return "euler" if name and "euler" in solvers else solvers[0]


@dataclass(frozen=True)
class Signature:
    """How to recognize an architecture by a checkpoint's header.

    `config`: values that the derived config must have; a model with other values can't be loaded. `dim`: the hidden
    size of the published models, None for any; models of other sizes are accepted, but rank behind. `has`, `lacks`:
    original tensor names that must or must not be present; a name that ends in a dot is a prefix. `files`: parts of the
    names of published files, letters and digits only, of an architecture whose headers are those of a more common one:
    a file without any of them in its name is taken for the other, and a file with one of them is not.
    """

    config: Config = field(default_factory=frozen)
    dim: int | None = None
    has: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()
    files: tuple[str, ...] = ()

    def allows(self, config: Config | None) -> bool:
        """Whether a derived config has the required values; an unknown config (None) is allowed."""
        if config is None:
            return True
        for key, value in self.config.items():
            allowed = value if isinstance(value, tuple) else (value,)
            if config.get(key) not in allowed:
                return False
        return True


@dataclass(frozen=True)
class Architecture:
    """What a definition derives from.

    `data_types`: in order of preference. `settings`: the keys it uses, including those of its inputs. `defaults`: the
    values of settings that nothing else sets. `components_repo`: the Hub repository of its components, in diffusers
    layout. `pipeline`: the diffusers class; empty if videos can't be made with it, for the reason in `unsupported`.
    `image_pipeline`: the class to use with a start image, if it is another one. `inputs`: the images and videos it
    accepts. `components`, `fps`, `size_step`: where they differ from the family's. `config`: values of the
    transformer's config that a header doesn't determine. `options`: constant arguments of the pipeline. `profiles`: the
    folder of its profiles, inside the folder `profiles` of a root.

    `refused`: settings that would spoil its videos, and the reason; they are an error, while other settings that it
    doesn't use are only reported. `call_only`: settings that are used only if the caller sets them, because other
    programs write them into every file without using them. `two_transformers`: the id of the variant of this
    architecture with two transformers. `loras`: the folder of its LoRAs, inside the folder `loras` of a root.

    `scales`: how its videos are made at two scales; None if they are made in one pass. `unused_files`: parts of the
    names of files that definitions list under `preload_URLs`, but that reeltune doesn't use. `solvers`: where they
    differ from the family's. `windows`: how it makes long videos; None if it can't make them in several windows.
    `modes`: the choices of `model_mode`, pairs of label and value; `mode_label`: what is chosen. `mode_loras`: whether
    the mode is the number of a LoRA under `preload_URLs`, counted from 0, that its videos are made with.
    `image_outputs`: whether a single image is made instead of a video. `image_frames`: the length of the longest video
    that such an image is the end of. `transformer_of`: the id of the architecture whose transformers it uses; empty for
    those with transformers of their own. `distilled`: its variant for distilled models, if they are used otherwise.
    `perturbations`: the values of `perturbation_switch` that it supports: 1 for skip-layer guidance, 2 for
    spatiotemporal guidance.
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
    config: Config = field(default_factory=frozen)
    options: Config = field(default_factory=frozen)
    image_pipeline: str = ""
    profiles: str = ""
    refused: Mapping[str, str] = field(default_factory=frozen)
    call_only: frozenset[str] = frozenset()
    fps: int = 0
    size_step: int = 0
    two_transformers: str = ""
    loras: str = ""
    scales: TwoScales | None = None
    unused_files: tuple[str, ...] = ()
    solvers: tuple[str, ...] = ()
    windows: Windows | None = None
    modes: tuple[tuple[str, int], ...] = ()
    mode_label: str = ""
    mode_loras: bool = False
    image_outputs: bool = False
    image_frames: int = 1
    transformer_of: str = ""
    distilled: Architecture | None = None
    perturbations: tuple[int, ...] = (0, 1)

    @property
    def usable_solvers(self) -> tuple[str, ...]:
        """The solvers that its videos can be made with, the default first."""
        return self.solvers or self.family.solvers

    def solver(self, name: str) -> str:
        """The solver to use for a name: the default for an empty name, a similar one for an unsupported one."""
        return _solver(name, self.usable_solvers)

    @property
    def frame_rate(self) -> int:
        """Frames per second of its videos."""
        return self.fps or self.family.fps

    @property
    def resolution_step(self) -> int:
        """Width and height are multiples of it."""
        return self.size_step or self.family.size_step

    @property
    def size_multiple(self) -> int:
        """Width and height of a request are multiples of it: those of a smaller first pass are whole, too."""
        return self.resolution_step * (self.scales.multiple if self.scales else 1)

    @property
    def two_models(self) -> bool:
        """Whether two transformers make its videos, one after the other."""
        return "guidance_phases" in self.defaults and self.scales is None

    @property
    def runnable(self) -> bool:
        """Whether videos can be made with it."""
        return bool(self.pipeline)

    @property
    def parts(self) -> tuple[Component, ...]:
        """The components of its pipeline."""
        return self.components or self.family.components
