"""LTX Video 0.9.x: recognised and listed; loading and running it is not built yet."""

from __future__ import annotations

import re
from types import MappingProxyType

from reeltune.families.base import Architecture, Component, Config, Family, Rename, Shapes, Signature

_BLOCK = re.compile(r"transformer_blocks\.(\d+)\.")


def derive_config(shapes: Shapes, stored: Config) -> Config:
    """What the shapes tell: hidden size and number of blocks."""
    layers = [int(found[1]) for name in shapes if (found := _BLOCK.match(name))]
    dim = shapes["adaln_single.emb.timestep_embedder.linear_1.bias"][0]
    return {"dim": dim, "num_layers": 1 + max(layers, default=-1)}


_WEIGHTS = ("config.json", "*.safetensors", "*.safetensors.index.json")

LTX = Family(
    name="ltx",
    label="LTX Video",
    markers=("adaln_single.emb.timestep_embedder.linear_1.bias",),
    renames=(),
    quantizable=(),
    derive_config=derive_config,
    transformer_class="LTXVideoTransformer3DModel",
    components=(
        Component("tokenizer", "transformers", "AutoTokenizer", ("*.json", "*.model")),
        Component("text_encoder", "transformers", "T5EncoderModel", _WEIGHTS),
        Component("vae", "diffusers", "AutoencoderKLLTXVideo", _WEIGHTS),
    ),
    solvers=("euler",),
    landmarks=(
        Rename("adaln_single.emb.timestep_embedder.linear_1", "time_embed.emb.timestep_embedder.linear_1"),
        Rename("transformer_blocks.{}.scale_shift_table", "transformer_blocks.{}.scale_shift_table"),
    ),
    fps=30,
    frame_step=8,
    size_step=32,
    max_text_tokens=256,
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
    "flow_shift": 5.0,
}

ARCHITECTURES = (
    Architecture(
        id="ltxv_13B",
        family=LTX,
        signature=Signature(dim=4096, lacks=("audio_adaln_single.emb.timestep_embedder.linear_1.bias",)),
        data_types=("bf16",),
        settings=frozenset({*_DEFAULTS, "multi_prompts_gen_type", "force_fps"}),
        defaults=MappingProxyType(_DEFAULTS),
        components_repo="Lightricks/LTX-Video-0.9.8-13B-distilled",
        unsupported="LTX Video is not supported yet",
    ),
)
