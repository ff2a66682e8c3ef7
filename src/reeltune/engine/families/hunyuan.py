"""Hunyuan Video at run time."""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image

from reeltune.engine.families.base import Arguments, FamilyRuntime, TemporalAxis, Tensors
from reeltune.engine.inputs import InputImages
from reeltune.families.base import Config
from reeltune.request.values import Request

_INTERLEAVE = {"latent_concat": 2, "token_replace": 4}  # every n-th of the image's tokens, as the release does
_CONCAT_FRAMES = 4  # that the concatenating model makes of the start image itself


def encode(
    pipeline: Any, request: Request, images: InputImages, config: Config, tokens: int, device: torch.device
) -> Tensors:
    """Llama's (or Llava's) and CLIP's embeddings; negative ones where true guidance is on."""
    options: Arguments = {"max_sequence_length": tokens, "device": device}
    if images.start is not None:
        options["image"] = images.start
        options["image_embed_interleave"] = _INTERLEAVE.get(config.get("image_condition_type") or "", 1)
    embeds, pooled, mask = pipeline.encode_prompt(prompt=request.prompt, **options)
    embeddings: Tensors = {
        "prompt_embeds": embeds,
        "pooled_prompt_embeds": pooled,
        "prompt_attention_mask": mask,
    }
    if _true_guidance(request, config):
        if images.start is not None:
            options["image"] = Image.new("RGB", (request.width, request.height))
        embeds, pooled, mask = pipeline.encode_prompt(prompt=request.negative_prompt, **options)
        embeddings["negative_prompt_embeds"] = embeds
        embeddings["negative_pooled_prompt_embeds"] = pooled
        embeddings["negative_prompt_attention_mask"] = mask
    return embeddings


def _true_guidance(request: Request, config: Config) -> bool:
    """A model with distilled guidance needs a second pass only for a negative prompt; others for any guidance."""
    distilled = config.get("guidance_embeds")
    return request.guided and (bool(request.negative_prompt) or not distilled)


def arguments(request: Request, images: InputImages, config: Config) -> Arguments:
    """Distilled guidance, and the start image. The denoiser guides in the other way, so the pipeline must not."""
    found: Arguments = {"true_cfg_scale": 1.0}
    if request.guidance.distilled_scale is not None:
        found["guidance_scale"] = request.guidance.distilled_scale
    if images.start is not None:
        found["image"] = images.start
    return found


def negative(embeddings: Tensors) -> Tensors:
    """The arguments of the pass without the prompt that differ; none without a negative prompt."""
    if embeddings.get("negative_prompt_embeds") is None:
        return {}
    return {
        "encoder_hidden_states": embeddings.pop("negative_prompt_embeds"),
        "pooled_projections": embeddings.pop("negative_pooled_prompt_embeds"),
        "encoder_attention_mask": embeddings.pop("negative_prompt_attention_mask"),
    }


def decode(vae: Any, latents: torch.Tensor, request: Request) -> torch.Tensor:
    """Pixels of latents, which one factor scales."""
    pixels: torch.Tensor = vae.decode(latents / vae.config.scaling_factor, return_dict=False)[0]
    return pixels


def extra_frames(config: Config) -> int:
    """Latents that a model which concatenates the start image makes before the first frame."""
    return _CONCAT_FRAMES if config.get("image_condition_type") == "latent_concat" else 0


def temporal_axis(rope: Any) -> TemporalAxis:
    """The temporal axis of Hunyuan Video's rotary embedding, the first of three."""
    return TemporalAxis(rope.rope_dim[0], rope.theta, int(rope.patch_size_t))


RUNTIME = FamilyRuntime(
    encode,
    arguments,
    decode,
    pixel_bytes=4 * 128 * 4,
    frames_at_once=16,
    temporal_axis=temporal_axis,
    negative=negative,
    extra_frames=extra_frames,
)
