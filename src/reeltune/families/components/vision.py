"""Image encoders: CLIP's vision model as trained by open-clip, and SigLIP's."""

from __future__ import annotations

import math

from reeltune.families.base import Config, Shapes, frozen
from reeltune.families.components.base import ComponentKind, Layout, count, heads, nested, rule

_HEAD_SIZE = 80  # of ViT-H/14: 1280 in 16 heads


def clip_vision_sizes(shapes: Shapes, stored: Config, head_size: int) -> Config:
    """The sizes of CLIP's vision model, from the shapes by transformers' names."""
    width = shapes["embeddings.class_embedding"][-1]
    patch = shapes["embeddings.patch_embedding.weight"][-1]
    positions = shapes["embeddings.position_embedding.weight"]
    return {
        "hidden_size": width,
        "intermediate_size": shapes["encoder.layers.0.mlp.fc1.weight"][0],
        "num_hidden_layers": count(shapes, r"encoder\.layers\.(\d{1,9})\."),
        "num_attention_heads": heads(width, head_size, stored, "num_attention_heads", "num_heads"),
        "image_size": math.isqrt(positions[-2] - 1) * patch,
        "patch_size": patch,
    }


def clip_vision_config(shapes: Shapes, stored: Config) -> Config:
    """The config of CLIP's vision model as trained by open-clip."""
    return {**clip_vision_sizes(shapes, stored, _HEAD_SIZE), "hidden_act": "gelu"}


_LAYER = r"encoder.layers.\1"
_OPEN = r"visual\.transformer\.(\d+)"
_OPEN_CLIP_RULES = (
    rule(r"visual\.cls_embedding", "embeddings.class_embedding"),
    rule(r"visual\.patch_embedding\.(.+)", r"embeddings.patch_embedding.\1"),
    rule(r"visual\.pos_embedding", "embeddings.position_embedding.weight"),
    rule(r"visual\.pre_norm\.(.+)", r"pre_layrnorm.\1"),
    rule(r"visual\.post_norm\.(.+)", r"post_layernorm.\1"),
    rule(rf"{_OPEN}\.norm([12])\.(.+)", rf"{_LAYER}.layer_norm\2.\3"),
    rule(rf"{_OPEN}\.attn\.to_qkv\.(.+)", *(rf"{_LAYER}.self_attn.{letter}_proj.\2" for letter in "qkv")),
    rule(rf"{_OPEN}\.attn\.proj\.(.+)", rf"{_LAYER}.self_attn.out_proj.\2"),
    rule(rf"{_OPEN}\.mlp\.0\.(.+)", rf"{_LAYER}.mlp.fc1.\2"),
    rule(rf"{_OPEN}\.mlp\.2\.(.+)", rf"{_LAYER}.mlp.fc2.\2"),
)

CLIP_VISION = ComponentKind(
    name="clip_vision",
    label="CLIP ViT-H image encoder",
    layouts=(
        Layout(
            "original",
            "visual.cls_embedding",
            _OPEN_CLIP_RULES,
            ignored=("textual.", "visual.head", "log_scale"),
        ),
        Layout(
            "transformers",
            "embeddings.class_embedding",
            (rule(r"(?:embeddings|encoder|pre_layrnorm|post_layernorm)\..+"),),
            has=("pre_layrnorm.weight",),
            lacks=("*multi_modal_projector.linear_1.bias",),
            ignored=("embeddings.position_ids", "visual_projection"),
        ),
    ),
    derive_config=clip_vision_config,
    published=frozen(hidden_size=1280, num_hidden_layers=32, image_size=224, patch_size=14),
    size="hidden_size",
    blocks=r"encoder\.layers\.(\d+)\.(.+)",
    files=(
        "models_clip_open-clip-xlm-roberta-large-vit-huge-14-bf16.safetensors",
        "clip_vision_h.safetensors",
        "CLIP-ViT-H-14-laion2B-s32B-b79K.safetensors",
    ),
)  # fmt: skip


# --- SigLIP -----------------------------------------------------------------------------------------------------

_SIGLIP_HEAD_SIZE = 72  # of so400m: 1152 in 16 heads
_SIGLIP_SIDES = {(27, 14): 384}  # pixels of an image, by the patches in a row and their side: 6 pixels are cut off


def siglip_vision_config(shapes: Shapes, stored: Config) -> Config:
    """The config of SigLIP's vision model."""
    width, *_, patch = shapes["embeddings.patch_embedding.weight"]
    row = math.isqrt(shapes["embeddings.position_embedding.weight"][-2])
    own = nested(stored, "vision_config") or stored
    return {
        "hidden_size": width,
        "intermediate_size": shapes["encoder.layers.0.mlp.fc1.weight"][0],
        "num_hidden_layers": count(shapes, r"encoder\.layers\.(\d{1,9})\."),
        "num_attention_heads": heads(width, _SIGLIP_HEAD_SIZE, own, "num_attention_heads"),
        "image_size": _SIGLIP_SIDES.get((row, patch), row * patch),
        "patch_size": patch,
    }


SIGLIP_VISION = ComponentKind(
    name="siglip_vision",
    label="SigLIP so400m image encoder",
    layouts=(
        Layout(
            "transformers",
            "embeddings.patch_embedding.bias",
            (rule(r"(?:embeddings|encoder|post_layernorm|head)\..+"),),
            has=("head.probe",),
            ignored=("embeddings.position_ids",),
            told_by_name=True,  # SigLIP 2 has the same names and sizes
        ),
    ),
    derive_config=siglip_vision_config,
    published=frozen(hidden_size=1152, num_hidden_layers=27, image_size=384, patch_size=14),
    size="hidden_size",
    blocks=r"encoder\.layers\.(\d+)\.(.+)",
    files=("sigclip_vision_patch14_384.safetensors", "siglip_vision_model/model.safetensors"),
)
