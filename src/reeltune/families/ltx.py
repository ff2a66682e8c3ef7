"""LTX Video 0.9.x, with the names of the original release (github.com/Lightricks/LTX-Video) and of diffusers."""

from __future__ import annotations

import re

from reeltune.families.base import (
    END_IMAGE,
    LATENT_UPSAMPLER,
    MAX_HEAD_SIZE,
    RIFLEX,
    SKIPPED_LAYERS,
    START_IMAGE,
    WEIGHT_FILES,
    ZERO_STAR,
    Architecture,
    Component,
    Config,
    Family,
    Rename,
    Shapes,
    Signature,
    frozen,
    refused_groups,
)
from reeltune.families.components import LTX_UPSAMPLER, LTX_VAE, T5
from reeltune.families.scales import DEV
from reeltune.families.shared import TEXT_DEFAULTS, USED_BY_ALL, same_names

HEADS = 32  # of all published LTX Video 0.9 models; other counts need a config in the file's metadata
_BLOCK = re.compile(r"transformer_blocks\.(\d{1,9})\.")


def _attention(name: str) -> tuple[Rename, ...]:
    return (
        *same_names(*(f"{name}.{layer}" for layer in ("to_q", "to_k", "to_v", "to_out.0"))),
        Rename(f"{name}.q_norm", f"{name}.norm_q"),
        Rename(f"{name}.k_norm", f"{name}.norm_k"),
    )


_FEED_FORWARD = ("transformer_blocks.{}.ff.net.0.proj", "transformer_blocks.{}.ff.net.2")

RENAMES = (
    Rename("patchify_proj", "proj_in"),
    Rename("adaln_single.emb.timestep_embedder.linear_1", "time_embed.emb.timestep_embedder.linear_1"),
    Rename("adaln_single.emb.timestep_embedder.linear_2", "time_embed.emb.timestep_embedder.linear_2"),
    Rename("adaln_single.linear", "time_embed.linear"),
    *same_names("caption_projection.linear_1", "caption_projection.linear_2", "scale_shift_table", "proj_out"),
    *same_names("transformer_blocks.{}.scale_shift_table", *_FEED_FORWARD),
    *_attention("transformer_blocks.{}.attn1"),
    *_attention("transformer_blocks.{}.attn2"),
)
QUANTIZABLE = (
    *(f"transformer_blocks.{{}}.{attention}.{layer}"
      for attention in ("attn1", "attn2") for layer in ("to_q", "to_k", "to_v", "to_out.0")),
    *_FEED_FORWARD,
)  # fmt: skip


def derive_config(shapes: Shapes, stored: Config) -> Config:
    """The config of `LTXVideoTransformer3DModel`, from original names and shapes.

    Of the `stored` config only the number of heads is used. Raises KeyError if a required shape is missing, and
    ValueError if a forged block number exceeds the tensor count.
    """
    dim, in_channels = shapes["patchify_proj.weight"]
    matches = [_BLOCK.match(name) for name in shapes]
    layers = 1 + max((int(match[1]) for match in matches if match), default=-1)
    if layers > len(shapes):
        raise ValueError(f"{layers} blocks in {len(shapes)} tensors")
    heads = _heads(dim, stored.get("num_attention_heads"))
    return {
        "in_channels": in_channels,
        "out_channels": shapes["proj_out.weight"][0],
        "num_attention_heads": heads,
        "attention_head_dim": dim // heads,
        "cross_attention_dim": shapes["transformer_blocks.0.attn2.to_k.weight"][1],
        "caption_channels": shapes["caption_projection.linear_1.weight"][1],
        "num_layers": layers,
    }


def _heads(dim: int, stored: object) -> int:
    """The stored number of heads if it is valid for the hidden size, else that of the release."""
    if type(stored) is int and stored > 0 and dim % stored == 0 and dim // stored <= MAX_HEAD_SIZE:
        return stored
    return HEADS


_TOKENIZER_FOLDERS = ("T5_xxl_1.1", "comfy/text_encoders/t5_tokenizer")

LTX = Family(
    name="ltx",
    label="LTX Video",
    markers=("adaln_single.emb.timestep_embedder.linear_1.bias",),
    renames=RENAMES,
    quantizable=QUANTIZABLE,
    derive_config=derive_config,
    transformer_class="LTXVideoTransformer3DModel",
    components=(
        Component("tokenizer", "transformers", "AutoTokenizer", ("*.json", "*.model"), _TOKENIZER_FOLDERS),
        Component(
            "text_encoder", "transformers", "T5EncoderModel", WEIGHT_FILES, kind=T5.name, feeds="caption_channels"
        ),
        Component("vae", "diffusers", "AutoencoderKLLTXVideo", WEIGHT_FILES, kind=LTX_VAE.name, feeds="out_channels"),
        Component(
            LATENT_UPSAMPLER,
            "diffusers",
            "LTXLatentUpsamplerModel",
            WEIGHT_FILES,
            kind=LTX_UPSAMPLER.name,
            feeds="in_channels",
            repository="Lightricks/ltxv-spatial-upscaler-0.9.8",
        ),
    ),
    solvers=("euler",),
    fps=30,
    frame_step=8,
    size_step=32,
    max_text_tokens=256,
    trained_frames=257,
    sized_by=("adaln_single.emb.timestep_embedder.linear_1.bias",),
)

_INPUTS = (START_IMAGE, END_IMAGE)
_REFUSED = frozen(
    **refused_groups(
        (ZERO_STAR, SKIPPED_LAYERS), "the guidance of each step comes from its configuration (LTXV_config)"
    ),
    **refused_groups((RIFLEX,), "its positions are in seconds, so they don't repeat in long videos"),
)

ARCHITECTURES = (
    Architecture(
        id="ltxv_13B",
        loras="ltxv",
        family=LTX,
        signature=Signature(dim=4096, lacks=("audio_adaln_single.emb.timestep_embedder.linear_1.bias",)),
        data_types=("bf16",),
        settings=frozenset(
            {*TEXT_DEFAULTS, *USED_BY_ALL, "image_prompt_type", *(model_input.key for model_input in _INPUTS)}
        ),
        defaults=TEXT_DEFAULTS,
        components_repo="Lightricks/LTX-Video-0.9.8-13B-distilled",
        pipeline="LTXConditionPipeline",
        profiles="ltxv",
        inputs=_INPUTS,
        refused=_REFUSED,
        scales=DEV,
        unused_files=("ic-lora",),
    ),
)
