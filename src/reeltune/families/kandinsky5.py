"""Kandinsky 5 Video, Lite and Pro (github.com/kandinskylab/kandinsky-5), whose names are the same in diffusers.

The header doesn't tell text-to-video from image-to-video, nor a model for 5 seconds from one for 10.
"""

from __future__ import annotations

import re
from dataclasses import replace
from types import MappingProxyType

from reeltune.families.base import (
    RIFLEX,
    SKIPPED_LAYERS,
    START_IMAGE,
    WEIGHT_FILES,
    ZERO_STAR,
    Architecture,
    Component,
    Config,
    Family,
    Shapes,
    Signature,
    block_counts,
    frozen,
    refused_groups,
    rotary_axes,
)
from reeltune.families.components import CLIP_TEXT, HUNYUAN_VAE, QWEN
from reeltune.families.components.qwen import TOKENIZER_FOLDERS
from reeltune.families.shared import IMAGE_DEFAULTS, TEXT_DEFAULTS, USED_BY_ALL, same_names

_TEXT, _VIDEO = "text_transformer_blocks.{}", "visual_transformer_blocks.{}"
_PATCH = (1, 2, 2)  # of all models: frames, height and width of what becomes a token
_ATTENTIONS = (f"{_TEXT}.self_attention", f"{_VIDEO}.self_attention", f"{_VIDEO}.cross_attention")

QUANTIZABLE = (
    *(f"{name}.{layer}" for name in _ATTENTIONS for layer in ("to_query", "to_key", "to_value", "out_layer")),
    *(f"{block}.feed_forward.{layer}" for block in (_TEXT, _VIDEO) for layer in ("in_layer", "out_layer")),
)
RENAMES = same_names(
    *(f"time_embeddings.{layer}" for layer in ("in_layer", "out_layer")),
    *(f"{kind}_embeddings.{layer}" for kind in ("text", "pooled_text") for layer in ("in_layer", "norm")),
    "visual_embeddings.in_layer",
    f"{_TEXT}.text_modulation.out_layer",
    f"{_VIDEO}.visual_modulation.out_layer",
    *(f"{name}.{norm}" for name in _ATTENTIONS for norm in ("query_norm", "key_norm")),
    *QUANTIZABLE,
    "out_layer.modulation.out_layer",
    "out_layer.out_layer",
)

_NUMBERED = re.compile(r"(text|visual)_transformer_blocks\.(\d{1,9})\.")


def derive_config(shapes: Shapes, stored: Config) -> Config:
    """The config of `Kandinsky5Transformer3DModel`, from names and shapes.

    Of the `stored` config only the axes of the rotary embedding are used; without them a head is split in the
    proportions of the release: 16 of 64 for time, 24 each for height and width. A model with twice the channels of a
    latent plus one (the mask) takes a start image. Raises KeyError if a required shape is missing, and ValueError if a
    forged block number exceeds the tensor count.
    """
    features = _PATCH[0] * _PATCH[1] * _PATCH[2]
    model_dim, inputs = shapes["visual_embeddings.in_layer.weight"]
    channels, out_channels = inputs // features, shapes["out_layer.out_layer.weight"][0] // features
    layers = block_counts(shapes, _NUMBERED)
    visual_cond = channels == 2 * out_channels + 1
    head = shapes["visual_transformer_blocks.0.self_attention.query_norm.weight"][0]
    usual_axes = (head // 4, head * 3 // 8, head * 3 // 8)
    return {
        "in_visual_dim": out_channels if visual_cond else channels,
        "out_visual_dim": out_channels,
        "in_text_dim": shapes["text_embeddings.in_layer.weight"][1],
        "in_text_dim2": shapes["pooled_text_embeddings.in_layer.weight"][1],
        "time_dim": shapes["time_embeddings.in_layer.weight"][0],
        "patch_size": _PATCH,
        "model_dim": model_dim,
        "ff_dim": shapes["visual_transformer_blocks.0.feed_forward.in_layer.weight"][0],
        "num_text_blocks": layers["text"],
        "num_visual_blocks": layers["visual"],
        "axes_dims": rotary_axes(stored.get("axes_dims"), head, usual_axes),
        "visual_cond": visual_cond,
    }


_CLIP_FOLDERS = ("clip_vit_large_patch14",)
_CLIP_TOKENIZER_FOLDERS = (*_CLIP_FOLDERS, "comfy/sd1_tokenizer")

KANDINSKY_5 = Family(
    name="kandinsky_5",
    label="Kandinsky 5",
    markers=("visual_transformer_blocks.0.cross_attention.query_norm.weight",),
    renames=RENAMES,
    quantizable=QUANTIZABLE,
    derive_config=derive_config,
    transformer_class="Kandinsky5Transformer3DModel",
    components=(
        Component("tokenizer", "transformers", "AutoTokenizer", ("*.json",), TOKENIZER_FOLDERS),
        Component(
            "text_encoder", "transformers", "Qwen2_5_VLTextModel", WEIGHT_FILES, kind=QWEN.name, feeds="in_text_dim"
        ),
        Component("tokenizer_2", "transformers", "AutoTokenizer", ("*.json", "*.txt"), _CLIP_TOKENIZER_FOLDERS),
        Component(
            "text_encoder_2",
            "transformers",
            "CLIPTextModel",
            WEIGHT_FILES,
            _CLIP_FOLDERS,
            kind=CLIP_TEXT.name,
            feeds="in_text_dim2",
        ),
        Component(
            "vae",
            "diffusers",
            "AutoencoderKLHunyuanVideo",
            WEIGHT_FILES,
            kind=HUNYUAN_VAE.name,
            feeds="out_visual_dim",
        ),
    ),
    solvers=("euler",),
    fps=24,
    frame_step=4,
    size_step=16,
    max_text_tokens=512,
    trained_frames=241,
    position_table=128,
    sized_by=("visual_embeddings.in_layer.weight",),
    own_timesteps=True,
)

_DEFAULTS = {
    **TEXT_DEFAULTS,
    "resolution": "768x512",
    "guidance_scale": 5.0,
    "flow_shift": 10.0,
}
_EXTRA = (*USED_BY_ALL, *ZERO_STAR)
_REFUSED = frozen(
    **refused_groups((RIFLEX,), "its models for 10 seconds make long videos without it"),
    **refused_groups((SKIPPED_LAYERS,), "it isn't known which of its blocks may be left out"),
)


def _architecture(id: str, dim: int, *, image: bool = False) -> Architecture:
    defaults = _DEFAULTS | (dict(IMAGE_DEFAULTS) if image else {})
    inputs = (replace(START_IMAGE, required=True),) if image else ()
    return Architecture(
        id=id,
        loras=id,
        family=KANDINSKY_5,
        signature=Signature(frozen(out_visual_dim=16, visual_cond=True), dim),
        data_types=("bf16",),
        settings=frozenset({*defaults, *_EXTRA, *(model_input.key for model_input in inputs)}),
        defaults=MappingProxyType(defaults),
        components_repo="kandinskylab/Kandinsky-5.0-T2V-Lite-sft-5s-Diffusers",  # all models have the same
        pipeline="Kandinsky5I2VPipeline" if image else "Kandinsky5T2VPipeline",
        profiles=id,
        inputs=inputs,
        refused=_REFUSED,
    )


ARCHITECTURES = (
    _architecture("k5_lite_t2v", 1792),
    _architecture("k5_lite_i2v", 1792, image=True),
    _architecture("k5_pro_t2v", 4096),
    _architecture("k5_pro_i2v", 4096, image=True),
)
