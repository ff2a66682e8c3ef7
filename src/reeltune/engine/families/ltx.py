"""LTX Video at run time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from reeltune.engine.families.base import Arguments, FamilyRuntime, Latents, Tensors
from reeltune.engine.inputs import InputImages
from reeltune.families.base import Config
from reeltune.request.values import Pass, Request

_ONLY_NOISE = 1000.0  # the timestep of latents that are nothing but noise
_DECODE_TIME, _DECODE_NOISE = 0.05, 0.025  # of the VAE that denoises while decoding, as the release sets them


def prompt_embeddings(
    pipeline: Any, request: Request, tokens: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
    """Embeddings [1, tokens, features] of the prompt and their mask [1, tokens], and those of the negative prompt.

    The latter are None without guidance.
    """
    embeds, mask, negative, negative_mask = pipeline.encode_prompt(
        prompt=request.prompt,
        negative_prompt=request.negative_prompt,
        do_classifier_free_guidance=request.guided,
        max_sequence_length=tokens,
        device=device,
    )
    return embeds, mask, negative, negative_mask


def encode(
    pipeline: Any, request: Request, images: InputImages, config: Config, tokens: int, device: torch.device
) -> Tensors:
    """The embeddings of both prompts, with their masks."""
    embeds, mask, negative, negative_mask = prompt_embeddings(pipeline, request, tokens, device)
    return {
        "prompt_embeds": embeds,
        "prompt_attention_mask": mask,
        "negative_prompt_embeds": negative,
        "negative_prompt_attention_mask": negative_mask,
    }


def arguments(request: Request, images: InputImages, config: Config) -> Arguments:
    """Frame rate, and the images that are held at the first and the last frame. The denoiser guides."""
    from diffusers.pipelines.ltx.pipeline_ltx_condition import LTXVideoCondition

    found: Arguments = {"guidance_scale": 1.0, "frame_rate": request.fps}
    held = [(images.start, 0), (images.end, request.frames - 1)]
    conditions = [LTXVideoCondition(image=image, frame_index=index) for image, index in held if image is not None]
    if conditions:
        found["conditions"] = conditions
    return found


def negative(embeddings: Tensors) -> Tensors:
    """The arguments of the pass without the prompt that differ; none without a negative prompt."""
    embedding = embeddings.pop("negative_prompt_embeds", None)
    mask = embeddings.pop("negative_prompt_attention_mask", None)
    if embedding is None:
        return {}
    return {"encoder_hidden_states": embedding, "encoder_attention_mask": mask}


@contextmanager
def perturbed(model: Any, blocks: Sequence[int]) -> Iterator[bool]:
    """Within this context, the self-attention of some blocks passes its values through (STG, arXiv 2411.18664).

    Blocks that the model doesn't have are left out. Yields whether the model has any of them.
    """
    attentions = [model.transformer_blocks[index].attn1 for index in blocks if index < len(model.transformer_blocks)]
    processors = [attention.processor for attention in attentions]
    for attention in attentions:
        attention.processor = _PassedThrough()
    try:
        yield bool(attentions)
    finally:
        for attention, processor in zip(attentions, processors, strict=True):
            attention.processor = processor


class _PassedThrough:
    """Stands in for the processor of an attention layer: each token gets its own value."""

    def __call__(self, attention: Any, hidden_states: torch.Tensor, *_: object, **__: object) -> torch.Tensor:
        """The output [batch, tokens, features] of an attention layer with the identity as attention matrix."""
        values = attention.to_v(hidden_states)
        output: torch.Tensor = attention.to_out[1](attention.to_out[0](values))
        return output


def _tone_mapped(latents: torch.Tensor, strength: float) -> torch.Tensor:
    """Latents whose large values are compressed, by up to 60 % at a strength of 1. The formula is Lightricks'."""
    steepness = 0.75 * strength
    compression = torch.sigmoid(4 * steepness * (latents.abs() - 1))
    return latents * (1 - 0.8 * steepness * compression)


def decode(vae: Any, latents: torch.Tensor, request: Request) -> torch.Tensor:
    """Pixels of latents; where the VAE denoises while decoding, of latents with noise by the request's seed."""
    if request.tone_mapping:
        latents = _tone_mapped(latents, request.tone_mapping)
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


def pass_arguments(scale: Pass, latents: Latents | None) -> Arguments:
    """The timesteps of a pass, and the latents that it starts from.

    The pipeline starts from latents at a level of noise below the first timestep: it leaves out the share
    `1 - denoise_strength` of them.
    """
    times = list(scale.timesteps)
    if latents is None:
        return {"timesteps": times}
    times.insert(0, _ONLY_NOISE)
    return {"timesteps": times, "latents": latents.video, "denoise_strength": 1 - 0.5 / len(times)}


RUNTIME = FamilyRuntime(
    encode,
    arguments,
    decode,
    pixel_bytes=4 * 128 * 4 // 16,
    frames_at_once=0,
    negative=negative,
    perturbed=perturbed,
    pass_arguments=pass_arguments,
    upsampling=("LTXLatentUpsamplePipeline", {"adain_factor": 1.0}),  # keeps mean and deviation of each channel
)
