"""Components in single files, as WanGP and ComfyUI store them: one declaration for each kind of model."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from reeltune.families.components.base import ComponentKind, Layout, NameRule
from reeltune.families.components.ltx2 import KINDS as _LTX2_KINDS
from reeltune.families.components.ltx2 import (
    LTX2_AUDIO_VAE,
    LTX2_CONNECTORS,
    LTX2_EMBEDDINGS,
    LTX2_PROJECTION,
    LTX2_UPSAMPLER,
    LTX2_VAE,
    LTX2_VOCODER,
    LTX2_WIDE_VOCODER,
)
from reeltune.families.components.text import CLIP_TEXT, GEMMA_3, LLAMA, LLAVA, LLAVA_VISION, SENTENCEPIECE, T5, UMT5
from reeltune.families.components.vae import HUNYUAN_VAE, LTX_UPSAMPLER, LTX_VAE, WAN22_VAE, WAN_VAE
from reeltune.families.components.vision import CLIP_VISION

KINDS: Mapping[str, ComponentKind] = MappingProxyType(
    {
        kind.name: kind
        for kind in (
            UMT5, T5, LLAMA, LLAVA, LLAVA_VISION, CLIP_TEXT, CLIP_VISION, WAN_VAE, WAN22_VAE, HUNYUAN_VAE, LTX_VAE,
            LTX_UPSAMPLER, SENTENCEPIECE, GEMMA_3, *_LTX2_KINDS,
        )
    }
)  # fmt: skip

__all__ = [
    "CLIP_TEXT",
    "CLIP_VISION",
    "GEMMA_3",
    "HUNYUAN_VAE",
    "KINDS",
    "LLAMA",
    "LLAVA",
    "LLAVA_VISION",
    "LTX2_AUDIO_VAE",
    "LTX2_CONNECTORS",
    "LTX2_EMBEDDINGS",
    "LTX2_PROJECTION",
    "LTX2_UPSAMPLER",
    "LTX2_VAE",
    "LTX2_VOCODER",
    "LTX2_WIDE_VOCODER",
    "LTX_UPSAMPLER",
    "LTX_VAE",
    "SENTENCEPIECE",
    "T5",
    "UMT5",
    "WAN22_VAE",
    "WAN_VAE",
    "ComponentKind",
    "Layout",
    "NameRule",
]
