"""Hunyuan Video 1.5 at run time."""

from __future__ import annotations

from types import MappingProxyType, SimpleNamespace
from typing import Any

import torch

from reeltune.engine.families.base import Arguments, FamilyRuntime, TemporalAxis, Tensors
from reeltune.engine.inputs import InputImages
from reeltune.errors import GenerationError
from reeltune.families.base import Config
from reeltune.request.values import Request


class _VaeSizes:
    """What the pipeline reads of a VAE when it is built, also where it only encodes a prompt."""

    config = SimpleNamespace(latent_channels=32)
    temporal_compression_ratio = 4
    spatial_compression_ratio = 16


_OF_TRANSFORMER = {
    "prompt_embeds": "encoder_hidden_states",
    "prompt_embeds_mask": "encoder_attention_mask",
    "prompt_embeds_2": "encoder_hidden_states_2",
    "prompt_embeds_mask_2": "encoder_attention_mask_2",
}


def encode(
    pipeline: Any, request: Request, images: InputImages, config: Config, tokens: int, device: torch.device
) -> Tensors:
    """Qwen's embeddings, ByT5's of the texts in quotation marks, and SigLIP's of the start image.

    Raises GenerationError for a tokenizer without the template of a conversation.
    """
    if not pipeline.tokenizer.chat_template:
        message = "The tokenizer of the text encoder has no chat template, which prompts are put into."
        raise GenerationError(message, hint="Copy tokenizer_config.json of Qwen2.5-VL-7B-Instruct into its folder.")
    pipeline.tokenizer_max_length = tokens
    embeddings: Tensors = dict(zip(_OF_TRANSFORMER, pipeline.encode_prompt(request.prompt, device), strict=True))
    if request.guided:
        negative_values = pipeline.encode_prompt(request.negative_prompt, device)
        for name, value in zip(_OF_TRANSFORMER, negative_values, strict=True):
            embeddings[f"negative_{name}"] = value
    if images.start is not None:
        dtype = pipeline.text_encoder.dtype
        embeddings["image_embeds"] = pipeline.encode_image(images.start, batch_size=1, device=device, dtype=dtype)
    return embeddings


def prepare(pipeline: Any, request: Request) -> None:
    """Have the pipeline make one pass a step, since the denoiser guides, and a video of the size that is asked for.

    Its own choice is the nearest of the sizes that the model was trained with.
    """
    from diffusers import ClassifierFreeGuidance

    pipeline.register_modules(guider=ClassifierFreeGuidance(guidance_scale=1.0))
    pipeline.video_processor.calculate_default_height_width = lambda **_: (request.height, request.width)


def arguments(request: Request, images: InputImages, config: Config) -> Arguments:
    """The start image, whose latents the VAE makes."""
    return {} if images.start is None else {"image": images.start}


def negative(embeddings: Tensors) -> Tensors:
    """The arguments of the pass without the prompt that differ; none without guidance."""
    if "negative_prompt_embeds" not in embeddings:
        return {}
    return {argument: embeddings.pop(f"negative_{name}") for name, argument in _OF_TRANSFORMER.items()}


def decode(vae: Any, latents: torch.Tensor, request: Request) -> torch.Tensor:
    """Pixels of latents, which one factor scales."""
    pixels: torch.Tensor = vae.decode(latents / vae.config.scaling_factor, return_dict=False)[0]
    return pixels


def temporal_axis(rope: Any) -> TemporalAxis:
    """The temporal axis of the rotary embedding, the first of three."""
    return TemporalAxis(rope.rope_dim[0], rope.theta, int(rope.patch_size_t))


RUNTIME = FamilyRuntime(
    encode,
    arguments,
    decode,
    pixel_bytes=4 * 128 * 4,
    frames_at_once=0,
    temporal_axis=temporal_axis,
    negative=negative,
    prepare=prepare,
    stand_ins=MappingProxyType({"vae": _VaeSizes()}),
)
