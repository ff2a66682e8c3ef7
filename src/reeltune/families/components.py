"""Component files in a WanGP `ckpts` folder: their layouts, and the configs that follow from their shapes.

The configs are those of the published models, with all sizes taken from the shapes, so that models of other sizes load
too.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from reeltune.families.base import Config, Rename, Shapes

UMT5, T5, OPEN_CLIP, WAN_VAE, HUNYUAN_VAE = "umt5", "t5", "open_clip", "wan_vae", "hunyuan_vae"
LATENT_UPSAMPLER = "latent_upsampler"
_CLIP_HEAD_SIZE = 80  # of ViT-H/14: 1280 in 16 heads


@dataclass(frozen=True)
class Layout:
    """The layout of a component's file.

    `derive_config`: computes the config of the component's class from the shapes by the class's own names, and from the
    config stored in the file where the shapes don't determine it. `renames`: the file's names and the class's; empty
    if they are equal. `ignored`: prefixes of names that aren't needed. `prefix`: an optional prefix of all names.
    `aliases`: alternative names of a tensor, used if its first name is missing.
    """

    derive_config: Callable[[Shapes, Config], Config]
    renames: tuple[Rename, ...] = ()
    ignored: tuple[str, ...] = ()
    prefix: str = ""
    aliases: Mapping[str, str] = field(default_factory=dict, hash=False)


def _count(shapes: Shapes, pattern: str) -> int:
    """The number of blocks. Raises ValueError if there are none, or if a forged number exceeds the tensor count."""
    matches = [re.match(pattern, name) for name in shapes]
    blocks = 1 + max(int(match[1]) for match in matches if match)
    if blocks > len(shapes):
        raise ValueError(f"{blocks} blocks in {len(shapes)} tensors")
    return blocks


def t5_config(shapes: Shapes, stored: Config) -> Config:
    """The config of T5's encoder (v1.1 and UMT5)."""
    first = "encoder.block.0.layer"
    buckets, heads = shapes[f"{first}.0.SelfAttention.relative_attention_bias.weight"]
    vocabulary, width = shapes["shared.weight"]
    return {
        "vocab_size": vocabulary,
        "d_model": width,
        "d_kv": shapes[f"{first}.0.SelfAttention.q.weight"][0] // heads,
        "d_ff": shapes[f"{first}.1.DenseReluDense.wi_0.weight"][0],
        "num_layers": _count(shapes, r"encoder\.block\.(\d{1,9})\."),
        "num_heads": heads,
        "relative_attention_num_buckets": buckets,
        "feed_forward_proj": "gated-gelu",
    }


def clip_vision_config(shapes: Shapes, stored: Config) -> Config:
    """The config of CLIP's vision model as trained by open-clip."""
    width = shapes["embeddings.class_embedding"][-1]
    patch = shapes["embeddings.patch_embedding.weight"][-1]
    positions = shapes["embeddings.position_embedding.weight"]
    return {
        "hidden_size": width,
        "intermediate_size": shapes["encoder.layers.0.mlp.fc1.weight"][0],
        "num_hidden_layers": _count(shapes, r"encoder\.layers\.(\d{1,9})\."),
        "num_attention_heads": _heads(width, stored),
        "image_size": math.isqrt(positions[-2] - 1) * patch,
        "patch_size": patch,
        "hidden_act": "gelu",
    }


def _heads(width: int, stored: Config) -> int:
    heads = stored.get("num_attention_heads") or stored.get("num_heads")
    if type(heads) is int and heads > 0 and width % heads == 0:
        return heads
    return max(1, width // _CLIP_HEAD_SIZE)


def wan_vae_config(shapes: Shapes, stored: Config) -> Config:
    """The config of Wan 2.1's VAE; everything except the widths is diffusers' default."""
    return {"base_dim": shapes["encoder.conv_in.weight"][0], "z_dim": shapes["post_quant_conv.weight"][0]}


def hunyuan_vae_config(shapes: Shapes, stored: Config) -> Config:
    """The config of Hunyuan Video's VAE; everything except the widths is diffusers' default."""
    blocks = range(_count(shapes, r"encoder\.down_blocks\.(\d{1,9})\."))
    return {
        "latent_channels": shapes["post_quant_conv.weight"][0],
        "block_out_channels": tuple(
            shapes[f"encoder.down_blocks.{block}.resnets.0.conv1.conv.weight"][0] for block in blocks
        ),
    }


def latent_upsampler_config(shapes: Shapes, stored: Config) -> Config:
    """The config of LTX Video's latent upsampler, which doubles width and height."""
    weight = shapes["initial_conv.weight"]  # [width, channels, 3, 3] or [width, channels, 3, 3, 3]
    return {
        "in_channels": weight[1],
        "mid_channels": weight[0],
        "num_blocks_per_stage": _count(shapes, r"res_blocks\.(\d{1,9})\."),
        "dims": len(weight) - 2,
    }


_T5_BLOCK = "encoder.block.{}.layer"
_UMT5_RENAMES = (
    Rename("token_embedding", "shared"),
    Rename("blocks.{}.norm1", f"{_T5_BLOCK}.0.layer_norm"),
    *(Rename(f"blocks.{{}}.attn.{name}", f"{_T5_BLOCK}.0.SelfAttention.{name}") for name in "qkvo"),
    Rename("blocks.{}.pos_embedding.embedding", f"{_T5_BLOCK}.0.SelfAttention.relative_attention_bias"),
    Rename("blocks.{}.norm2", f"{_T5_BLOCK}.1.layer_norm"),
    Rename("blocks.{}.ffn.gate.0", f"{_T5_BLOCK}.1.DenseReluDense.wi_0"),
    Rename("blocks.{}.ffn.fc1", f"{_T5_BLOCK}.1.DenseReluDense.wi_1"),
    Rename("blocks.{}.ffn.fc2", f"{_T5_BLOCK}.1.DenseReluDense.wo"),
    Rename("norm", "encoder.final_layer_norm"),
)

_OPEN, _LAYER = "visual.transformer.{}", "encoder.layers.{}"
_OPEN_CLIP_RENAMES = (
    Rename("visual.cls_embedding", "embeddings.class_embedding"),
    Rename("visual.patch_embedding", "embeddings.patch_embedding"),
    Rename("visual.pos_embedding", "embeddings.position_embedding.weight"),
    Rename("visual.pre_norm", "pre_layrnorm"),
    Rename(f"{_OPEN}.norm1", f"{_LAYER}.layer_norm1"),
    Rename(
        f"{_OPEN}.attn.to_qkv",
        f"{_LAYER}.self_attn.q_proj",
        (f"{_LAYER}.self_attn.k_proj", f"{_LAYER}.self_attn.v_proj"),
    ),
    Rename(f"{_OPEN}.attn.proj", f"{_LAYER}.self_attn.out_proj"),
    Rename(f"{_OPEN}.norm2", f"{_LAYER}.layer_norm2"),
    Rename(f"{_OPEN}.mlp.0", f"{_LAYER}.mlp.fc1"),
    Rename(f"{_OPEN}.mlp.2", f"{_LAYER}.mlp.fc2"),
    Rename("visual.post_norm", "post_layernorm"),
)

LAYOUTS: Mapping[str, Layout] = MappingProxyType(
    {
        UMT5: Layout(t5_config, _UMT5_RENAMES),
        T5: Layout(
            t5_config,
            ignored=("decoder.", "lm_head."),
            aliases=MappingProxyType({"encoder.embed_tokens.weight": "shared.weight"}),
        ),
        OPEN_CLIP: Layout(clip_vision_config, _OPEN_CLIP_RENAMES, ignored=("textual.", "visual.head", "log_scale")),
        WAN_VAE: Layout(wan_vae_config),
        HUNYUAN_VAE: Layout(hunyuan_vae_config, prefix="vae."),
        LATENT_UPSAMPLER: Layout(latent_upsampler_config),
    }
)
