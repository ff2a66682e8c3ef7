"""LTX-2 (19B), LTX-2.3 (22B) and LTX-2.5, which make video and sound together.

The names are those of the original release (github.com/Lightricks/LTX-2) and of diffusers.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from reeltune.families.base import (
    AUDIO_VAE,
    END_IMAGE,
    LATENT_UPSAMPLER,
    MAX_HEAD_SIZE,
    RIFLEX,
    SKIPPED_LAYERS,
    START_IMAGE,
    VAE,
    VOCODER,
    WEIGHT_FILES,
    ZERO_STAR,
    Architecture,
    Component,
    ComponentPart,
    Config,
    Family,
    Rename,
    Shapes,
    Signature,
    block_counts,
    frozen,
    refused_groups,
)
from reeltune.families.components import (
    GEMMA_3,
    LTX2_AUDIO_VAE,
    LTX2_CONNECTORS,
    LTX2_EMBEDDINGS,
    LTX2_PROJECTION,
    LTX2_UPSAMPLER,
    LTX2_VAE,
    LTX2_VOCODER,
    LTX2_WIDE_VOCODER,
)
from reeltune.families.scales import LTX2_DISTILLED, LTX2_FULL
from reeltune.families.shared import USED_BY_ALL, same_names

_HEADS = 32  # of all published models, for video and for sound
_BLOCK = re.compile(r"(transformer_blocks)\.(\d{1,9})\.")
_ATTENTIONS = ("attn1", "attn2", "audio_attn1", "audio_attn2", "audio_to_video_attn", "video_to_audio_attn")
_LINEARS = ("to_q", "to_k", "to_v", "to_out.0")
_FEED_FORWARD = tuple(f"{name}.net.{layer}" for name in ("ff", "audio_ff") for layer in ("0.proj", "2"))
_TABLES = ("scale_shift_table", "prompt_scale_shift_table")
_MODULATIONS = {
    "adaln_single": "time_embed",
    "audio_adaln_single": "audio_time_embed",
    "prompt_adaln_single": "prompt_adaln",
    "audio_prompt_adaln_single": "audio_prompt_adaln",
    "av_ca_video_scale_shift_adaln_single": "av_cross_attn_video_scale_shift",
    "av_ca_audio_scale_shift_adaln_single": "av_cross_attn_audio_scale_shift",
    "av_ca_a2v_gate_adaln_single": "av_cross_attn_video_a2v_gate",
    "av_ca_v2a_gate_adaln_single": "av_cross_attn_audio_v2a_gate",
}


def _streams(*names: str) -> tuple[str, ...]:
    """The names of modules of the video, and those of the same modules of the sound."""
    return (*names, *(f"audio_{name}" for name in names))


_IN_BLOCK = "transformer_blocks.{}."
_WEIGHTS = tuple(f"{attention}.{layer}" for attention in _ATTENTIONS for layer in _LINEARS)
_GATES = tuple(f"{attention}.to_gate_logits" for attention in _ATTENTIONS)
RENAMES = (
    Rename("patchify_proj", "proj_in"),
    Rename("audio_patchify_proj", "audio_proj_in"),
    *same_names(*_streams("caption_projection.linear_1", "caption_projection.linear_2", "scale_shift_table")),
    *same_names(*_streams("proj_out"), "keyframes_abs_pos_embedding"),
    *(Rename(f"{original}.{layer}", f"{name}.{layer}")
      for original, name in _MODULATIONS.items()
      for layer in ("emb.timestep_embedder.linear_1", "emb.timestep_embedder.linear_2", "linear")),
    *same_names(*(_IN_BLOCK + name for name in (*_FEED_FORWARD, *_streams(*_TABLES), *_WEIGHTS, *_GATES))),
    *(Rename(f"{_IN_BLOCK}scale_shift_table_a2v_ca_{stream}", f"{_IN_BLOCK}{stream}_a2v_cross_attn_scale_shift_table")
      for stream in ("video", "audio")),
    *(Rename(f"{_IN_BLOCK}{attention}.{letter}_norm", f"{_IN_BLOCK}{attention}.norm_{letter}")
      for attention in _ATTENTIONS for letter in "qk"),
)  # fmt: skip
QUANTIZABLE = tuple(_IN_BLOCK + name for name in (*_WEIGHTS, *_FEED_FORWARD))


def derive_config(shapes: Shapes, stored: Config) -> Config:
    """The config of `LTX2VideoTransformer3DModel`, from original names and shapes.

    Of the `stored` config only the numbers of heads are used, of models without gates, whose rows tell it. Raises
    KeyError if a required shape is missing, and ValueError if a forged block number exceeds the tensor count.
    """
    dim, in_channels = shapes["patchify_proj.weight"]
    audio_dim, audio_in_channels = shapes["audio_patchify_proj.weight"]
    block = "transformer_blocks.0"
    heads, audio_heads = _heads(shapes, stored, "", dim), _heads(shapes, stored, "audio_", audio_dim)
    projection, keys = "caption_projection.linear_1.weight", f"{block}.attn2.to_k.weight"
    modulated = shapes["adaln_single.linear.weight"][0] == 9 * dim  # each block has three more factors for the prompt
    return {
        "in_channels": in_channels,
        "out_channels": shapes["proj_out.weight"][0],
        "num_attention_heads": heads,
        "attention_head_dim": dim // heads,
        "cross_attention_dim": shapes[keys][1],
        "audio_in_channels": audio_in_channels,
        "audio_out_channels": shapes["audio_proj_out.weight"][0],
        "audio_num_attention_heads": audio_heads,
        "audio_attention_head_dim": audio_dim // audio_heads,
        "audio_cross_attention_dim": shapes[f"{block}.audio_attn2.to_k.weight"][1],
        "num_layers": block_counts(shapes, _BLOCK)["transformer_blocks"],
        # without that projection, the connectors make embeddings of the width that attention takes
        "caption_channels": shapes[projection if projection in shapes else keys][1],
        "use_prompt_embeddings": projection in shapes,
        "gated_attn": f"{block}.attn1.to_gate_logits.weight" in shapes,
        "audio_gated_attn": f"{block}.audio_attn1.to_gate_logits.weight" in shapes,
        "cross_attn_mod": modulated,
        "audio_cross_attn_mod": shapes["audio_adaln_single.linear.weight"][0] == 9 * audio_dim,
        "use_prompt_adaln_single": not modulated or "prompt_adaln_single.linear.weight" in shapes,
        "ff_bias": f"{block}.ff.net.2.bias" in shapes,
        "audio_ff_bias": f"{block}.audio_ff.net.2.bias" in shapes,
        "use_keyframes_abs_pos_embedding": "keyframes_abs_pos_embedding" in shapes,
        "rope_type": "split",
        "perturbed_attn": True,  # its layers can pass values through, for spatiotemporal guidance
    }  # fmt: skip


def _heads(shapes: Shapes, stored: Config, stream: str, dim: int) -> int:
    """The number of heads of a stream, "" or "audio_": that of its gates, the stored one, or that of the release."""
    gates = shapes.get(f"transformer_blocks.0.{stream}attn1.to_gate_logits.weight")
    number = gates[0] if gates else stored.get(f"{stream}num_attention_heads")
    if type(number) is int and number > 0 and dim % number == 0 and dim // number <= MAX_HEAD_SIZE:
        return number
    return _HEADS


# --- components -------------------------------------------------------------------------------------------------

_GEMMA_FOLDER = "gemma-3-12b-it-qat-q4_0-unquantized"
_TOKENIZER = Component("tokenizer", "transformers", "AutoTokenizer", ("*.json", "*.model"), (_GEMMA_FOLDER,))
_GEMMA_3 = Component(
    "text_encoder", "transformers", "Gemma3TextModel", WEIGHT_FILES, kind=GEMMA_3.name, part_of_folder=True
)
_GEMMA_4 = Component("text_encoder", "transformers", "Gemma4UnifiedForConditionalGeneration", WEIGHT_FILES)
_UPSAMPLER = Component(
    LATENT_UPSAMPLER, "diffusers", "LTX2LatentUpsamplerModel", WEIGHT_FILES, kind=LTX2_UPSAMPLER.name,
    feeds="in_channels",
)  # fmt: skip


def _components(
    text: tuple[Component, ...], files: Sequence[str], names: Config, upsampler: Component, *, wide: bool
) -> tuple[Component, ...]:
    """The components of a version of LTX-2.

    Headers don't tell the versions apart, so only published names count. `files`: of files with everything but the text
    encoder; `names`: of those with one component. `wide`: whether the vocoder raises the sampling rate.
    """

    def published(key: str) -> tuple[str, ...]:
        return (*names.get(key, ()), *files)

    parts = (
        ComponentPart(LTX2_PROJECTION.name, "", published("projection")),
        ComponentPart(LTX2_EMBEDDINGS.name, "", published("connectors")),
    )
    vocoder, vocoder_class = (LTX2_WIDE_VOCODER, "LTX2VocoderWithBWE") if wide else (LTX2_VOCODER, "LTX2Vocoder")
    connectors = Component(
        "connectors", "diffusers", "LTX2TextConnectors", WEIGHT_FILES, kind=LTX2_CONNECTORS.name, assembled=parts,
        feeds="caption_channels", published=published("connectors"),
    )  # fmt: skip
    return (
        *text,
        connectors,
        Component(
            VAE, "diffusers", "AutoencoderKLLTX2Video", WEIGHT_FILES, kind=LTX2_VAE.name, feeds="out_channels",
            published=published("vae"),
        ),
        Component(
            AUDIO_VAE, "diffusers", "AutoencoderKLLTX2Audio", WEIGHT_FILES, kind=LTX2_AUDIO_VAE.name,
            published=published("audio_vae"),
        ),
        Component(VOCODER, "diffusers", vocoder_class, WEIGHT_FILES, kind=vocoder.name, published=published("vocoder")),
        upsampler,
    )  # fmt: skip


_NAMES_2_0 = frozen(
    vae=("ltx-2-19b_vae.safetensors", "LTX2_video_vae_bf16.safetensors"),
    audio_vae=("ltx-2-19b_audio_vae.safetensors", "LTX2_audio_vae_bf16.safetensors"),
    vocoder=("ltx-2-19b_vocoder.safetensors", "LTX2_audio_vae_bf16.safetensors"),
)
_NAMES_2_3 = frozen(
    vae=("ltx-2.3-22b_vae.safetensors", "LTX23_video_vae_bf16.safetensors"),
    audio_vae=("ltx-2.3-22b_audio_vae.safetensors", "LTX23_audio_vae_bf16.safetensors"),
    vocoder=("ltx-2.3-22b_vocoder.safetensors", "LTX23_audio_vae_bf16.safetensors"),
    projection=("ltx-2.3-22b_text_embedding_projection.safetensors", "ltx-2.3_text_projection_bf16.safetensors"),
    connectors=("ltx-2.3-22b_embeddings_connector.safetensors",),
)
_NAMES_2_5 = frozen(
    vae=("ltx-2.5-22b_video_vae_bf16.safetensors",),
    audio_vae=("ltx-2.5-22b_audio_vae_bf16.safetensors",),
    vocoder=("ltx-2.5-22b_vocoder_bf16.safetensors",),
)


def _of_2_0(kind: str, short: str) -> tuple[Component, ...]:
    """The components of LTX-2; those of full and of distilled models differ in the connectors."""
    whole = (f"ltx-2-19b-{kind}.safetensors", f"ltx-2-19b-{kind}-fp8.safetensors")
    in_one = f"ltx-2-19b-embeddings_connector_{short}_bf16.safetensors"
    names = {
        **_NAMES_2_0,
        "projection": ("ltx-2-19b_text_embedding_projection.safetensors", in_one),
        "connectors": (f"ltx-2-19b-{kind}_embeddings_connector.safetensors", in_one),
    }
    upsampler = replace(_UPSAMPLER, published=("ltx-2-spatial-upscaler-x2-1.0.safetensors",))
    return _components((_TOKENIZER, _GEMMA_3), whole, names, upsampler, wide=False)


def _of_22b(
    version: str, text: tuple[Component, ...], names: Config, upsamplers: tuple[str, ...], repository: str = ""
) -> tuple[Component, ...]:
    kinds = ("dev", "dev-fp8", "distilled", "distilled-fp8", "distilled-1.1")
    whole = tuple(f"ltx-{version}-22b-{kind}.safetensors" for kind in kinds)
    upsampler = replace(_UPSAMPLER, published=upsamplers, repository=repository)
    return _components(text, whole, names, upsampler, wide=True)


_COMPONENTS_2_3 = _of_22b(
    "2.3",
    (_TOKENIZER, _GEMMA_3),
    _NAMES_2_3,
    ("ltx-2.3-spatial-upscaler-x2-1.1.safetensors", "ltx-2.3-spatial-upscaler-x2-1.0.safetensors"),
    "dg845/LTX-2.3-Spatial-Upsampler-Diffusers",
)
_COMPONENTS_2_5 = _of_22b(
    "2.5",
    (replace(_TOKENIZER, folders=("gemma4-12b-ltx-v1",)), _GEMMA_4),
    _NAMES_2_5,
    ("ltx-2.5-spatial-upscaler-x2-1.0_bf16.safetensors",),
)

LTX_2 = Family(
    name="ltx2",
    label="LTX-2",
    markers=("audio_adaln_single.emb.timestep_embedder.linear_1.bias",),
    renames=RENAMES,
    quantizable=QUANTIZABLE,
    derive_config=derive_config,
    transformer_class="LTX2VideoTransformer3DModel",
    components=_of_2_0("dev", "dev"),
    solvers=("euler", "distilled_8_steps"),
    fps=24,
    frame_step=8,
    size_step=32,
    max_text_tokens=1024,
    trained_frames=481,
    sized_by=("adaln_single.emb.timestep_embedder.linear_1.bias",),
    others=(
        "video_embeddings_connector.", "audio_embeddings_connector.", "text_embedding_projection.", "duration_head.",
        "vae.", "audio_vae.", "vocoder.",
    ),
    passes_at_once=2,
)  # fmt: skip

# --- architectures ----------------------------------------------------------------------------------------------

_DEFAULTS = {
    "prompt": "A red fox trots through fresh snow at dawn; the snow crunches under its paws and a crow calls far away",
    "negative_prompt": "",
    "resolution": "1280x704",
    "video_length": 121,
    "num_inference_steps": 30,
    "seed": -1,
    "repeat_generation": 1,
    "guidance_phases": 2,
    "guidance_scale": 3.0,
    "audio_guidance_scale": 7.0,
    "alt_guidance_scale": 3.0,
    "alt_scale": 0.7,
    "perturbation_switch": 2,
    "perturbation_start_perc": 0.0,
    "perturbation_end_perc": 100.0,
}
_INPUTS = (START_IMAGE, END_IMAGE)
_OTHERS = ("image_prompt_type", *USED_BY_ALL, *SKIPPED_LAYERS)
_ONLY_FULL = frozenset(  # what the steps of distilled models don't have
    {"negative_prompt", "num_inference_steps", "guidance_scale", "audio_guidance_scale", "alt_guidance_scale"}
    | {"alt_scale", "sample_solver", *SKIPPED_LAYERS}
)
_REFUSED = frozen(
    **refused_groups((ZERO_STAR,), "its pipeline guides by itself, without it"),
    **refused_groups((RIFLEX,), "its positions are in seconds, so they don't repeat in long videos"),
)


def _architecture(
    id: str,
    signature: Signature,
    repo: str,
    components: tuple[Component, ...] = (),
    distilled_repo: str = "",
    distilled_components: tuple[Component, ...] = (),
    profiles: str = "ltx2_dev_accelerators",
    **defaults: Any,
) -> Architecture:
    """An architecture with its variant for distilled models."""
    values = _DEFAULTS | {"perturbation_layers": [28]} | defaults
    full = Architecture(
        id=id,
        loras="ltx2",
        family=LTX_2,
        signature=signature,
        data_types=("bf16",),
        settings=frozenset({*values, *_OTHERS, *(model_input.key for model_input in _INPUTS)}),
        defaults=MappingProxyType(values),
        components_repo=repo,
        pipeline="LTX2Pipeline",
        image_pipeline="LTX2ConditionPipeline",
        profiles=profiles,
        inputs=_INPUTS,
        components=components,
        refused=_REFUSED,
        scales=LTX2_FULL,
        unused_files=("ic-lora",),
        perturbations=(0, 2),
    )
    distilled = replace(
        full,
        settings=full.settings - _ONLY_FULL,
        defaults=MappingProxyType({key: value for key, value in values.items() if key not in _ONLY_FULL}),
        call_only=_ONLY_FULL,
        components_repo=distilled_repo or repo,
        profiles="ltx2",
        components=distilled_components or components,
        scales=LTX2_DISTILLED,
    )
    return replace(full, distilled=distilled)


ARCHITECTURES = (
    _architecture(
        "ltx2_19B",
        Signature(frozen(cross_attn_mod=False), 4096),
        "Lightricks/LTX-2",
        distilled_repo="rootonchair/LTX-2-19b-distilled",
        distilled_components=_of_2_0("distilled", "distill"),
        num_inference_steps=40,
        perturbation_layers=[29],
    ),
    _architecture(
        "ltx2_22B",
        Signature(frozen(cross_attn_mod=True, ff_bias=True), 4096),
        "diffusers/LTX-2.3-Diffusers",
        _COMPONENTS_2_3,
    ),
    _architecture(
        "ltx2_25_22B",
        Signature(frozen(cross_attn_mod=True, ff_bias=False), 4096),
        "Lightricks/LTX-2.5-Diffusers",
        _COMPONENTS_2_5,
        profiles="ltx2_25_dev_accelerators",
    ),
)
