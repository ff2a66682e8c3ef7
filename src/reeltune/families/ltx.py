"""LTX Video 0.9.x: names as in the original release (github.com/Lightricks/LTX-Video) and as in diffusers."""

from __future__ import annotations

import re
from types import MappingProxyType

from reeltune.families import components
from reeltune.families.base import (
    END_IMAGE,
    LONGER,
    MOST_HEAD_SIZE,
    SKIPPED_LAYERS,
    START_IMAGE,
    STEP_CACHE,
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
    refuse,
)

HEADS = 32  # of every published LTX Video 0.9; other counts need a config in the file's metadata
_BLOCK = re.compile(r"transformer_blocks\.(\d{1,9})\.")


def _same(*names: str) -> tuple[Rename, ...]:
    return tuple(Rename(name, name) for name in names)


_ATTENTION = tuple(
    row
    for attention in ("transformer_blocks.{}.attn1", "transformer_blocks.{}.attn2")
    for row in (
        *_same(*(f"{attention}.{layer}" for layer in ("to_q", "to_k", "to_v", "to_out.0"))),
        Rename(f"{attention}.q_norm", f"{attention}.norm_q"),
        Rename(f"{attention}.k_norm", f"{attention}.norm_k"),
    )
)
_FEED_FORWARD = ("transformer_blocks.{}.ff.net.0.proj", "transformer_blocks.{}.ff.net.2")

RENAMES = (
    Rename("patchify_proj", "proj_in"),
    Rename("adaln_single.emb.timestep_embedder.linear_1", "time_embed.emb.timestep_embedder.linear_1"),
    Rename("adaln_single.emb.timestep_embedder.linear_2", "time_embed.emb.timestep_embedder.linear_2"),
    Rename("adaln_single.linear", "time_embed.linear"),
    *_same("caption_projection.linear_1", "caption_projection.linear_2", "scale_shift_table", "proj_out"),
    *_same("transformer_blocks.{}.scale_shift_table", *_FEED_FORWARD),
    *_ATTENTION,
)
QUANTIZABLE = (
    *(f"transformer_blocks.{{}}.{attention}.{layer}"
      for attention in ("attn1", "attn2") for layer in ("to_q", "to_k", "to_v", "to_out.0")),
    *_FEED_FORWARD,
)  # fmt: skip


def derive_config(shapes: Shapes, stored: Config) -> Config:
    """Config of `LTXVideoTransformer3DModel` from original names and shapes.

    Of the `stored` config only the number of heads is taken. Raises KeyError when a shape it needs is absent,
    ValueError where a forged block number is larger than any file of so many tensors has.
    """
    dim, in_channels = shapes["patchify_proj.weight"]
    layers = 1 + max((int(found[1]) for name in shapes if (found := _BLOCK.match(name))), default=-1)
    if layers > len(shapes):
        raise ValueError(f"{layers} blocks in {len(shapes)} tensors")
    wish = stored.get("num_attention_heads")
    heads = HEADS
    if type(wish) is int and wish > 0 and dim % wish == 0 and dim // wish <= MOST_HEAD_SIZE:
        heads = wish
    return {
        "in_channels": in_channels,
        "out_channels": shapes["proj_out.weight"][0],
        "num_attention_heads": heads,
        "attention_head_dim": dim // heads,
        "cross_attention_dim": shapes["transformer_blocks.0.attn2.to_k.weight"][1],
        "caption_channels": shapes["caption_projection.linear_1.weight"][1],
        "num_layers": layers,
    }


_T5 = tuple(f"T5_xxl_1.1/T5_xxl_1.1_enc_{kind}.safetensors" for kind in ("bf16", "quanto_bf16_int8"))

LTX = Family(
    name="ltx",
    label="LTX Video",
    markers=("adaln_single.emb.timestep_embedder.linear_1.bias",),
    renames=RENAMES,
    quantizable=QUANTIZABLE,
    derive_config=derive_config,
    transformer_class="LTXVideoTransformer3DModel",
    components=(
        Component("tokenizer", "transformers", "AutoTokenizer", ("*.json", "*.model"), ("T5_xxl_1.1",)),
        Component("text_encoder", "transformers", "T5EncoderModel", WEIGHT_FILES, _T5, components.T5),
        Component("vae", "diffusers", "AutoencoderKLLTXVideo", WEIGHT_FILES),
    ),
    solvers=("euler",),
    fps=30,
    frame_step=8,
    size_step=32,
    max_text_tokens=256,
    trained_frames=257,
    sized_by=("adaln_single.emb.timestep_embedder.linear_1.bias",),
)

_DEFAULTS = {
    "prompt": "A red fox trots through fresh snow at dawn, the camera gliding beside it",
    "negative_prompt": "",
    "resolution": "832x480",
    "video_length": 81,
    "num_inference_steps": 30,
    "seed": -1,
    "repeat_generation": 1,
    "guidance_scale": 5.0,
}
_INPUTS = (START_IMAGE, END_IMAGE)
_REFUSED = frozen(
    **refuse((ZERO_STAR, SKIPPED_LAYERS), "it makes both passes of a step at once, which can't be told apart"),
    **refuse((LONGER,), "its positions count seconds, not frames, so that none comes round again"),
)

ARCHITECTURES = (
    Architecture(
        id="ltxv_13B",
        family=LTX,
        signature=Signature(dim=4096, lacks=("audio_adaln_single.emb.timestep_embedder.linear_1.bias",)),
        data_types=("bf16",),
        settings=frozenset(
            {*_DEFAULTS, "multi_prompts_gen_type", "force_fps", "image_prompt_type", "sample_solver", *STEP_CACHE}
            | {row.key for row in _INPUTS}
        ),
        defaults=MappingProxyType(_DEFAULTS),
        components_repo="Lightricks/LTX-Video-0.9.8-13B-distilled",
        pipeline="LTXConditionPipeline",
        inputs=_INPUTS,
        refused=_REFUSED,
    ),
)
