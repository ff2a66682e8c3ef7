"""A request: the settings of one video as typed values.

Whoever makes a video reads these fields. Settings by name stay on this side of the parser, but for the record of them
that is stored with the video.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from reeltune.families.values import Settings


class Riflex(Enum):
    """Whether RIFLEx lengthens a video: `AUTO` for one that is longer than those the model was trained on."""

    AUTO = 0
    ON = 1
    OFF = 2


@dataclass(frozen=True)
class SkippedLayers:
    """Skip-layer guidance: blocks that the pass without the prompt leaves out, from share `begin` to share `end` of
    the steps (0 to 1).
    """

    layers: tuple[int, ...]
    begin: float
    end: float


@dataclass(frozen=True)
class Guidance:
    """How strongly a video follows its prompt.

    `scale`: 1 turns guidance off. `second_scale`: of the second transformer, None where it is the same.
    `distilled_scale`: the one built into distilled models, None for the model's own. `zero_star`: CFG-Zero*, whose
    first `zero_steps` steps do nothing.
    """

    scale: float
    second_scale: float | None = None
    distilled_scale: float | None = None
    zero_star: bool = False
    zero_steps: int = 0
    skipped_layers: SkippedLayers | None = None

    @property
    def enabled(self) -> bool:
        """Whether each step makes a pass without the prompt, too."""
        return self.scale > 1


@dataclass(frozen=True)
class StepSkipping:
    """A step cache: the speed factor to aim for, and the share of the steps (0 to 1) that it leaves alone at first."""

    speed: float
    start: float


@dataclass(frozen=True)
class InputFiles:
    """Images and videos that a video is made from.

    `mask_inverted`: the model draws what is black in the mask. `control_kept`: the control video stays visible under
    the mask, where it is gray otherwise.
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
    """One video. `width`, `height` in pixels; `frames`, `steps`, `fps` counts.

    `boundary`: share of the noise, 0 to 1, below which a second transformer takes over; 0 where the first one makes all
    the steps. `settings`: the record that is stored with the video, complete but for those that ask for nothing.
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
