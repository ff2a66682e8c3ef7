"""LTX Video at run time."""

from __future__ import annotations

from typing import Any

import torch

from reeltune.engine.families.base import Arguments, FamilyRuntime, Tensors
from reeltune.engine.inputs import InputImages
from reeltune.families.base import Config
from reeltune.request.values import Request

_DECODE_TIME, _DECODE_NOISE = 0.05, 0.025  # of the VAE that denoises while decoding, as the release sets them


def encode(
    pipeline: Any, request: Request, images: InputImages, config: Config, tokens: int, device: torch.device
) -> Tensors:
    """The embeddings of both prompts, with their masks."""
    embeds, mask, negative, negative_mask = pipeline.encode_prompt(
        prompt=request.prompt,
        negative_prompt=request.negative_prompt,
        do_classifier_free_guidance=request.guided,
        max_sequence_length=tokens,
        device=device,
    )
    return {
        "prompt_embeds": embeds,
        "prompt_attention_mask": mask,
        "negative_prompt_embeds": negative,
        "negative_prompt_attention_mask": negative_mask,
    }


def arguments(request: Request, images: InputImages, config: Config) -> Arguments:
    """Guidance, frame rate, and the images that are held at the first and the last frame."""
    from diffusers.pipelines.ltx.pipeline_ltx_condition import LTXVideoCondition

    found: Arguments = {"guidance_scale": request.guidance_scale, "frame_rate": request.fps}
    held = [(images.start, 0), (images.end, request.frames - 1)]
    conditions = [LTXVideoCondition(image=image, frame_index=index) for image, index in held if image is not None]
    if conditions:
        found["conditions"] = conditions
    return found


def decode(vae: Any, latents: torch.Tensor, request: Request) -> torch.Tensor:
    """Pixels of latents; where the VAE denoises while decoding, of latents with noise by the request's seed."""
    mean, std = (values.view(1, -1, 1, 1, 1).to(latents) for values in (vae.latents_mean, vae.latents_std))
    latents = latents * std / vae.config.scaling_factor + mean
    timestep = None
    if vae.config.timestep_conditioning:
        generator = torch.Generator("cpu").manual_seed(request.seed)
        noise = torch.randn(latents.shape, generator=generator).to(latents)
        latents = torch.lerp(latents, noise, _DECODE_NOISE)
        timestep = torch.tensor([_DECODE_TIME]).to(latents)
    pixels: torch.Tensor = vae.decode(latents, timestep, return_dict=False)[0]
    return pixels


RUNTIME = FamilyRuntime(encode, arguments, decode, pixel_bytes=4 * 128 * 4 // 16, frames_at_once=0)
