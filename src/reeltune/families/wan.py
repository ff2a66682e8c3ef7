"""Wan 2.1 and 2.2, with the names of the original release (github.com/Wan-Video) and of diffusers."""

from __future__ import annotations

import re
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from reeltune.families.base import (
    CONTROL_VIDEO,
    END_IMAGE,
    LORAS,
    MASK_VIDEO,
    MAX_HEAD_SIZE,
    REFERENCE_IMAGES,
    RIFLEX,
    SKIPPED_LAYERS,
    START_IMAGE,
    STEP_CACHE,
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
    frozen,
    refused_groups,
)
from reeltune.families.components import CLIP_VISION, SENTENCEPIECE, UMT5, WAN22_VAE, WAN_VAE

_MAX_POSITIONS = 65_536  # accepted from a file's metadata, because the table is allocated; published models have 1,024
HEAD_SIZE = 128  # of all published Wan models; other sizes need a config in the file's metadata


def _attention(block: str) -> tuple[Rename, ...]:
    """Self-attention and cross-attention of a block; the layers for images exist in image-to-video models only."""
    pairs = [("q", "to_q"), ("k", "to_k"), ("v", "to_v"), ("o", "to_out.0")]
    pairs += [("norm_q", "norm_q"), ("norm_k", "norm_k")]
    image = [("k_img", "add_k_proj"), ("v_img", "add_v_proj"), ("norm_k_img", "norm_added_k")]
    own = [Rename(f"{block}.self_attn.{old}", f"{block}.attn1.{new}") for old, new in pairs]
    cross = [Rename(f"{block}.cross_attn.{old}", f"{block}.attn2.{new}") for old, new in pairs + image]
    return (*own, *cross)


def _block(block: str) -> tuple[Rename, ...]:
    """A transformer block. The layer that diffusers calls norm2 is norm3 in the original."""
    return (
        Rename(f"{block}.modulation", f"{block}.scale_shift_table"),
        *_attention(block),
        Rename(f"{block}.norm3", f"{block}.norm2"),
        Rename(f"{block}.ffn.0", f"{block}.ffn.net.0.proj"),
        Rename(f"{block}.ffn.2", f"{block}.ffn.net.2"),
    )


RENAMES = (
    Rename("patch_embedding", "patch_embedding"),
    Rename("text_embedding.0", "condition_embedder.text_embedder.linear_1"),
    Rename("text_embedding.2", "condition_embedder.text_embedder.linear_2"),
    Rename("time_embedding.0", "condition_embedder.time_embedder.linear_1"),
    Rename("time_embedding.2", "condition_embedder.time_embedder.linear_2"),
    Rename("time_projection.1", "condition_embedder.time_proj"),
    Rename("img_emb.emb_pos", "condition_embedder.image_embedder.pos_embed"),
    Rename("img_emb.proj.0", "condition_embedder.image_embedder.norm1"),
    Rename("img_emb.proj.1", "condition_embedder.image_embedder.ff.net.0.proj"),
    Rename("img_emb.proj.3", "condition_embedder.image_embedder.ff.net.2"),
    Rename("img_emb.proj.4", "condition_embedder.image_embedder.norm2"),
    *_block("blocks.{}"),
    *_block("vace_blocks.{}"),
    Rename("vace_blocks.{}.before_proj", "vace_blocks.{}.proj_in"),
    Rename("vace_blocks.{}.after_proj", "vace_blocks.{}.proj_out"),
    Rename("vace_patch_embedding", "vace_patch_embedding"),
    Rename("head.modulation", "scale_shift_table"),
    Rename("head.head", "proj_out"),
)

_LINEARS = (
    *(f"{kind}_attn.{layer}" for kind in ("self", "cross") for layer in ("q", "k", "v", "o", "k_img", "v_img")),
    "ffn.0",
    "ffn.2",
)
QUANTIZABLE = tuple(f"{block}.{layer}" for block in ("blocks.{}", "vace_blocks.{}") for layer in _LINEARS)

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


_TEXT_ENCODER = Component(
    "text_encoder", "transformers", "UMT5EncoderModel", WEIGHT_FILES, kind=UMT5.name, feeds="text_dim"
)
_VAE = Component("vae", "diffusers", "AutoencoderKLWan", WEIGHT_FILES, kind=WAN_VAE.name, feeds="out_channels")
_COMPONENTS = (
    Component(
        "tokenizer", "transformers", "AutoTokenizer", ("*.json", "*.model"), ("umt5-xxl",), kind=SENTENCEPIECE.name
    ),
    _TEXT_ENCODER,
    _VAE,
)
_COMPONENTS_2_2 = (*_COMPONENTS[:2], replace(_VAE, kind=WAN22_VAE.name))
_IMAGE_COMPONENTS = (
    *_COMPONENTS,
    Component(
        "image_encoder", "transformers", "CLIPVisionModel", WEIGHT_FILES, kind=CLIP_VISION.name, feeds="image_dim"
    ),
    Component("image_processor", "transformers", "CLIPImageProcessor", ("*.json",), kind=CLIP_VISION.name),
)

WAN = Family(
    name="wan",
    label="Wan",
    markers=("head.modulation", "vace_patch_embedding.weight"),
    renames=RENAMES,
    quantizable=QUANTIZABLE,
    derive_config=derive_config,
    transformer_class="WanTransformer3DModel",
    components=_COMPONENTS,
    solvers=("unipc", "euler", "dpm++", "causvid", "flowmatch_causvid", "lcm"),
    fps=16,
    frame_step=4,
    size_step=16,
    max_text_tokens=512,
    trained_frames=81,
    position_table=1024,
    sized_by=("patch_embedding.weight", "vace_patch_embedding.weight"),
    whole="head.",
)

_USED = (
    "prompt", "negative_prompt", "resolution", "video_length", "seed", "num_inference_steps", "guidance_scale",
    "flow_shift", "sample_solver", "repeat_generation", "multi_prompts_gen_type", "force_fps",
    "guidance_phases", "guidance2_scale", "guidance3_scale", "switch_threshold", "switch_threshold2",
    "model_switch_phase", *LORAS, *ZERO_STAR, *SKIPPED_LAYERS, *RIFLEX,
)  # fmt: skip
_NO_CACHE = refused_groups((STEP_CACHE,), "it would skip the blocks that apply VACE's control video")
_TEXT_PROMPT = "A red fox trots through fresh snow at dawn, the camera gliding beside it"
_IMAGE_PROMPT = "The scene comes to life, gentle natural movement, steady camera"
_TEXT = {
    "prompt": _TEXT_PROMPT,
    "negative_prompt": "",
    "resolution": "832x480",
    "video_length": 81,
    "num_inference_steps": 30,
    "seed": -1,
    "repeat_generation": 1,
    "guidance_scale": 5.0,
    "flow_shift": 5.0,
}
_IMAGE = {**_TEXT, "prompt": _IMAGE_PROMPT, "image_prompt_type": "S"}
_IMAGE_480P = {**_IMAGE, "flow_shift": 7.0}
_TWO_PHASES = {"guidance_phases": 2}
_SIZE_5B = 3072  # hidden size
_VACE_NAMES = ("vace_patch_embedding.weight",)
_IMAGE_NAMES = ("img_emb.proj.1.weight",)
_ANIMATE_NAMES = ("face_adapter.",)
_T2V = frozen(in_channels=16, out_channels=16)
_I2V = frozen(in_channels=36, out_channels=16)
_LORA_FOLDERS = {1536: "wan_1.3B", 3072: "wan_5B"}  # by hidden size
_BOTH = ("bf16", "fp16")
_START = replace(START_IMAGE, required=True)
_END = replace(END_IMAGE, required=True)
_ENDS = (_START, END_IMAGE)
_CONTROLS = (CONTROL_VIDEO, MASK_VIDEO, REFERENCE_IMAGES)


def _profile_folder(id: str, signature: Signature) -> str:
    """The folder of an architecture's profiles, as WanGP names it: that of its LoRAs, except in version 2.2."""
    if id.endswith("_2_2"):
        return "wan_2_2_5B" if signature.dim == _SIZE_5B else "wan_2_2"
    return _lora_folder(id, signature)


def _architecture(
    id: str,
    signature: Signature,
    defaults: dict[str, object],
    repo: str,
    pipeline: str,
    inputs: tuple[Input, ...] = (),
    **more: object,
) -> Architecture:
    refused = _NO_CACHE if id.startswith("vace") else frozen()
    cached = () if refused else STEP_CACHE
    input_keys = {key for model_input in inputs for key in (model_input.key, model_input.letters_key)}
    used = {*_USED, *cached, *input_keys}
    return Architecture(
        id=id,
        loras=_lora_folder(id, signature),
        family=WAN,
        signature=signature,
        data_types=_BOTH,
        settings=frozenset(used),
        defaults=MappingProxyType(defaults),
        components_repo=f"Wan-AI/{repo}",
        pipeline=pipeline,
        profiles=_profile_folder(id, signature),
        inputs=inputs,
        refused=refused,
        **more,  # type: ignore[arg-type]
    )


def _lora_folder(id: str, signature: Signature) -> str:
    """The folder of an architecture's LoRAs, as WanGP names it: by size, and in version 2.1 by kind of input."""
    if signature.dim in _LORA_FOLDERS:
        return _LORA_FOLDERS[signature.dim]
    images_of_2_1 = signature.config == _I2V and not id.endswith("_2_2")
    return "wan_i2v" if images_of_2_1 else "wan"


def _image_architecture(
    id: str, signature: Signature, defaults: dict[str, object], repo: str, inputs: tuple[Input, ...]
) -> Architecture:
    """An image-to-video architecture of Wan 2.1, which also encodes its images with CLIP."""
    pipeline = "WanImageToVideoPipeline"
    return _architecture(id, signature, defaults, repo, pipeline, inputs, components=_IMAGE_COMPONENTS)


_TEXT_ONLY = {"lacks": _IMAGE_NAMES + _VACE_NAMES + _ANIMATE_NAMES}
_NO_VACE = {"lacks": _VACE_NAMES + _ANIMATE_NAMES}
_NO_END_FRAME = {"lacks": (*_VACE_NAMES, *_ANIMATE_NAMES, "img_emb.emb_pos")}
_REPO_I2V = "Wan2.1-I2V-14B-480P-Diffusers"
_REPO_A14B = "Wan2.2-T2V-A14B-Diffusers"
_T2V_14B = Signature(_T2V, 5120, **_TEXT_ONLY)
_VACE_14B = Signature(_T2V, 5120, _VACE_NAMES)

ARCHITECTURES = (
    _architecture("t2v", _T2V_14B, _TEXT, "Wan2.1-T2V-14B-Diffusers", "WanPipeline", two_transformers="t2v_2_2"),
    _architecture("t2v_1.3B", Signature(_T2V, 1536, **_TEXT_ONLY), _TEXT, "Wan2.1-T2V-1.3B-Diffusers", "WanPipeline"),
    _architecture("t2v_2_2", _T2V_14B, {**_TEXT, **_TWO_PHASES}, _REPO_A14B, "WanPipeline"),
    replace(
        _image_architecture("i2v", Signature(_I2V, 5120, _IMAGE_NAMES, **_NO_END_FRAME), _IMAGE_480P, _REPO_I2V, _ENDS),
        two_transformers="i2v_2_2",
    ),
    _image_architecture("fun_inp", Signature(_I2V, 5120, _IMAGE_NAMES, **_NO_END_FRAME), _IMAGE_480P, _REPO_I2V, _ENDS),
    _image_architecture(
        "fun_inp_1.3B", Signature(_I2V, 1536, _IMAGE_NAMES, **_NO_END_FRAME), _IMAGE_480P, _REPO_I2V, _ENDS
    ),
    _image_architecture(
        "flf2v_720p",
        Signature(_I2V, 5120, (*_IMAGE_NAMES, "img_emb.emb_pos"), **_NO_VACE),
        {**_IMAGE, "resolution": "1280x720", "image_prompt_type": "SE"},
        "Wan2.1-FLF2V-14B-720P-diffusers",
        (_START, _END),
    ),
    _architecture(
        "i2v_2_2",
        Signature(_I2V, 5120, lacks=_IMAGE_NAMES + _VACE_NAMES + _ANIMATE_NAMES),
        {**_IMAGE, **_TWO_PHASES},
        "Wan2.2-I2V-A14B-Diffusers",
        "WanImageToVideoPipeline",
        (_START, END_IMAGE),
    ),
    _architecture(
        "vace_14B",
        _VACE_14B,
        _TEXT,
        "Wan2.1-VACE-14B-diffusers",
        "WanVACEPipeline",
        _CONTROLS,
        two_transformers="vace_14B_2_2",
    ),
    _architecture(
        "vace_1.3B",
        Signature(_T2V, 1536, _VACE_NAMES),
        _TEXT,
        "Wan2.1-VACE-1.3B-diffusers",
        "WanVACEPipeline",
        _CONTROLS,
    ),
    _architecture("vace_14B_2_2", _VACE_14B, {**_TEXT, **_TWO_PHASES}, _REPO_A14B, "WanVACEPipeline", _CONTROLS),
    _architecture(
        "ti2v_2_2",
        Signature(frozen(in_channels=48, out_channels=48), 3072, **_TEXT_ONLY),
        _TEXT,
        "Wan2.2-TI2V-5B-Diffusers",
        "WanPipeline",
        (START_IMAGE,),
        components=_COMPONENTS_2_2,
        options=frozen(expand_timesteps=True),
        fps=24,
        size_step=32,
        image_pipeline="WanImageToVideoPipeline",
    ),
)
