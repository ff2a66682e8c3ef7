"""A request: the settings of one video as typed values.

The engine reads only these fields. It gets settings by key only to store them with the video.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from reeltune.families.values import Settings


class Riflex(Enum):
    """Whether RIFLEx is used; `AUTO` uses it for videos that are longer than those the model was trained on."""

    AUTO = 0
    ON = 1
    OFF = 2


@dataclass(frozen=True)
class SkippedLayers:
    """Skip-layer guidance: the pass without the prompt skips these blocks.

    `begin`, `end`: the first and last step, as fractions of all steps (0 to 1).
    """

    layers: tuple[int, ...]
    begin: float
    end: float


@dataclass(frozen=True)
class Guidance:
    """How closely a video follows its prompt.

    `scale`: 1 turns guidance off. `second_scale`: for the second transformer, None for the same scale.
    `distilled_scale`: for models with distilled guidance, None for the model's default. `zero_star`: whether CFG-Zero*
    is used; it skips the first `zero_steps` steps.
    """

    scale: float
    second_scale: float | None = None
    distilled_scale: float | None = None
    zero_star: bool = False
    zero_steps: int = 0
    skipped_layers: SkippedLayers | None = None

    @property
    def enabled(self) -> bool:
        """Whether each step has a second pass, without the prompt."""
        return self.scale > 1


@dataclass(frozen=True)
class StepSkipping:
    """A step cache. `speed`: the target speed factor. `start`: the fraction of steps (0 to 1) before it is used."""

    speed: float
    start: float


@dataclass(frozen=True)
class InputFiles:
    """The images and videos that a video is made from.

    `mask_inverted`: whether the black area of the mask is changed, instead of the white. `control_kept`: whether the
    control video is unchanged under the mask, instead of gray.
    """

    start_image: Path | None = None
    end_image: Path | None = None
    control_video: Path | None = None
    mask_video: Path | None = None
    reference_images: tuple[Path, ...] = ()
    mask_inverted: bool = False
    control_kept: bool = False

    @property
    def none(self) -> bool:
        """Whether the video is made from the prompt alone."""
        files = (self.start_image, self.end_image, self.control_video, self.mask_video)
        return not any(files) and not self.reference_images


@dataclass(frozen=True)
class Request:
    """The request of one video.

    `width`, `height`: pixels. `fps`: frames per second. `boundary`: the noise level, 0 to 1, below which the second
    transformer is used; 0 if it is never used. `settings`: the settings to store with the video.
    """

    prompt: str
    negative_prompt: str
    width: int
    height: int
    frames: int
    fps: int
    steps: int
    seed: int
    shift: float
    solver: str
    guidance: Guidance
    boundary: float
    step_skipping: StepSkipping | None
    riflex: Riflex
    inputs: InputFiles
    settings: Settings = field(repr=False)
