"""Hunyuan Video, with the names of the original release (github.com/Tencent-Hunyuan/HunyuanVideo) and of diffusers."""

from __future__ import annotations

import re
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from reeltune.families.base import (
    RIFLEX,
    SKIPPED_LAYERS,
    START_IMAGE,
    WEIGHT_FILES,
    ZERO_STAR,
    Architecture,
    Component,
    ComponentPart,
    Config,
    Family,
    Input,
    Rename,
    Shapes,
    Signature,
    block_counts,
    frozen,
    refused_groups,
    rotary_axes,
)
from reeltune.families.components import CLIP_TEXT, HUNYUAN_VAE, LLAMA, LLAVA, LLAVA_VISION
from reeltune.families.shared import IMAGE_DEFAULTS, TEXT_DEFAULTS, USED_BY_ALL

_DOUBLE, _TO_DOUBLE = "double_blocks.{}", "transformer_blocks.{}"
_SINGLE, _TO_SINGLE = "single_blocks.{}", "single_transformer_blocks.{}"
_REFINER = "txt_in.individual_token_refiner.blocks.{}"
_TO_REFINER = "context_embedder.token_refiner.refiner_blocks.{}"


def _stacked(original: str, first: str, *more: str) -> Rename:
    return Rename(original, first, more)


RENAMES = (
    Rename("img_in.proj", "x_embedder.proj"),
    Rename("time_in.mlp.0", "time_text_embed.timestep_embedder.linear_1"),
    Rename("time_in.mlp.2", "time_text_embed.timestep_embedder.linear_2"),
    Rename("guidance_in.mlp.0", "time_text_embed.guidance_embedder.linear_1"),
    Rename("guidance_in.mlp.2", "time_text_embed.guidance_embedder.linear_2"),
    Rename("vector_in.in_layer", "time_text_embed.text_embedder.linear_1"),
    Rename("vector_in.out_layer", "time_text_embed.text_embedder.linear_2"),
    Rename("txt_in.input_embedder", "context_embedder.proj_in"),
    Rename("txt_in.t_embedder.mlp.0", "context_embedder.time_text_embed.timestep_embedder.linear_1"),
    Rename("txt_in.t_embedder.mlp.2", "context_embedder.time_text_embed.timestep_embedder.linear_2"),
    Rename("txt_in.c_embedder.linear_1", "context_embedder.time_text_embed.text_embedder.linear_1"),
    Rename("txt_in.c_embedder.linear_2", "context_embedder.time_text_embed.text_embedder.linear_2"),
    _stacked(f"{_REFINER}.self_attn_qkv", *(f"{_TO_REFINER}.attn.to_{letter}" for letter in "qkv")),
    Rename(f"{_REFINER}.self_attn_proj", f"{_TO_REFINER}.attn.to_out.0"),
    Rename(f"{_REFINER}.norm1", f"{_TO_REFINER}.norm1"),
    Rename(f"{_REFINER}.norm2", f"{_TO_REFINER}.norm2"),
    Rename(f"{_REFINER}.mlp.fc1", f"{_TO_REFINER}.ff.net.0.proj"),
    Rename(f"{_REFINER}.mlp.fc2", f"{_TO_REFINER}.ff.net.2"),
    Rename(f"{_REFINER}.adaLN_modulation.1", f"{_TO_REFINER}.norm_out.linear"),
    _stacked(f"{_DOUBLE}.img_attn_qkv", *(f"{_TO_DOUBLE}.attn.to_{letter}" for letter in "qkv")),
    _stacked(f"{_DOUBLE}.txt_attn_qkv", *(f"{_TO_DOUBLE}.attn.add_{letter}_proj" for letter in "qkv")),
    Rename(f"{_DOUBLE}.img_attn_q_norm", f"{_TO_DOUBLE}.attn.norm_q"),
    Rename(f"{_DOUBLE}.img_attn_k_norm", f"{_TO_DOUBLE}.attn.norm_k"),
    Rename(f"{_DOUBLE}.txt_attn_q_norm", f"{_TO_DOUBLE}.attn.norm_added_q"),
    Rename(f"{_DOUBLE}.txt_attn_k_norm", f"{_TO_DOUBLE}.attn.norm_added_k"),
    Rename(f"{_DOUBLE}.img_attn_proj", f"{_TO_DOUBLE}.attn.to_out.0"),
    Rename(f"{_DOUBLE}.txt_attn_proj", f"{_TO_DOUBLE}.attn.to_add_out"),
    Rename(f"{_DOUBLE}.img_mod.linear", f"{_TO_DOUBLE}.norm1.linear"),
    Rename(f"{_DOUBLE}.txt_mod.linear", f"{_TO_DOUBLE}.norm1_context.linear"),
    Rename(f"{_DOUBLE}.img_mlp.fc1", f"{_TO_DOUBLE}.ff.net.0.proj"),
    Rename(f"{_DOUBLE}.img_mlp.fc2", f"{_TO_DOUBLE}.ff.net.2"),
    Rename(f"{_DOUBLE}.txt_mlp.fc1", f"{_TO_DOUBLE}.ff_context.net.0.proj"),
    Rename(f"{_DOUBLE}.txt_mlp.fc2", f"{_TO_DOUBLE}.ff_context.net.2"),
    _stacked(f"{_SINGLE}.linear1", *(f"{_TO_SINGLE}.attn.to_{letter}" for letter in "qkv"), f"{_TO_SINGLE}.proj_mlp"),
    Rename(f"{_SINGLE}.linear2", f"{_TO_SINGLE}.proj_out"),
    Rename(f"{_SINGLE}.q_norm", f"{_TO_SINGLE}.attn.norm_q"),
    Rename(f"{_SINGLE}.k_norm", f"{_TO_SINGLE}.attn.norm_k"),
    Rename(f"{_SINGLE}.modulation.linear", f"{_TO_SINGLE}.norm.linear"),
    Rename("final_layer.adaLN_modulation.1", "norm_out.linear", swapped=True),  # shift, scale -> scale, shift
    Rename("final_layer.linear", "proj_out"),
)

_COMFYUI = {
    **{f"{_DOUBLE}.{stream}_mlp.{number}": f"{_DOUBLE}.{stream}_mlp.{layer}"
       for stream in ("img", "txt") for number, layer in (("0", "fc1"), ("2", "fc2"))},
    **{f"{_DOUBLE}.{stream}_mod.lin": f"{_DOUBLE}.{stream}_mod.linear" for stream in ("img", "txt")},
    **{f"{_DOUBLE}.{stream}_attn.{layer}": f"{_DOUBLE}.{stream}_attn_{layer}"
       for stream in ("img", "txt") for layer in ("qkv", "proj")},
    **{f"{_DOUBLE}.{stream}_attn.norm.{name}_norm": f"{_DOUBLE}.{stream}_attn_{letter}_norm"
       for stream in ("img", "txt") for name, letter in (("query", "q"), ("key", "k"))},
    **{f"{_SINGLE}.norm.{name}_norm": f"{_SINGLE}.{letter}_norm" for name, letter in (("query", "q"), ("key", "k"))},
    f"{_SINGLE}.modulation.lin": f"{_SINGLE}.modulation.linear",
    f"{_REFINER}.self_attn.qkv": f"{_REFINER}.self_attn_qkv",
    f"{_REFINER}.self_attn.proj": f"{_REFINER}.self_attn_proj",
    f"{_REFINER}.mlp.0": f"{_REFINER}.mlp.fc1",
    f"{_REFINER}.mlp.2": f"{_REFINER}.mlp.fc2",
    **{f"{part}.{layer}_layer": f"{part}.mlp.{number}"
       for part in ("time_in", "guidance_in", "txt_in.t_embedder") for layer, number in (("in", "0"), ("out", "2"))},
    **{f"txt_in.c_embedder.{layer}_layer": f"txt_in.c_embedder.linear_{number}"
       for layer, number in (("in", "1"), ("out", "2"))},
}  # fmt: skip

QUANTIZABLE = (
    *(f"{_DOUBLE}.{stream}_{layer}" for stream in ("img", "txt") for layer in ("attn_qkv", "attn_proj")),
    *(f"{_DOUBLE}.{stream}_mlp.{layer}" for stream in ("img", "txt") for layer in ("fc1", "fc2")),
    f"{_SINGLE}.linear1",
    f"{_SINGLE}.linear2",
)

_BLOCK = re.compile(r"(double_blocks|single_blocks|txt_in\.individual_token_refiner\.blocks)\.(\d{1,9})\.")


def derive_config(shapes: Shapes, stored: Config) -> Config:
    """The config of `HunyuanVideoTransformer3DModel`, from original names and shapes.

    Of the `stored` config only the axes of the rotary embedding are used; without them a head is split in the
    proportions of the release: 16 of 128 for time, 56 each for height and width. A model whose input has twice the
    channels of its output plus one (the mask) is the image-to-video variant that concatenates latents. Raises KeyError
    if a required shape is missing.
    """
    dim, in_channels, patch_t, patch, *_ = shapes["img_in.proj.weight"]
    head = shapes["double_blocks.0.img_attn_q_norm.weight"][0]
    usual_axes = (head // 8, head * 7 // 16, head * 7 // 16)
    layers = block_counts(shapes, _BLOCK)
    out_channels = shapes["final_layer.linear.weight"][0] // (patch * patch * patch_t)
    config: dict[str, Any] = {
        "in_channels": in_channels,
        "out_channels": out_channels,
        "num_attention_heads": dim // head,
        "attention_head_dim": head,
        "num_layers": layers["double_blocks"],
        "num_single_layers": layers.get("single_blocks", 0),
        "num_refiner_layers": layers["txt_in.individual_token_refiner.blocks"],
        "mlp_ratio": shapes["double_blocks.0.img_mlp.fc1.weight"][0] / dim,
        "patch_size": patch,
        "patch_size_t": patch_t,
        "guidance_embeds": "guidance_in.mlp.0.weight" in shapes,
        "text_embed_dim": shapes["txt_in.input_embedder.weight"][1],
        "pooled_projection_dim": shapes["vector_in.in_layer.weight"][1],
        "rope_axes_dim": rotary_axes(stored.get("rope_axes_dim"), head, usual_axes),
    }
    if in_channels == 2 * out_channels + 1:
        config["image_condition_type"] = "latent_concat"
    return config


_CLIP_FOLDERS = ("clip_vit_large_patch14",)
_TOKENIZER_FOLDERS = ("llava-llama-3-8b", "comfy/text_encoders/llama_tokenizer")
_COMPONENTS = (
    Component("tokenizer", "transformers", "AutoTokenizer", ("*.json", "*.model"), _TOKENIZER_FOLDERS),
    Component("text_encoder", "transformers", "LlamaModel", WEIGHT_FILES, kind=LLAMA.name, feeds="text_embed_dim"),
    Component(
        "tokenizer_2", "transformers", "AutoTokenizer", ("*.json", "*.txt"), (*_CLIP_FOLDERS, "comfy/sd1_tokenizer")
    ),
    Component(
        "text_encoder_2",
        "transformers",
        "CLIPTextModel",
        WEIGHT_FILES,
        _CLIP_FOLDERS,
        kind=CLIP_TEXT.name,
        feeds="pooled_projection_dim",
    ),
    Component(
        "vae", "diffusers", "AutoencoderKLHunyuanVideo", WEIGHT_FILES, kind=HUNYUAN_VAE.name, feeds="out_channels"
    ),
)
_LLAVA_PARTS = (ComponentPart(LLAMA.name, "model.language_model."), ComponentPart(LLAVA_VISION.name, "model."))
_IMAGE_COMPONENTS = (
    _COMPONENTS[0],
    replace(_COMPONENTS[1], class_name="LlavaForConditionalGeneration", kind=LLAVA.name, assembled=_LLAVA_PARTS),
    *_COMPONENTS[2:],
    Component(
        "image_processor",
        "transformers",
        "CLIPImageProcessor",
        ("*.json",),
        kind=LLAVA.name,
        assembled=(ComponentPart(LLAVA_VISION.name, "model."),),
    ),
)

HUNYUAN = Family(
    name="hunyuan",
    label="Hunyuan Video",
    markers=("txt_in.individual_token_refiner.blocks.0.norm1.weight",),
    renames=RENAMES,
    quantizable=QUANTIZABLE,
    derive_config=derive_config,
    transformer_class="HunyuanVideoTransformer3DModel",
    components=_COMPONENTS,
    solvers=("euler",),
    fps=24,
    frame_step=4,
    size_step=16,
    max_text_tokens=256,
    trained_frames=129,
    sized_by=("img_in.proj.weight",),
    aliases=MappingProxyType(_COMFYUI),
)

_DEFAULTS = {
    **TEXT_DEFAULTS,
    "guidance_scale": 1.0,
    "embedded_guidance_scale": 6.0,
    "flow_shift": 5.0,
}

_DISTILLED = "its guidance is distilled into one pass, and this setting needs a second pass without the prompt"


def _architecture(
    id: str, signature: Signature, repo: str, pipeline: str, inputs: tuple[Input, ...] = (), **more: object
) -> Architecture:
    defaults = _DEFAULTS | (dict(IMAGE_DEFAULTS) if inputs else {})
    used = {*defaults, *USED_BY_ALL, *RIFLEX, *(model_input.key for model_input in inputs)}
    return Architecture(
        id=id,
        loras=id,
        family=HUNYUAN,
        signature=signature,
        data_types=("bf16",),
        settings=frozenset(used),
        defaults=MappingProxyType(defaults),
        components_repo=f"hunyuanvideo-community/{repo}",
        pipeline=pipeline,
        profiles=id,
        inputs=inputs,
        call_only=frozenset({"guidance_scale"}),
        refused=refused_groups((ZERO_STAR, SKIPPED_LAYERS), _DISTILLED),
        **more,  # type: ignore[arg-type]
    )


ARCHITECTURES = (
    _architecture(
        "hunyuan", Signature(frozen(in_channels=16, guidance_embeds=True)), "HunyuanVideo", "HunyuanVideoPipeline"
    ),
    _architecture(
        "hunyuan_i2v",
        Signature(frozen(in_channels=(16, 33))),
        "HunyuanVideo-I2V",
        "HunyuanVideoImageToVideoPipeline",
        (replace(START_IMAGE, required=True),),
        components=_IMAGE_COMPONENTS,
        config=frozen(image_condition_type="token_replace"),  # the derived config overrides it for concatenation
    ),
)
