"""The config of Wan's transformers, from the names and shapes of their tensors."""

from __future__ import annotations

import re
from typing import Any

from reeltune.families import wan_animate
from reeltune.families.base import MAX_HEAD_SIZE, Config, Shapes

_MAX_POSITIONS = 65_536  # accepted from a file's metadata, because the table is allocated; published models have 1,024
SKYREELS = "SkyReelsV2Transformer3DModel"
HEAD_SIZE = 128  # of all published Wan models; other sizes need a config in the file's metadata


_BLOCK = re.compile(r"blocks\.(\d{1,9})\.")
_VACE_BLOCK = re.compile(r"vace_blocks\.(\d{1,9})\.")


def derive_config(shapes: Shapes, stored: Config) -> Config:
    """The config of `WanTransformer3DModel`, from original names and shapes.

    Of the `stored` config (from the file's metadata, {} if it has none) only values that don't follow from the shapes
    are used: the number of heads, `eps` and the length of the position table, by their names in diffusers or in the
    original. Raises KeyError if a required shape is missing, as in a module file, which contains only `vace_*`.
    """
    dim, in_channels, *patch = shapes["patch_embedding.weight"]
    patch_volume = patch[0] * patch[1] * patch[2]
    heads = _heads(dim, stored)
    config: dict[str, Any] = {
        "patch_size": tuple(patch),
        "num_attention_heads": heads,
        "attention_head_dim": dim // heads,
        "in_channels": in_channels,
        "out_channels": shapes["head.head.weight"][0] // patch_volume,
        "text_dim": shapes["text_embedding.0.weight"][1],
        "freq_dim": shapes["time_embedding.0.weight"][1],
        "ffn_dim": shapes["blocks.0.ffn.0.weight"][0],
        "num_layers": _layers(shapes),
        "cross_attn_norm": "blocks.0.norm3.weight" in shapes,
    }
    if "img_emb.proj.1.weight" in shapes:
        config["image_dim"] = shapes["img_emb.proj.1.weight"][1]
        config["added_kv_proj_dim"] = dim
    if "img_emb.emb_pos" in shapes:
        config["pos_embed_seq_len"] = shapes["img_emb.emb_pos"][1]
    if "vace_patch_embedding.weight" in shapes:
        config["_class_name"] = "WanVACETransformer3DModel"
        config["vace_in_channels"] = shapes["vace_patch_embedding.weight"][1]
        config["vace_layers"] = _vace_layers(shapes, stored, config["num_layers"])
    if "fps_embedding.weight" in shapes:
        config["_class_name"] = SKYREELS
        config["inject_sample_info"] = True
    if wan_animate.POSE in shapes:
        config |= wan_animate.derive_config(shapes, config["num_layers"])
    eps = stored.get("eps")
    if type(eps) is float and 0 < eps < 1:
        config["eps"] = eps
    positions = stored.get("rope_max_seq_len")
    if type(positions) is int and 0 < positions <= _MAX_POSITIONS:
        config["rope_max_seq_len"] = positions
    return config


def _layers(shapes: Shapes, block: re.Pattern[str] = _BLOCK) -> int:
    """The number of blocks. Raises ValueError if there are none, or if a forged number exceeds the tensor count."""
    matches = [block.match(name) for name in shapes]
    layers = 1 + max(int(match[1]) for match in matches if match)
    if layers > len(shapes):
        raise ValueError(f"{layers} blocks in {len(shapes)} tensors")
    return layers


def _vace_layers(shapes: Shapes, stored: Config, layers: int) -> list[int]:
    """The blocks that VACE's blocks add to: those in the file's config, else evenly spaced (8 of 40, 15 of 30).

    Raises ValueError if they can't be evenly spaced.
    """
    count = _layers(shapes, _VACE_BLOCK)
    stored_layers = _integers(stored.get("vace_layers"))
    if len(stored_layers) == count:
        return stored_layers
    if layers % count:
        raise ValueError(f"{count} VACE blocks can't be evenly spaced over {layers} blocks")
    return list(range(0, layers, layers // count))


def _integers(value: object) -> list[int]:
    """The items of a list of integers; empty for any other value."""
    if isinstance(value, list | tuple) and all(type(item) is int for item in value):
        return list(value)
    return []


def _heads(dim: int, stored: Config) -> int:
    heads = stored.get("num_attention_heads") or stored.get("num_heads")
    if type(heads) is int and heads > 0 and dim % heads == 0 and dim // heads <= MAX_HEAD_SIZE:
        return heads
    return max(1, dim // HEAD_SIZE)
