"""The clip of reference images that LTX-2 sees beside its video: subjects in their order, then the background.

How many frames each image has, and the shape that it is given, follow github.com/liconstudio/ComfyUI-Licon-MSR and
WanGP. An image has all frames of the latent frames that it is in, except with the first LoRA, which was made before
that rule.
"""

from __future__ import annotations

from dataclasses import replace

from reeltune.checkpoints.names import base_name
from reeltune.definitions import Definition
from reeltune.errors import SettingsError
from reeltune.families.base import LORA_SOURCES
from reeltune.families.values import Settings
from reeltune.request.values import InputFiles

_MOST_SUBJECTS = 4
_LATENT_FRAME = 8  # frames of each latent frame but the first, which has one
_FIRST_LORA, _FIRST_FRAMES = "msr-v1", 41  # its clips have so many frames, shared out equally


def with_clip(definition: Definition, settings: Settings, inputs: InputFiles, frames: int) -> InputFiles:
    """The inputs with reference images in the order of the clip, and the number of frames of each.

    `frames`: of the video. Inputs of models without such a clip are returned unchanged. Raises SettingsError for a
    wrong number of images, and for a video that is shorter than the clip.
    """
    images = inputs.reference_images
    if not images or not any(model_input.clip for model_input in definition.architecture.inputs):
        return inputs
    background = "K" in (settings.get("video_prompt_type") or "")
    subjects = len(images) - background
    if not 1 <= subjects <= _MOST_SUBJECTS:
        takes = f"{'a background and ' if background else ''}1 to {_MOST_SUBJECTS} people or objects"
        hint = "Remove K from video_prompt_type for images without a background." if background else ""
        raise SettingsError(f"image_refs has {len(images)} images; it must have {takes}.", hint=hint, key="image_refs")
    loras = [*(version.url for version in definition.loras), *(settings.get(LORA_SOURCES) or ())]
    clip = _frames(subjects, loras, background=background)
    if sum(clip) > frames:
        message = f"The clip of {len(images)} reference images has {sum(clip)} frames, and the video has only {frames}."
        raise SettingsError(message, hint=f"Use video_length={sum(clip)} or more.", key="video_length")
    if background:
        images = (*images[1:], images[0])
    return replace(inputs, reference_images=images, clip=clip, background_last=background)


def extra_latent_frames(inputs: InputFiles) -> int:
    """The latent frames that a model sees besides those of the video: an end image, and the clip of references."""
    clip = (sum(inputs.clip) - 1) // _LATENT_FRAME + 1 if inputs.clip else 0
    return clip + (inputs.end_image is not None)


def _frames(subjects: int, loras: list[str], *, background: bool) -> tuple[int, ...]:
    """The frames of each image: two latent frames for a subject, and one for the background."""
    if any(_FIRST_LORA in base_name(source).lower() for source in loras):
        share, more = divmod(_FIRST_FRAMES, subjects + background)
        return tuple(share + (index < more) for index in range(subjects + background))
    others = (2 * _LATENT_FRAME,) * (subjects - 1)
    return (_LATENT_FRAME + 1, *others, _LATENT_FRAME) if background else (2 * _LATENT_FRAME + 1, *others)
