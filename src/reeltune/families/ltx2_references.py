"""LTX-2.3 with a LoRA that keeps the subjects of reference images: LiconStudio's Multiple Subject Reference (MSR)."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

from reeltune.families import ltx2
from reeltune.families.base import REFERENCE_IMAGES, Architecture

_BASE = next(architecture for architecture in ltx2.ARCHITECTURES if architecture.id == "ltx2_22B")
_SUBJECTS = replace(
    REFERENCE_IMAGES,
    letter="KI",
    required=True,
    clip=True,
    label="Background, people and objects",
    help="The background first, then one image for each of up to four people or objects, preferably on white.",
)
_DEFAULTS = {
    "prompt": "The people and objects of the images together in the place of the first image, moving naturally",
    "video_prompt_type": "KI",
    "video_length": 145,
}


def _with_subjects(origin: Architecture, profiles: str) -> Architecture:
    """The architecture with reference images in place of its own inputs."""
    dropped = {key for model_input in origin.inputs for key in (model_input.key, model_input.letters_key)}
    return replace(
        origin,
        id="ltx2_22B_msr",
        transformer_of=origin.id,
        pipeline="LTX2InContextPipeline",
        image_pipeline="",
        profiles=profiles,
        inputs=(_SUBJECTS,),
        settings=(origin.settings - dropped) | {_SUBJECTS.key, *_DEFAULTS},
        defaults=MappingProxyType({**origin.defaults, **_DEFAULTS}),
        distilled=_with_subjects(origin.distilled, "ltx2_msr") if origin.distilled else None,
    )


ARCHITECTURES = (_with_subjects(_BASE, "ltx2_msr_dev_accelerators"),)
