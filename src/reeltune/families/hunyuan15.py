"""Hunyuan Video 1.5, with the names of the original release (huggingface.co/tencent/HunyuanVideo-1.5) and of diffusers.

It shares names with Hunyuan Video, and little else: no single-stream blocks, no distilled guidance, other encoders. The
header doesn't tell text-to-video from image-to-video: both take the latents of a start image, which may be empty.
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
    Input,
    Rename,
    Shapes,
    Signature,
    block_counts,
    frozen,
    refused_groups,
    rotary_axes,
)
from reeltune.families.components import BYT5, HUNYUAN15_VAE, QWEN, SIGLIP_VISION
from reeltune.families.components.qwen import TOKENIZER_FOLDERS
from reeltune.families.shared import IMAGE_DEFAULTS, TEXT_DEFAULTS, USED_BY_ALL

_BLOCK, _TO_BLOCK = "double_blocks.{}", "transformer_blocks.{}"
_REFINER = "txt_in.individual_token_refiner.blocks.{}"
_TO_REFINER = "context_embedder.token_refiner.refiner_blocks.{}"
_TEXT_TIME = "context_embedder.time_text_embed"
_MEAN_FLOW = "time_r_in.mlp.0.weight"  # the noise level at the end of the step is an input too


def _renames(original: str, diffusers: str, *pairs: tuple[str, str]) -> tuple[Rename, ...]:
    return tuple(Rename(f"{original}.{own}", f"{diffusers}.{other}") for own, other in pairs)


def _stack(original: str, diffusers: str, *layers: str) -> Rename:
    first, *more = (f"{diffusers}.{layer}" for layer in layers)
    return Rename(original, first, tuple(more))


_MLP = (("mlp.0", "linear_1"), ("mlp.2", "linear_2"))
RENAMES = (
    *_renames("time_in", "time_embed.timestep_embedder", *_MLP),
    *_renames("time_r_in", "time_embed.timestep_embedder_r", *_MLP),
    *_renames("txt_in.t_embedder", f"{_TEXT_TIME}.timestep_embedder", *_MLP),
    *_renames("txt_in.c_embedder", f"{_TEXT_TIME}.text_embedder", *((f"linear_{n}", f"linear_{n}") for n in "12")),
    Rename("txt_in.input_embedder", "context_embedder.proj_in"),
    _stack(f"{_REFINER}.self_attn_qkv", f"{_TO_REFINER}.attn", "to_q", "to_k", "to_v"),
    *_renames(
        _REFINER, _TO_REFINER, ("norm1", "norm1"), ("norm2", "norm2"), ("self_attn_proj", "attn.to_out.0"),
        ("mlp.fc1", "ff.net.0.proj"), ("mlp.fc2", "ff.net.2"), ("adaLN_modulation.1", "norm_out.linear"),
    ),
    *_renames(
        "byt5_in", "context_embedder_2", ("layernorm", "norm"), *((f"fc{n}", f"linear_{n}") for n in "123"),
    ),
    *_renames(
        "vision_in.proj", "image_embedder", ("0", "norm_in"), ("1", "linear_1"), ("3", "linear_2"), ("4", "norm_out"),
    ),
    Rename("img_in.proj", "x_embedder.proj"),
    Rename("cond_type_embedding", "cond_type_embed"),
    # LoRAs of ComfyUI stack these; what comes below are the names that checkpoints have
    _stack(f"{_BLOCK}.img_attn_qkv", f"{_TO_BLOCK}.attn", "to_q", "to_k", "to_v"),
    _stack(f"{_BLOCK}.txt_attn_qkv", f"{_TO_BLOCK}.attn", "add_q_proj", "add_k_proj", "add_v_proj"),
    *_renames(
        _BLOCK, _TO_BLOCK, ("img_mod.linear", "norm1.linear"), ("txt_mod.linear", "norm1_context.linear"),
        *((f"img_attn_{letter}", f"attn.to_{letter}") for letter in "qkv"),
        *((f"txt_attn_{letter}", f"attn.add_{letter}_proj") for letter in "qkv"),
        *((f"img_attn_{letter}_norm", f"attn.norm_{letter}") for letter in "qk"),
        *((f"txt_attn_{letter}_norm", f"attn.norm_added_{letter}") for letter in "qk"),
        ("img_attn_proj", "attn.to_out.0"), ("txt_attn_proj", "attn.to_add_out"),
        ("img_mlp.fc1", "ff.net.0.proj"), ("img_mlp.fc2", "ff.net.2"),
        ("txt_mlp.fc1", "ff_context.net.0.proj"), ("txt_mlp.fc2", "ff_context.net.2"),
    ),
    Rename("final_layer.adaLN_modulation.1", "norm_out.linear", swapped=True),  # shift, scale -> scale, shift
    Rename("final_layer.linear", "proj_out"),
)  # fmt: skip

_STREAMS = ("img", "txt")
_COMFYUI = {
    **{f"{_BLOCK}.{stream}_mlp.{number}": f"{_BLOCK}.{stream}_mlp.{layer}"
       for stream in _STREAMS for number, layer in (("0", "fc1"), ("2", "fc2"))},
    **{f"{_BLOCK}.{stream}_mod.lin": f"{_BLOCK}.{stream}_mod.linear" for stream in _STREAMS},
    **{f"{_BLOCK}.{stream}_attn.{layer}": f"{_BLOCK}.{stream}_attn_{layer}"
       for stream in _STREAMS for layer in ("qkv", "proj")},
    f"{_REFINER}.self_attn.qkv": f"{_REFINER}.self_attn_qkv",
    f"{_REFINER}.self_attn.proj": f"{_REFINER}.self_attn_proj",
    f"{_REFINER}.mlp.0": f"{_REFINER}.mlp.fc1",
    f"{_REFINER}.mlp.2": f"{_REFINER}.mlp.fc2",
}  # fmt: skip

QUANTIZABLE = (
    *(f"{_BLOCK}.{stream}_attn_{layer}" for stream in _STREAMS for layer in ("q", "k", "v", "proj")),
    *(f"{_BLOCK}.{stream}_mlp.{layer}" for stream in _STREAMS for layer in ("fc1", "fc2")),
)

_NUMBERED = re.compile(r"(double_blocks|txt_in\.individual_token_refiner\.blocks)\.(\d{1,9})\.")


def derive_config(shapes: Shapes, stored: Config) -> Config:
    """The config of `HunyuanVideo15Transformer3DModel`, from original names and shapes.

    Of the `stored` config only the axes of the rotary embedding are used; without them a head is split in the
    proportions of the release: 16 of 128 for time, 56 each for height and width. Raises KeyError if a required shape is
    missing, and ValueError if a forged block number exceeds the tensor count.
    """
    dim, in_channels, patch_t, patch, *_ = shapes["img_in.proj.weight"]
    head = shapes["double_blocks.0.img_attn_q_norm.weight"][0]
    usual_axes = (head // 8, head * 7 // 16, head * 7 // 16)
    layers = block_counts(shapes, _NUMBERED)
    return {
        "in_channels": in_channels,
        "out_channels": shapes["final_layer.linear.weight"][0] // (patch * patch * patch_t),
        "num_attention_heads": dim // head,
        "attention_head_dim": head,
        "num_layers": layers["double_blocks"],
        "num_refiner_layers": layers["txt_in.individual_token_refiner.blocks"],
        "mlp_ratio": shapes["double_blocks.0.img_mlp.fc1.weight"][0] / dim,
        "patch_size": patch,
        "patch_size_t": patch_t,
        "text_embed_dim": shapes["txt_in.input_embedder.weight"][1],
        "text_embed_2_dim": shapes["byt5_in.fc1.weight"][1],
        "image_embed_dim": shapes["vision_in.proj.1.weight"][1],
        "rope_axes_dim": rotary_axes(stored.get("rope_axes_dim"), head, usual_axes),
        "use_meanflow": _MEAN_FLOW in shapes,
    }


_WITH_TEMPLATE = ("*.j*",)  # the chat template is in a file of its own, .jinja, or in one of the .json
_COMPONENTS = (
    Component("tokenizer", "transformers", "AutoTokenizer", _WITH_TEMPLATE, TOKENIZER_FOLDERS),
    Component(
        "text_encoder", "transformers", "Qwen2_5_VLTextModel", WEIGHT_FILES, kind=QWEN.name, feeds="text_embed_dim"
    ),
    Component("tokenizer_2", "transformers", "AutoTokenizer", ("*.json",), kind=BYT5.name),
    Component(
        "text_encoder_2", "transformers", "T5EncoderModel", WEIGHT_FILES, kind=BYT5.name, feeds="text_embed_2_dim"
    ),
    Component(
        "vae", "diffusers", "AutoencoderKLHunyuanVideo15", WEIGHT_FILES, kind=HUNYUAN15_VAE.name, feeds="out_channels"
    ),
)
_IMAGE_COMPONENTS = (
    *_COMPONENTS,
    Component(
        "image_encoder",
        "transformers",
        "SiglipVisionModel",
        WEIGHT_FILES,
        kind=SIGLIP_VISION.name,
        feeds="image_embed_dim",
    ),
    Component("feature_extractor", "transformers", "SiglipImageProcessor", ("*.json",), kind=SIGLIP_VISION.name),
)

HUNYUAN_1_5 = Family(
    name="hunyuan_1_5",
    label="Hunyuan Video 1.5",
    markers=("vision_in.proj.0.weight",),
    renames=RENAMES,
    quantizable=QUANTIZABLE,
    derive_config=derive_config,
    transformer_class="HunyuanVideo15Transformer3DModel",
    components=_COMPONENTS,
    solvers=("euler",),
    fps=24,
    frame_step=4,
    size_step=16,
    max_text_tokens=1000,
    trained_frames=121,
    sized_by=("img_in.proj.weight",),
    aliases=MappingProxyType(_COMFYUI),
    mask_bytes=4,  # two masks of bytes, and what the attention kernel makes of them in 16 bits
)

_DEFAULTS = {
    **TEXT_DEFAULTS,
    "video_length": 97,
    "guidance_scale": 6.0,
    "flow_shift": 5.0,
}
_EXTRA = (*USED_BY_ALL, *RIFLEX, *ZERO_STAR)


def _architecture(
    id: str, signature: Signature, pipeline: str, components: tuple[Component, ...], inputs: tuple[Input, ...] = ()
) -> Architecture:
    defaults = _DEFAULTS | (dict(IMAGE_DEFAULTS) if inputs else {})
    return Architecture(
        id=id,
        loras="hunyuan_1_5",
        family=HUNYUAN_1_5,
        signature=signature,
        data_types=("bf16",),
        settings=frozenset({*defaults, *_EXTRA, *(model_input.key for model_input in inputs)}),
        defaults=MappingProxyType(defaults),
        components_repo="hunyuanvideo-community/HunyuanVideo-1.5-Diffusers-480p_i2v",  # all models have the same
        pipeline=pipeline,
        profiles="hunyuan_1_5",
        inputs=inputs,
        components=components,
        refused=refused_groups((SKIPPED_LAYERS,), "its blocks change the text too, so none of them can be left out"),
    )


_CONFIG = frozen(in_channels=65, out_channels=32)  # latents, those of the start image, and a mask
ARCHITECTURES = (
    _architecture("hunyuan_1_5_t2v", Signature(_CONFIG, lacks=(_MEAN_FLOW,)), "HunyuanVideo15Pipeline", _COMPONENTS),
    _architecture(
        "hunyuan_1_5_i2v",
        Signature(_CONFIG),
        "HunyuanVideo15ImageToVideoPipeline",
        _IMAGE_COMPONENTS,
        (replace(START_IMAGE, required=True),),
    ),
)
