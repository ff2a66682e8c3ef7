"""How LTX Video and LTX-2 make a video at two scales: the values of their published configurations, as data.

A video is made small first, its latents are enlarged by the latent upsampler, and a few more steps add detail. Levels
are levels of noise, from 1 (only noise) to 0.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from fractions import Fraction

_FILE_NAME = re.compile(r"[^/\\]*\Z")


@dataclass(frozen=True)
class GuidanceRange:
    """Guidance of the steps whose level of noise is at least `level`, up to the range before.

    `scale`: of the pass without the prompt; 1 turns it off. `perturbation`: the weight of the difference to a pass in
    which the self-attention of `blocks` passes its values through (STG, arXiv 2411.18664); 0 turns it off. `rescaling`:
    how far the result is rescaled to the standard deviation of the pass with the prompt, 0 to 1. Of models that make
    sound, `sound_scale` is that of the sound, and `modality_scale` that of a pass in which video and sound don't see
    each other; 1 turns it off.
    """

    level: float
    scale: float = 1.0
    perturbation: float = 0.0
    rescaling: float = 0.0
    blocks: tuple[int, ...] = ()
    sound_scale: float = 1.0
    modality_scale: float = 1.0

    @property
    def strongest(self) -> float:
        """The larger one of the scales of video and sound."""
        return max(self.scale, self.sound_scale)


@dataclass(frozen=True)
class ScaleSteps:
    """The steps at one scale.

    `levels`: the levels of noise that they begin at; empty if they follow from the number of steps. In that case,
    `begin` and `end` are the fractions of all steps that are made at this scale. `guidance`: by descending level; the
    last range applies below its level, too.
    """

    guidance: tuple[GuidanceRange, ...]
    levels: tuple[float, ...] = ()
    begin: Fraction = Fraction(0)
    end: Fraction = Fraction(1)

    def guidance_at(self, level: float) -> GuidanceRange:
        """The guidance at a level of noise."""
        reached = (entry for entry in self.guidance if entry.level <= level + _ROUNDING)
        return next(reached, self.guidance[-1])


@dataclass(frozen=True)
class TwoScales:
    """A configuration of LTX Video or LTX-2.

    `name`: of the published file, without its suffix. `zero_star`: whether the pass without the prompt is rescaled as
    in CFG-Zero*. `tone_mapping`: how far large latents are compressed before they are decoded, 0 to 1. The first scale
    is `shrink` times the size of the video, and the second one twice the first. `from_settings`: whether the guidance
    of the first scale and the number of scales come from the settings; one scale is that of the video. `lora`: the URL
    of a LoRA for the second scale.
    """

    name: str
    first: ScaleSteps
    second: ScaleSteps
    zero_star: bool = False
    tone_mapping: float = 0.0
    shrink: Fraction = Fraction(2, 3)
    from_settings: bool = False
    lora: str = ""

    @property
    def multiple(self) -> int:
        """How many of its first sizes fit into a side exactly; 1 if the result is scaled anyway."""
        return self.shrink.denominator if self.shrink.numerator == 1 else 1

    @property
    def distilled(self) -> bool:
        """Whether its steps are fixed, and none is guided."""
        return bool(self.first.levels)


_ROUNDING = 1e-5  # of a level in single precision
_USUAL_STEPS = 30  # that the files' numbers of left-out steps are meant for

_DEV_FIRST = ScaleSteps(
    guidance=(
        GuidanceRange(1.0),
        GuidanceRange(0.996),
        GuidanceRange(0.9933, 6.0, 4.0, 0.5, (22, 35, 39)),
        GuidanceRange(0.985, 8.0, 4.0, 0.5, (28,)),
        GuidanceRange(0.9767, 6.0, 4.0, 0.0, (28,)),
        GuidanceRange(0.9008, 1.0, 2.0, 0.0, (28,)),
        GuidanceRange(0.618, 1.0, 1.0, 0.0, (28,)),
    ),
    end=Fraction(_USUAL_STEPS - 3, _USUAL_STEPS),
)
_DEV_SECOND = ScaleSteps(guidance=(GuidanceRange(1.0, 1.0, 1.0, 0.0, (27,)),), begin=Fraction(17, _USUAL_STEPS))
_DISTILLED_FIRST = ScaleSteps(
    guidance=(GuidanceRange(1.0),), levels=(1.0, 0.9937, 0.9875, 0.9812, 0.975, 0.9094, 0.725)
)
_DISTILLED_SECOND = ScaleSteps(guidance=(GuidanceRange(1.0),), levels=(0.9094, 0.725, 0.4219))

DEV = TwoScales("ltxv-13b-0.9.8-dev", _DEV_FIRST, _DEV_SECOND, zero_star=True)
DISTILLED = TwoScales("ltxv-13b-0.9.8-distilled", _DISTILLED_FIRST, _DISTILLED_SECOND, tone_mapping=0.6)
LTX_CONFIGS = (
    DEV,
    DISTILLED,
    TwoScales("ltxv-13b-0.9.7-dev", _DEV_FIRST, _DEV_SECOND, zero_star=True),
    TwoScales("ltxv-13b-0.9.7-distilled", _DISTILLED_FIRST, _DISTILLED_SECOND),
)

LTX2_LEVELS = (1.0, 0.99375, 0.9875, 0.98125, 0.975, 0.909375, 0.725, 0.421875)  # that LTX-2 was distilled for
_LTX2_SECOND = ScaleSteps(guidance=(GuidanceRange(1.0),), levels=LTX2_LEVELS[-3:])
LTX2_FULL = TwoScales(
    "two_stage", ScaleSteps(guidance=(GuidanceRange(1.0),)), _LTX2_SECOND, shrink=Fraction(1, 2), from_settings=True
)
LTX2_DISTILLED = replace(
    LTX2_FULL, name="distilled", first=ScaleSteps(guidance=(GuidanceRange(1.0),), levels=LTX2_LEVELS)
)


def config_named(path: str) -> TwoScales | None:
    """The configuration whose file a path or URL names, in any folder; None if it isn't a published one."""
    match = _FILE_NAME.search(path)
    name = (match[0] if match else path).lower()
    stem = name.removesuffix(".yaml").removesuffix(".yml").removesuffix(".original")
    return next((config for config in LTX_CONFIGS if config.name == stem), None)


def nearest_config(text: str) -> TwoScales:
    """The configuration for a text such as a file name: that of distilled models if it contains `distilled`."""
    return DISTILLED if "distilled" in text.lower() else DEV
