"""Wan at run time."""

from __future__ import annotations

from typing import Any

import torch

from reeltune.engine.families.base import Arguments, FamilyRuntime, TemporalAxis, Tensors
from reeltune.engine.inputs import InputImages
from reeltune.families.base import Config
from reeltune.request.values import Request

_ROPE_BASE = 10_000.0
FRAME_STEP = 4  # frames of the video that each latent frame but the first stands for


def encode(
    pipeline: Any, request: Request, images: InputImages, config: Config, tokens: int, device: torch.device
) -> Tensors:
    """The embeddings of both prompts, and those of the images where the model looks at them."""
    positive, negative = pipeline.encode_prompt(
        prompt=request.prompt,
        negative_prompt=request.negative_prompt,
        do_classifier_free_guidance=request.guided,
        max_sequence_length=tokens,
        device=device,
    )
    embeddings: Tensors = {"prompt_embeds": positive, "negative_prompt_embeds": negative}
    if getattr(pipeline, "image_encoder", None) is not None:
        seen: Any = images.start or images.references[0]  # the character of Animate is a reference image
        if images.end is not None and config.get("pos_embed_seq_len"):  # only FLF2V looks at the end image too
            seen = [images.start, images.end]
        embeddings["image_embeds"] = pipeline.encode_image(seen, device)
    return embeddings


def arguments(request: Request, images: InputImages, config: Config) -> Arguments:
    """The images and videos that are encoded by the VAE. The denoiser guides, so the pipeline must not."""
    found: Arguments = {"guidance_scale": 1.0}
    if images.start is not None:
        found["image"] = images.start
        if images.end is not None:
            found["last_image"] = images.end
    if images.control:
        found["video"] = list(images.control)
        found["mask"] = list(images.mask)
    if images.references:
        found["reference_images"] = list(images.references)
    return found


def decode(vae: Any, latents: torch.Tensor, request: Request) -> torch.Tensor:
    """Pixels of latents, whose channels the VAE's config scales."""
    mean = torch.tensor(vae.config.latents_mean).view(1, -1, 1, 1, 1).to(latents)
    std = torch.tensor(vae.config.latents_std).view(1, -1, 1, 1, 1).to(latents)
    pixels: torch.Tensor = vae.decode(latents * std + mean, return_dict=False)[0]
    return pixels


def negative(embeddings: Tensors) -> Tensors:
    """The arguments of the pass without the prompt that differ; none without a negative prompt."""
    embedding = embeddings.pop("negative_prompt_embeds", None)
    return {} if embedding is None else {"encoder_hidden_states": embedding}


def temporal_axis(rope: Any) -> TemporalAxis:
    """The temporal axis of Wan's rotary embedding."""
    return TemporalAxis(rope.t_dim, _ROPE_BASE, int(rope.patch_size[0]))


RUNTIME = FamilyRuntime(
    encode,
    arguments,
    decode,
    pixel_bytes=5 * 96 * 4,
    frames_at_once=4,
    temporal_axis=temporal_axis,
    negative=negative,
)
