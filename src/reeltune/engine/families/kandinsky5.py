"""Kandinsky 5 at run time."""

from __future__ import annotations

from typing import Any

import torch

from reeltune.engine.families.base import Arguments, FamilyRuntime, Tensors
from reeltune.engine.inputs import InputImages
from reeltune.families.base import Config
from reeltune.request.values import Request

_VALUES = ("prompt_embeds_qwen", "prompt_embeds_clip", "prompt_cu_seqlens")  # the last: where each prompt ends
_FITTED_FRAMES = 13  # of four latents


def encode(
    pipeline: Any, request: Request, images: InputImages, config: Config, tokens: int, device: torch.device
) -> Tensors:
    """Qwen's and CLIP's embeddings, and the number of tokens."""
    options: Arguments = {"max_sequence_length": tokens, "device": device}
    embeddings: Tensors = dict(zip(_VALUES, pipeline.encode_prompt(request.prompt, **options), strict=True))
    if request.guided:
        values = pipeline.encode_prompt(request.negative_prompt, **options)
        embeddings |= {f"negative_{name}": value for name, value in zip(_VALUES, values, strict=True)}
    return embeddings


def prepare(pipeline: Any, request: Request) -> None:
    """Leave the first latent frames of a short video as they are.

    With a start image, the pipeline fits the contrast of the first four to that of the next ones, which must exist.
    """
    if request.frames <= _FITTED_FRAMES:
        pipeline.normalize_first_frame = lambda latents: latents


def arguments(request: Request, images: InputImages, config: Config) -> Arguments:
    """The start image. The denoiser guides, so the pipeline must not."""
    found: Arguments = {"guidance_scale": 1.0}
    if images.start is not None:
        found["image"] = images.start
    return found


def negative(embeddings: Tensors) -> Tensors:
    """The arguments of the pass without the prompt that differ; none without guidance."""
    qwen, clip, ends = (embeddings.pop(f"negative_{name}", None) for name in _VALUES)
    if qwen is None or clip is None or ends is None:
        return {}
    positions = torch.arange(int(ends[-1]), device=qwen.device)
    return {"encoder_hidden_states": qwen, "pooled_projections": clip, "text_rope_pos": positions}


def decode(vae: Any, latents: torch.Tensor, request: Request) -> torch.Tensor:
    """Pixels of latents, which one factor scales."""
    pixels: torch.Tensor = vae.decode(latents / vae.config.scaling_factor, return_dict=False)[0]
    return pixels


RUNTIME = FamilyRuntime(
    encode,
    arguments,
    decode,
    pixel_bytes=4 * 128 * 4,
    frames_at_once=16,
    negative=negative,
    prepare=prepare,
    channels_last=True,
)
