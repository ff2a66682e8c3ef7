"""A request: the settings of one video as typed values.

The engine reads only these fields. It gets settings by key only to store them with the video.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from reeltune.definitions.slots import Slot
from reeltune.families.scales import GuidanceRange
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
class Phase:
    """Steps with the same transformer and the same guidance.

    `first_step`: counted from 0. `steps`: the number of steps, 0 for a phase that no step belongs to.
    `guidance_scale`: 1 turns guidance off.
    """

    first_step: int
    steps: int
    transformer: Slot
    guidance_scale: float


@dataclass(frozen=True)
class Pass:
    """Steps at one size, of a video that is made small first, and larger after that.

    `first_step`: counted from 0, over all passes. `width`, `height`: pixels. `timesteps`: of each step, 0 to 1000.
    `guidance`: of each step.
    """

    first_step: int
    width: int
    height: int
    timesteps: tuple[float, ...]
    guidance: tuple[GuidanceRange, ...]

    @property
    def steps(self) -> int:
        """The number of steps."""
        return len(self.timesteps)


@dataclass(frozen=True)
class Guidance:
    """How closely a video follows its prompt, apart from the guidance scale of each phase.

    `distilled_scale`: for models with distilled guidance, None for the model's default. `zero_star`: whether CFG-Zero*
    is used; it skips the first `zero_steps` steps.
    """

    distilled_scale: float | None = None
    zero_star: bool = False
    zero_steps: int = 0
    skipped_layers: SkippedLayers | None = None


@dataclass(frozen=True)
class Lora:
    """A LoRA of a request. `source`: its URL or path, as it was written. `weights`: its weight in each step."""

    source: str
    weights: tuple[float, ...]


@dataclass(frozen=True)
class StepSkipping:
    """A step cache. `speed`: the target speed factor. `start`: the fraction of steps (0 to 1) before it is used."""

    speed: float
    start: float


@dataclass(frozen=True)
class InputFiles:
    """The images and videos that a video is made from.

    `mask_inverted`: whether the black area of the mask is changed, instead of the white. `control_kept`: whether the
    control video is unchanged under the mask, instead of gray. `held`: whether the last frame of a video that is too
    short is used for the rest; otherwise the model makes up the rest. `border`: the brightness of the border around
    reference images. `clip`: how many frames each of them has in the clip that the model sees; empty where it sees them
    as images. `background_last`: whether the last one is a background. `tracks`: trajectories of points.
    """

    start_image: Path | None = None
    end_image: Path | None = None
    control_video: Path | None = None
    mask_video: Path | None = None
    reference_images: tuple[Path, ...] = ()
    face_video: Path | None = None
    background_video: Path | None = None
    tracks: Path | None = None
    mask_inverted: bool = False
    control_kept: bool = False
    held: bool = False
    border: int = 255
    clip: tuple[int, ...] = ()
    background_last: bool = False

    @property
    def none(self) -> bool:
        """Whether the video is made from the prompt alone."""
        files = (self.start_image, self.end_image, self.control_video, self.mask_video)
        return not any(files) and not self.reference_images


@dataclass(frozen=True)
class Window:
    """The windows that a long video is made in, one after the other.

    `size`: frames of a window. `overlap`: frames that it shares with the window before. `noise`: the timestep, 0 to
    1000, whose noise is added to the shared frames.
    """

    size: int
    overlap: int
    noise: int = 0


@dataclass(frozen=True)
class Request:
    """The request of one video.

    `width`, `height`: pixels. `fps`: frames per second. `phases`: together they have all steps. `loras`: in the order
    in which they are applied. `settings`: the settings to store with the video. `passes`: in order, with all steps;
    empty for a video that is made at its own size. `tone_mapping`: how far large latents are compressed before they are
    decoded, 0 to 1. `config`: the variant of the definition that makes it. `mode`: the value of `model_mode`, 0 for
    architectures without modes. `window`: None for a video that is made in one window. `later_prompts`: those of the
    windows after the first; the last one is also that of all windows that have none.
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
    phases: tuple[Phase, ...]
    guidance: Guidance
    step_skipping: StepSkipping | None
    riflex: Riflex
    inputs: InputFiles
    loras: tuple[Lora, ...]
    settings: Settings = field(repr=False)
    passes: tuple[Pass, ...] = ()
    tone_mapping: float = 0.0
    config: str = ""
    mode: int = 0
    window: Window | None = None
    later_prompts: tuple[str, ...] = ()

    @property
    def computed_size(self) -> tuple[int, int]:
        """Width and height of the frames that are decoded; they are scaled to those of the video."""
        return (self.passes[-1].width, self.passes[-1].height) if self.passes else (self.width, self.height)

    @property
    def windows(self) -> int:
        """The number of windows that the video is made in; each takes all steps."""
        if self.window is None:
            return 1
        return 1 + math.ceil((self.frames - self.window.size) / (self.window.size - self.window.overlap))

    @property
    def guided(self) -> bool:
        """Whether some steps have a second pass, without the prompt."""
        return any(phase.steps and phase.guidance_scale > 1 for phase in self.phases)

    @property
    def guidance_scale(self) -> float:
        """The guidance scale of the first phase."""
        return self.phases[0].guidance_scale

    def guidance_of_step(self, step: int) -> GuidanceRange:
        """The guidance of a step, counted from 0."""
        for scale in reversed(self.passes):
            if scale.first_step <= step:
                return scale.guidance[step - scale.first_step]
        return GuidanceRange(0.0, self.phase(step).guidance_scale)

    def phase(self, step: int) -> Phase:
        """The phase of a step, counted from 0."""
        return next(phase for phase in reversed(self.phases) if phase.steps and phase.first_step <= step)
