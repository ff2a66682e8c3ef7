"""Components in single files, as WanGP and ComfyUI store them: one declaration for each kind of model."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from reeltune.families.components.base import ComponentKind, Layout, NameRule
from reeltune.families.components.text import CLIP_TEXT, LLAMA, LLAVA, LLAVA_VISION, SENTENCEPIECE, T5, UMT5
from reeltune.families.components.vae import HUNYUAN_VAE, LTX_UPSAMPLER, LTX_VAE, WAN22_VAE, WAN_VAE
from reeltune.families.components.vision import CLIP_VISION

KINDS: Mapping[str, ComponentKind] = MappingProxyType(
    {
        kind.name: kind
        for kind in (
            UMT5, T5, LLAMA, LLAVA, LLAVA_VISION, CLIP_TEXT, CLIP_VISION, WAN_VAE, WAN22_VAE, HUNYUAN_VAE, LTX_VAE,
            LTX_UPSAMPLER, SENTENCEPIECE,
        )
    }
)  # fmt: skip

__all__ = [
    "CLIP_TEXT",
    "CLIP_VISION",
    "HUNYUAN_VAE",
    "KINDS",
    "LLAMA",
    "LLAVA",
    "LLAVA_VISION",
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
