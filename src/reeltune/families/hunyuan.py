"""Hunyuan Video: recognised and listed; loading and running it is not built yet."""

from __future__ import annotations

from types import MappingProxyType

from reeltune.families.base import Architecture, Component, Config, Family, Rename, Shapes, Signature, frozen


def derive_config(shapes: Shapes, stored: Config) -> Config:
    """What the shapes tell: input channels, hidden size, whether guidance is an input (distilled)."""
    dim, in_channels, *_ = shapes["img_in.proj.weight"]
    return {"in_channels": in_channels, "dim": dim, "guidance_embeds": "guidance_in.mlp.0.weight" in shapes}


_WEIGHTS = ("config.json", "*.safetensors", "*.safetensors.index.json")

HUNYUAN = Family(
    name="hunyuan",
    label="Hunyuan Video",
    markers=("txt_in.individual_token_refiner.blocks.0.norm1.weight",),
    renames=(),
    quantizable=(),
    derive_config=derive_config,
    transformer_class="HunyuanVideoTransformer3DModel",
    components=(
        Component("tokenizer", "transformers", "AutoTokenizer", ("*.json", "*.model")),
        Component("text_encoder", "transformers", "LlamaModel", _WEIGHTS),
        Component("tokenizer_2", "transformers", "AutoTokenizer", ("*.json", "*.txt")),
        Component("text_encoder_2", "transformers", "CLIPTextModel", _WEIGHTS),
        Component("vae", "diffusers", "AutoencoderKLHunyuanVideo", _WEIGHTS),
    ),
    solvers=("euler",),
    landmarks=(
        Rename("img_in.proj", "x_embedder.proj"),
        Rename("guidance_in.mlp.0", "time_text_embed.guidance_embedder.linear_1"),
        Rename(
            "txt_in.individual_token_refiner.blocks.{}.norm1", "context_embedder.token_refiner.refiner_blocks.{}.norm1"
        ),
    ),
    fps=24,
    frame_step=4,
    size_step=16,
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
    "guidance_scale": 7.0,
    "embedded_guidance_scale": 6.0,
    "flow_shift": 7.0,
}


def _architecture(id: str, signature: Signature, repo: str) -> Architecture:
    return Architecture(
        id=id,
        family=HUNYUAN,
        signature=signature,
        data_types=("bf16",),
        settings=frozenset({*_DEFAULTS, "multi_prompts_gen_type", "force_fps"}),
        defaults=MappingProxyType(_DEFAULTS),
        components_repo=f"hunyuanvideo-community/{repo}",
        unsupported="Hunyuan Video is not supported yet",
    )


ARCHITECTURES = (
    _architecture("hunyuan", Signature(frozen(in_channels=16, guidance_embeds=True)), "HunyuanVideo"),
    _architecture("hunyuan_i2v", Signature(frozen(in_channels=(16, 33))), "HunyuanVideo-I2V"),
)
