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
from reeltune.families.components.qwen import QWEN
from reeltune.families.components.text import (
    BYT5,
    CLIP_TEXT,
    GEMMA_3,
    LLAMA,
    LLAVA,
    LLAVA_VISION,
    SENTENCEPIECE,
    T5,
    UMT5,
)
from reeltune.families.components.vae import HUNYUAN_VAE, LTX_UPSAMPLER, LTX_VAE, WAN22_VAE, WAN_VAE
from reeltune.families.components.vae_hunyuan15 import HUNYUAN15_VAE
from reeltune.families.components.vision import CLIP_VISION, SIGLIP_VISION

KINDS: Mapping[str, ComponentKind] = MappingProxyType(
    {
        kind.name: kind
        for kind in (
            UMT5, T5, BYT5, LLAMA, LLAVA, LLAVA_VISION, QWEN, GEMMA_3, CLIP_TEXT, CLIP_VISION, SIGLIP_VISION, WAN_VAE,
            WAN22_VAE, HUNYUAN_VAE, HUNYUAN15_VAE, LTX_VAE, LTX_UPSAMPLER, SENTENCEPIECE, *_LTX2_KINDS,
        )
    }
)  # fmt: skip

__all__ = [
    "BYT5",
    "CLIP_TEXT",
    "CLIP_VISION",
    "GEMMA_3",
    "HUNYUAN15_VAE",
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
    "QWEN",
    "SENTENCEPIECE",
    "SIGLIP_VISION",
    "T5",
    "UMT5",
    "WAN22_VAE",
    "WAN_VAE",
    "ComponentKind",
    "Layout",
    "NameRule",
]
