"""The few lines of each family that a declaration can't say: embeddings, a pipeline's extra arguments, latents.

Each family is one `Kind`. Tensors: embeddings [1, tokens, features]; latents [1, channels, frames', height', width'];
pixels [1, 3, frames, height, width] in -1..1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from reeltune.engine.inputs import Given
from reeltune.request.parse import Request

Tensors = dict[str, torch.Tensor | None]
Config = Mapping[str, Any]  # of the transformer


@dataclass(frozen=True)
class Kind:
    """What a family does its own way.

    `encode(pipeline, request, given, config, tokens, device)`: the call's embeddings. `arguments(request, given,
    config)`: its other arguments. `extra_frames(config)`: frames the model makes before the first that is shown.
    `decode(vae, latents, request)`: pixels. `pixel_bytes`: what the VAE holds of one pixel of a frame it is at, in
    fp32 (its widest layers, a few of them at once); `frames_at_once`: of so many frames (0: of all).
    """

    encode: Callable[[Any, Request, Given, Config, int, torch.device], Tensors]
    arguments: Callable[[Request, Given, Config], dict[str, Any]]
    decode: Callable[[Any, torch.Tensor, Request], torch.Tensor]
    pixel_bytes: int
    frames_at_once: int
    extra_frames: Callable[[Config], int] = lambda config: 0


# --- Wan ----------------------------------------------------------------------------------------------------


def _encode_wan(
    pipeline: Any, request: Request, given: Given, config: Config, tokens: int, device: torch.device
) -> Tensors:
    positive, negative = pipeline.encode_prompt(
        prompt=request.prompt,
        negative_prompt=request.negative_prompt,
        do_classifier_free_guidance=request.guidance > 1,
        max_sequence_length=tokens,
        device=device,
    )
    found: Tensors = {"prompt_embeds": positive, "negative_prompt_embeds": negative}
    if getattr(pipeline, "image_encoder", None) is not None:
        both = given.end is not None and config.get("pos_embed_seq_len")  # only FLF2V looks at the end image too
        found["image_embeds"] = pipeline.encode_image([given.start, given.end] if both else given.start, device)
    return found


def _wan_arguments(request: Request, given: Given, config: Config) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if given.start is not None:
        found |= {"image": given.start} | ({"last_image": given.end} if given.end else {})
    if given.guide:
        found |= {"video": list(given.guide), "mask": list(given.mask)}
    if given.references:
        found["reference_images"] = list(given.references)
    return found


def _decode_wan(vae: Any, latents: torch.Tensor, request: Request) -> torch.Tensor:
    mean = torch.tensor(vae.config.latents_mean).view(1, -1, 1, 1, 1).to(latents)
    std = torch.tensor(vae.config.latents_std).view(1, -1, 1, 1, 1).to(latents)
    return vae.decode(latents * std + mean, return_dict=False)[0]  # type: ignore[no-any-return]


# --- Hunyuan Video ------------------------------------------------------------------------------------------

_INTERLEAVE = {"latent_concat": 2, "token_replace": 4}  # every n-th of the image's tokens, as the release does
_CONCAT_FRAMES = 4  # that the concatenating model makes of the start image itself


def _encode_hunyuan(
    pipeline: Any, request: Request, given: Given, config: Config, tokens: int, device: torch.device
) -> Tensors:
    """Llama's (or Llava's) and CLIP's embeddings; negative ones where true guidance is on."""
    image: dict[str, Any] = {"image": given.start} if given.start else {}
    if image:
        image["image_embed_interleave"] = _INTERLEAVE.get(config.get("image_condition_type") or "", 1)
    options = {"max_sequence_length": tokens, "device": device}
    embeds, pooled, mask = pipeline.encode_prompt(prompt=request.prompt, **image, **options)
    found: Tensors = {"prompt_embeds": embeds, "pooled_prompt_embeds": pooled, "prompt_attention_mask": mask}
    if _true_guidance(request, config):
        if image:
            from PIL import Image

            image["image"] = Image.new("RGB", (request.width, request.height))
        embeds, pooled, mask = pipeline.encode_prompt(prompt=request.negative_prompt, **image, **options)
        found["negative_prompt_embeds"], found["negative_pooled_prompt_embeds"] = embeds, pooled
        found["negative_prompt_attention_mask"] = mask
    return found


def _true_guidance(request: Request, config: Config) -> bool:
    """A model with distilled guidance needs a second pass only for a negative prompt; others for any guidance."""
    return request.guidance > 1 and (bool(request.negative_prompt) or not config.get("guidance_embeds"))


def _hunyuan_arguments(request: Request, given: Given, config: Config) -> dict[str, Any]:
    scale = request.guidance if _true_guidance(request, config) else 1.0
    return {"true_cfg_scale": scale} | ({"image": given.start} if given.start else {})


def _decode_hunyuan(vae: Any, latents: torch.Tensor, request: Request) -> torch.Tensor:
    return vae.decode(latents / vae.config.scaling_factor, return_dict=False)[0]  # type: ignore[no-any-return]


def _hunyuan_extra(config: Config) -> int:
    return _CONCAT_FRAMES if config.get("image_condition_type") == "latent_concat" else 0


# --- LTX Video ----------------------------------------------------------------------------------------------

_DECODE_TIME, _DECODE_NOISE = 0.05, 0.025  # of the VAE that denoises while decoding, as the release sets them


def _encode_ltx(
    pipeline: Any, request: Request, given: Given, config: Config, tokens: int, device: torch.device
) -> Tensors:
    embeds, mask, negative, negative_mask = pipeline.encode_prompt(
        prompt=request.prompt,
        negative_prompt=request.negative_prompt,
        do_classifier_free_guidance=request.guidance > 1,
        max_sequence_length=tokens,
        device=device,
    )
    return {
        "prompt_embeds": embeds, "prompt_attention_mask": mask,
        "negative_prompt_embeds": negative, "negative_prompt_attention_mask": negative_mask,
    }  # fmt: skip


def _ltx_arguments(request: Request, given: Given, config: Config) -> dict[str, Any]:
    from diffusers.pipelines.ltx.pipeline_ltx_condition import LTXVideoCondition

    places = [(given.start, 0), (given.end, request.frames - 1)]
    conditions = [LTXVideoCondition(image=image, frame_index=index) for image, index in places if image is not None]
    return {"frame_rate": request.fps} | ({"conditions": conditions} if conditions else {})


def _decode_ltx(vae: Any, latents: torch.Tensor, request: Request) -> torch.Tensor:
    mean, std = (row.view(1, -1, 1, 1, 1).to(latents) for row in (vae.latents_mean, vae.latents_std))
    latents = latents * std / vae.config.scaling_factor + mean
    time = None
    if vae.config.timestep_conditioning:
        generator = torch.Generator("cpu").manual_seed(request.seed)
        noise = torch.randn(latents.shape, generator=generator).to(latents)
        latents = torch.lerp(latents, noise, _DECODE_NOISE)
        time = torch.tensor([_DECODE_TIME]).to(latents)
    return vae.decode(latents, time, return_dict=False)[0]  # type: ignore[no-any-return]


KINDS: Mapping[str, Kind] = {
    "wan": Kind(_encode_wan, _wan_arguments, _decode_wan, pixel_bytes=5 * 96 * 4, frames_at_once=4),
    "hunyuan": Kind(
        _encode_hunyuan,
        _hunyuan_arguments,
        _decode_hunyuan,
        4 * 128 * 4,
        frames_at_once=16,
        extra_frames=_hunyuan_extra,
    ),
    "ltx": Kind(_encode_ltx, _ltx_arguments, _decode_ltx, pixel_bytes=4 * 128 * 4 // 16, frames_at_once=0),
}
