"""Components of LTX-2: what connects the text encoder to the transformer, the VAEs, the vocoders, the upsampler.

The original release stores all of them in one file with the transformer; WanGP and ComfyUI have them in files of their
own. Their configs are those of the published models, with all sizes taken from the shapes.
"""

from __future__ import annotations

import math
from typing import Any

from reeltune.families.base import Config, Shapes
from reeltune.families.components.base import ComponentKind, Layout, NameRule, count, heads, rule
from reeltune.families.components.vae import LTX_VAE, latent_upsampler_config, ltx_vae_config

_TEXT_STATES = 49  # of a token: the embedding, and what each layer of Gemma makes of it
_HEAD_SIZE = 128  # of the connectors of LTX-2, which have no gates


# --- connectors -------------------------------------------------------------------------------------------------


def connectors_config(shapes: Shapes, stored: Config) -> Config:
    """The config of `LTX2TextConnectors`."""
    apart = "video_text_proj_in.weight" in shapes  # a projection for each stream, since LTX-2.3
    projection = "video_text_proj_in" if apart else "text_proj_in"
    inputs = shapes[f"{projection}.weight"][1]
    width = stored.get("caption_channels")
    if type(width) is not int or width < 1 or inputs % width:
        width = max(1, inputs // _TEXT_STATES)
    config: dict[str, object] = {
        "caption_channels": width,
        "text_proj_in_factor": inputs // width,
        "per_modality_projections": apart,
        "proj_bias": f"{projection}.bias" in shapes,
        "rope_type": "split",
    }
    for stream in ("video", "audio"):
        start, name = f"{stream}_connector.transformer_blocks.0.attn1", f"{stream}_connector"
        registers, dim = shapes[f"{name}.learnable_registers"]
        gates = shapes.get(f"{start}.to_gate_logits.weight")
        head_count = gates[0] if gates else heads(dim, _HEAD_SIZE, stored, "connector_num_attention_heads")
        config |= {
            f"{name}_num_attention_heads": head_count,
            f"{name}_attention_head_dim": dim // head_count,
            f"{name}_num_layers": count(shapes, rf"{name}\.transformer_blocks\.(\d{{1,9}})\."),
            f"{name}_num_learnable_registers": registers,
            f"{stream}_gated_attn": gates is not None,
            f"{stream}_hidden_dim": dim,
        }
    return config


def _width_of(*names: str) -> Any:
    def derive(shapes: Shapes, stored: Config) -> Config:
        """The width of the embeddings for the video; of a part that isn't a model by itself."""
        found = [shapes[name] for name in names if name in shapes]
        return {"video_hidden_dim": found[0][-2]}

    return derive


_STREAM = "(video|audio)_embeddings_connector"
_OF_TRANSFORMER = (
    "adaln_single.", "audio_adaln_single.", "audio_caption_projection.", "audio_patchify_proj.", "audio_proj_out.",
    "audio_prompt_adaln_single.", "audio_scale_shift_table", "av_ca_", "caption_projection.", "keyframes_abs_pos",
    "patchify_proj.", "proj_out.", "prompt_adaln_single.", "scale_shift_table", "transformer_blocks.",
)  # fmt: skip

LTX2_CONNECTORS = ComponentKind(
    name="ltx2_connectors",
    label="LTX-2 connectors",
    layouts=(
        Layout("diffusers", "video_connector.learnable_registers", (rule(r"(?:.+_)?(?:connector|proj_in)\..+"),)),
    ),
    derive_config=connectors_config,
    size="video_hidden_dim",
)  # fmt: skip
LTX2_PROJECTION = ComponentKind(
    name="ltx2_projection",
    label="LTX-2 text projection",
    layouts=(
        Layout("original", "aggregate_embed.weight", (rule(r"aggregate_embed\.(.+)", r"text_proj_in.\1"),)),
        Layout(
            "original, a projection for each stream",
            "video_aggregate_embed.weight",
            (rule(r"(video|audio)_aggregate_embed\.(.+)", r"\1_text_proj_in.\2"),),
        ),
    ),
    derive_config=_width_of("text_proj_in.weight", "video_text_proj_in.weight"),
    size="video_hidden_dim",
)
LTX2_EMBEDDINGS = ComponentKind(
    name="ltx2_embeddings",
    label="LTX-2 embeddings connector",
    layouts=(
        Layout(
            "original",
            "video_embeddings_connector.learnable_registers",
            (
                rule(rf"{_STREAM}\.transformer_1d_blocks\.(\d+)\.attn1\.([qk])_norm\.(.+)",
                     r"\1_connector.transformer_blocks.\2.attn1.norm_\3.\4"),
                rule(rf"{_STREAM}\.transformer_1d_blocks\.(.+)", r"\1_connector.transformer_blocks.\2"),
                rule(rf"{_STREAM}\.(.+)", r"\1_connector.\2"),
            ),
            ignored=_OF_TRANSFORMER,
        ),
    ),
    derive_config=_width_of("video_connector.transformer_blocks.0.attn1.to_q.weight"),
    size="video_hidden_dim",
)  # fmt: skip


# --- VAEs -------------------------------------------------------------------------------------------------------

_UPSAMPLE_TYPES = {2: "temporal", 4: "spatial", 8: "spatiotemporal"}  # by the pixels that a position becomes


def ltx2_vae_config(shapes: Shapes, stored: Config) -> Config:
    """The config of LTX-2's video VAE, whose names are those of LTX Video's."""
    config = dict(ltx_vae_config(shapes, stored))
    upsample_types = []
    for stage, factor in enumerate(reversed(config["upsample_factor"])):
        rows, channels = shapes[f"decoder.up_blocks.{stage}.upsamplers.0.conv.conv.weight"][:2]
        upsample_types.append(_UPSAMPLE_TYPES[rows * factor // channels])
    first_version = set(upsample_types) == {"spatiotemporal"}
    return config | {
        "block_out_channels": config["block_out_channels"][1:],
        "down_block_types": ["LTX2VideoDownBlock3D"] * len(config["down_block_types"]),
        "upsample_type": upsample_types,
        "upsample_residual": [first_version] * len(upsample_types),
        "decoder_spatial_padding_mode": "reflect" if first_version else "zeros",
    }


LTX2_VAE = ComponentKind(
    name="ltx2_vae",
    label="LTX-2 video VAE",
    layouts=tuple(
        Layout(layout.label, layout.marker, layout.rules, lacks=(*layout.lacks, *layout.has), ignored=layout.ignored)
        for layout in LTX_VAE.layouts
    ),
    derive_config=ltx2_vae_config,
    size="latent_channels",
)

_MEL_COMPRESSION = 4


def audio_vae_config(shapes: Shapes, stored: Config) -> Config:
    """The config of LTX-2's audio VAE."""
    base, inputs = shapes["encoder.conv_in.conv.weight"][:2]
    stages = range(count(shapes, r"encoder\.down\.(\d{1,9})\."))
    latents = shapes["decoder.conv_in.conv.weight"][1]
    return {
        "base_channels": base,
        "in_channels": inputs,
        "output_channels": shapes["decoder.conv_out.conv.weight"][0],
        "ch_mult": [shapes[f"encoder.down.{stage}.block.0.conv1.conv.weight"][0] // base for stage in stages],
        "num_res_blocks": count(shapes, r"encoder\.down\.0\.block\.(\d{1,9})\."),
        "latent_channels": latents,
        "mel_bins": _MEL_COMPRESSION * shapes["latents_mean"][0] // latents,
    }


_SAME = rule(r"(?:encoder|decoder)\..+")
_AUDIO_MARKER = "decoder.up.0.block.0.conv1.conv.weight"
LTX2_AUDIO_VAE = ComponentKind(
    name="ltx2_audio_vae",
    label="LTX-2 audio VAE",
    layouts=(
        Layout(
            "original",
            _AUDIO_MARKER,
            (
                _SAME,
                rule(r"per_channel_statistics\.mean-of-means", "latents_mean"),
                rule(r"per_channel_statistics\.std-of-means", "latents_std"),
            ),
            has=("per_channel_statistics.mean-of-means",),
            ignored=("per_channel_statistics.channel", "per_channel_statistics.mean-of-stds"),
        ),
        Layout("diffusers", _AUDIO_MARKER, (_SAME, rule(r"latents_(?:mean|std)")), has=("latents_mean",)),
    ),
    derive_config=audio_vae_config,
    size="latent_channels",
)


# --- vocoders ---------------------------------------------------------------------------------------------------

_FACTORS = {16: 6, 15: 5, 12: 6, 11: 5, 8: 2, 4: 2}  # how much longer sound becomes, by the size of the kernel
_DILATIONS = (1, 3, 5)


def _vocoder_config(shapes: Shapes, start: str) -> Config:
    """The sizes of a vocoder whose names begin with `start`."""
    hidden, inputs = shapes[f"{start}conv_in.weight"][:2]
    stages = range(count(shapes, rf"{start}upsamplers\.(\d{{1,9}})\."))
    kernels = [shapes[f"{start}upsamplers.{stage}.weight"][2] for stage in stages]
    branches = range(count(shapes, rf"{start}resnets\.(\d{{1,9}})\.") // len(kernels))
    return {
        "in_channels": inputs,
        "hidden_channels": hidden,
        "out_channels": shapes[f"{start}conv_out.weight"][0],
        "upsample_kernel_sizes": kernels,
        "upsample_factors": [_FACTORS[kernel] for kernel in kernels],
        "resnet_kernel_sizes": [shapes[f"{start}resnets.{branch}.convs1.0.weight"][2] for branch in branches],
        "resnet_dilations": [list(_DILATIONS) for _ in branches],
    }


def vocoder_config(shapes: Shapes, stored: Config) -> Config:
    """The config of `LTX2Vocoder`, which makes sound of 24 kHz."""
    return _vocoder_config(shapes, "")


def wide_vocoder_config(shapes: Shapes, stored: Config) -> Config:
    """The config of `LTX2VocoderWithBWE`, which raises the rate from 16 to 48 kHz."""
    raising = _vocoder_config(shapes, "bwe_generator.")
    mel_channels, _ = shapes["mel_stft.mel_basis"]
    length = shapes["mel_stft.stft_fn.forward_basis"][2]
    factor = math.prod(raising["upsample_factors"])  # of mel frames, three samples for each sample of before
    return {
        **_vocoder_config(shapes, "vocoder."),
        **{f"bwe_{key}": value for key, value in raising.items()},
        "filter_length": length,
        "window_length": length,
        "hop_length": factor // 3,
        "num_mel_channels": mel_channels,
    }


_VOCODER_NAMES = (("ups", "upsamplers"), ("resblocks", "resnets"), ("conv_pre", "conv_in"), ("conv_post", "conv_out"))
_OF_VOCODERS = r"(vocoder|bwe_generator)"


def _wide_rules() -> tuple[NameRule, ...]:
    return (
        rule(rf"{_OF_VOCODERS}\.resblocks\.(.+)\.downsample\.lowpass\.(.+)", r"\1.resnets.\2.downsample.\3"),
        rule(rf"{_OF_VOCODERS}\.act_post\.downsample\.lowpass\.(.+)", r"\1.act_out.downsample.\2"),
        rule(rf"{_OF_VOCODERS}\.act_post\.(.+)", r"\1.act_out.\2"),
        *(rule(rf"{_OF_VOCODERS}\.{old}\.(.+)", rf"\1.{new}.\2") for old, new in _VOCODER_NAMES),
        rule(r"mel_stft\..+"),
    )


LTX2_VOCODER = ComponentKind(
    name="ltx2_vocoder",
    label="LTX-2 vocoder",
    layouts=(
        Layout(
            "original",
            "resblocks.0.convs1.0.weight",
            tuple(rule(rf"{old}\.(.+)", rf"{new}.\1") for old, new in _VOCODER_NAMES),
            has=("conv_pre.weight",),
            lacks=("act_post.act.alpha",),
        ),
    ),
    derive_config=vocoder_config,
)
LTX2_WIDE_VOCODER = ComponentKind(
    name="ltx2_wide_vocoder",
    label="LTX-2.3 vocoder",
    layouts=(Layout("original", "bwe_generator.conv_pre.weight", _wide_rules()),),
    derive_config=wide_vocoder_config,
)


# --- upsampler --------------------------------------------------------------------------------------------------


def ltx2_upsampler_config(shapes: Shapes, stored: Config) -> Config:
    """The config of LTX-2's latent upsampler, whose layer that enlarges may be followed by a blur."""
    return {**latent_upsampler_config(shapes, stored), "use_rational_resampler": "upsampler.conv.weight" in shapes}


LTX2_UPSAMPLER = ComponentKind(
    name="ltx2_upsampler",
    label="LTX-2 latent upsampler",
    layouts=(
        Layout(
            "original",
            "initial_conv.weight",
            (rule(r"(?:initial_conv|initial_norm|res_blocks|upsampler|post_upsample_res_blocks|final_conv)\..+"),),
            has=("post_upsample_res_blocks.0.conv1.weight",),
        ),
    ),
    derive_config=ltx2_upsampler_config,
    size="in_channels",
)
KINDS = (
    LTX2_CONNECTORS, LTX2_PROJECTION, LTX2_EMBEDDINGS, LTX2_VAE, LTX2_AUDIO_VAE, LTX2_VOCODER, LTX2_WIDE_VOCODER,
    LTX2_UPSAMPLER,
)  # fmt: skip
