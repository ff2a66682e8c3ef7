"""The interface of a family's runtime: what a declaration can't say.

Tensors: embeddings [1, tokens, features]; latents [1, channels, frames', height', width']; pixels [1, 3, frames,
height, width] in -1..1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import torch

from reeltune.engine.inputs import InputImages
from reeltune.families.base import Config
from reeltune.request.values import Pass, Request

Tensors = dict[str, torch.Tensor | None]
Arguments = dict[str, Any]  # of the call of a pipeline
Change = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Latents:
    """Latents of a video, and those of its sound; None for silent videos."""

    video: torch.Tensor
    sound: torch.Tensor | None = None


@dataclass(frozen=True)
class TemporalAxis:
    """The temporal axis of a rotary embedding: its `size` in features, the `base` of its frequencies, and how many
    latent frames one of its positions stands for.
    """

    size: int
    base: float
    patch: int


def as_they_are(hidden_states: torch.Tensor) -> torch.Tensor:
    """For passes that are shown what the pipeline hands over."""
    return hidden_states


@dataclass(frozen=True)
class Conditions:
    """What the passes of a step are shown beside their prompts, where it isn't what the pipeline hands over.

    Each is a function of the hidden states [1, channels, frames', height', width'] that the pipeline hands over.
    `prompted`, `unprompted`: for the passes with and without the prompt. `bare`: for a third pass, without the prompt
    and without the condition; None if there is none. `scale`: the guidance from that pass towards the one without the
    prompt.
    """

    prompted: Change = as_they_are
    unprompted: Change = as_they_are
    bare: Change | None = None
    scale: float = 1.0


def unchanged(pipeline: Any, request: Request) -> None:
    """For families whose pipelines are used as they are."""


def no_extra_frames(config: Config) -> int:
    """For families whose models make just the frames that are shown."""
    return 0


@dataclass(frozen=True)
class FamilyRuntime:
    """What a family does in its own way.

    `encode(pipeline, request, images, config, tokens, device)`: the embeddings that the pipeline's call takes.
    `arguments(request, images, config)`: its other arguments. `decode(vae, latents, request)`: pixels. `pixel_bytes`:
    bytes that the VAE needs for one pixel of a frame in fp32 (its widest layers, a few of them at once), for
    `frames_at_once` frames (0: for all). `temporal_axis(rope)`: the temporal axis of the transformer's rotary
    embedding, None for families that RIFLEx can't lengthen. `negative(embeddings)`: removes the embeddings of the
    negative prompt and returns the arguments of the transformer that they are; None for families whose pipeline makes
    both passes in one. `extra_frames(config)`: frames that the model makes before the first that is shown.
    `perturbed(model, blocks)`: a context in which the self-attention of blocks does nothing, and which tells whether
    the model has any of them; None for families without that guidance. `unconditional(options)`: further arguments of
    the transformer that differ in the pass without the prompt, given those of the pass with it. `decodes_windows`:
    whether the pipeline decodes each window itself, because the next one begins with its frames; their latents are
    stored one window after the other. `prepare(pipeline, request)`: sets up a pipeline before its call. `stand_ins`:
    what stands for parts that a pipeline reads when it is built, where they aren't loaded. `channels_last`: whether the
    pipeline holds latents as [1, frames', height', width', channels], before the channels of conditions.
    `conditions(pipeline, request, images, before)`: what the passes are shown, given the latents of the window before;
    None for families whose pipelines do it. `references_last`: whether the latents of reference images come after those
    of the video. `continues`: whether each window takes a call of the pipeline; decoding is as for `decodes_windows`.

    `pass_arguments(scale, latents)`: arguments of the pipeline's call for a pass of several, which starts from latents,
    or from noise; `upsampling`: the pipeline that enlarges them, and arguments of its call. `guides`: whether the
    pipeline guides; the stand-in for the transformer only makes passes then. `as_decoded(latents, vae, request)`: the
    latents that the pipeline holds after a step, as the VAE takes them. `sound`: the components that make sound of
    latents, with a function of component and values, one after the other; the last one's config has the sampling rate.
    """

    encode: Callable[[Any, Request, InputImages, Config, int, torch.device], Tensors]
    arguments: Callable[[Request, InputImages, Config], Arguments]
    decode: Callable[[Any, torch.Tensor, Request], torch.Tensor]
    pixel_bytes: int
    frames_at_once: int
    temporal_axis: Callable[[Any], TemporalAxis] | None = None
    negative: Callable[[Tensors], Tensors] | None = None
    extra_frames: Callable[[Config], int] = no_extra_frames
    perturbed: Callable[[Any, Sequence[int]], AbstractContextManager[bool]] | None = None
    unconditional: Callable[[Arguments], Arguments] | None = None
    decodes_windows: bool = False
    prepare: Callable[[Any, Request], None] = unchanged
    stand_ins: Mapping[str, object] = field(default_factory=dict)
    channels_last: bool = False
    conditions: Callable[[Any, Request, InputImages, torch.Tensor | None], Conditions] | None = None
    references_last: bool = False
    continues: bool = False
    pass_arguments: Callable[[Pass, Latents | None], Arguments] | None = None
    upsampling: tuple[str, Config] = ("", MappingProxyType({}))
    guides: bool = False
    as_decoded: Callable[[torch.Tensor, Any, Request], torch.Tensor] | None = None
    sound: tuple[tuple[str, Callable[[Any, torch.Tensor], torch.Tensor]], ...] = ()
