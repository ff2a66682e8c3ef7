"""VAEs: Wan 2.1, Wan 2.2, Hunyuan Video and LTX Video.

The configs are those of the published models, with all sizes taken from the shapes.
"""

from __future__ import annotations

import math

from reeltune.families.base import Config, Shapes, frozen
from reeltune.families.components.base import ComponentKind, Layout, NameRule, count, rule

# --- Wan --------------------------------------------------------------------------------------------------------

_STAGES = range(4)
_DECODER_BLOCKS = range(3)  # of each stage
_UPSAMPLER = 3  # its number in a stage of the decoder
_INNER = (  # of a block
    (r"residual\.0", "norm1"),
    (r"residual\.2", "conv1"),
    (r"residual\.3", "norm2"),
    (r"residual\.6", "conv2"),
    ("shortcut", "conv_shortcut"),
)
# By channel, as published with Wan 2.2: github.com/Wan-Video/Wan2.2, wan/modules/vae2_2.py.
_MEAN_2_2 = (
    -0.2289, -0.0052, -0.1323, -0.2339, -0.2799, 0.0174, 0.1838, 0.1557, -0.1382, 0.0542, 0.2813, 0.0891,
    0.1570, -0.0098, 0.0375, -0.1825, -0.2246, -0.1207, -0.0698, 0.5109, 0.2665, -0.2108, -0.2158, 0.2502,
    -0.2055, -0.0322, 0.1109, 0.1567, -0.0729, 0.0899, -0.2799, -0.1230, -0.0313, -0.1649, 0.0117, 0.0723,
    -0.2839, -0.2083, -0.0520, 0.3748, 0.0152, 0.1957, 0.1433, -0.2944, 0.3573, -0.0548, -0.1681, -0.0667,
)  # fmt: skip
_STD_2_2 = (
    0.4765, 1.0364, 0.4514, 1.1677, 0.5313, 0.4990, 0.4818, 0.5013, 0.8158, 1.0344, 0.5894, 1.0901,
    0.6885, 0.6165, 0.8454, 0.4978, 0.5759, 0.3523, 0.7135, 0.6804, 0.5833, 1.4146, 0.8986, 0.5659,
    0.7069, 0.5338, 0.4889, 0.4917, 0.4069, 0.4999, 0.6866, 0.4093, 0.5709, 0.6065, 0.6415, 0.4944,
    0.5726, 1.2042, 0.5458, 1.6887, 0.3971, 1.0600, 0.3943, 0.5537, 0.5444, 0.4089, 0.7468, 0.7744,
)  # fmt: skip


def wan_vae_config(shapes: Shapes, stored: Config) -> Config:
    """The config of Wan 2.1's VAE; everything except the widths is diffusers' default."""
    return {"base_dim": shapes["encoder.conv_in.weight"][0], "z_dim": shapes["post_quant_conv.weight"][0]}


def wan22_vae_config(shapes: Shapes, stored: Config) -> Config:
    """The config of Wan 2.2's VAE."""
    channels, latents = shapes["encoder.conv_in.weight"][1], shapes["post_quant_conv.weight"][0]
    patch = math.isqrt(channels // 3)
    if channels != 3 * patch * patch:
        raise ValueError(f"{channels} input channels")
    published = latents == len(_MEAN_2_2)
    return {
        "base_dim": shapes["encoder.conv_in.weight"][0],
        "decoder_base_dim": shapes["decoder.conv_out.weight"][1],
        "z_dim": latents,
        "in_channels": channels,
        "out_channels": shapes["decoder.conv_out.weight"][0],
        "is_residual": True,
        "patch_size": patch,
        "scale_factor_spatial": 8 * patch,
        "scale_factor_temporal": 4,
        "latents_mean": list(_MEAN_2_2) if published else [0.0] * latents,
        "latents_std": list(_STD_2_2) if published else [1.0] * latents,
    }


def _wan_common() -> tuple[NameRule, ...]:
    """What both versions have in common: everything but the stages."""
    middle = ((0, "resnets.0"), (2, "resnets.1"))
    return (
        rule(r"conv1\.(.+)", r"quant_conv.\1"),
        rule(r"conv2\.(.+)", r"post_quant_conv.\1"),
        rule(r"(encoder|decoder)\.conv1\.(.+)", r"\1.conv_in.\2"),
        rule(r"(encoder|decoder)\.head\.0\.(.+)", r"\1.norm_out.\2"),
        rule(r"(encoder|decoder)\.head\.2\.(.+)", r"\1.conv_out.\2"),
        rule(r"(encoder|decoder)\.middle\.1\.(.+)", r"\1.mid_block.attentions.0.\2"),
        *(
            rule(rf"(encoder|decoder)\.middle\.{number}\.{old}\.(.+)", rf"\1.mid_block.{name}.{new}.\2")
            for number, name in middle
            for old, new in _INNER
        ),
    )


def _wan_rules() -> tuple[NameRule, ...]:
    """Wan 2.1: the stages of a side are one list."""
    rules = [rule(rf"encoder\.downsamples\.(\d+)\.{old}\.(.+)", rf"encoder.down_blocks.\1.{new}.\2")
             for old, new in _INNER]  # fmt: skip
    rules.append(rule(r"encoder\.downsamples\.(\d+)\.(resample|time_conv)\.(.+)", r"encoder.down_blocks.\1.\2.\3"))
    for stage in _STAGES:
        first = (_UPSAMPLER + 1) * stage
        for block in _DECODER_BLOCKS:
            new_block = f"decoder.up_blocks.{stage}.resnets.{block}"
            rules += [rule(rf"decoder\.upsamples\.{first + block}\.{old}\.(.+)", rf"{new_block}.{new}.\1")
                      for old, new in _INNER]  # fmt: skip
        upsampler = rf"decoder\.upsamples\.{first + _UPSAMPLER}\.(resample|time_conv)\.(.+)"
        rules.append(rule(upsampler, rf"decoder.up_blocks.{stage}.upsamplers.0.\1.\2"))
    return (*_wan_common(), *rules)


def _wan22_rules() -> tuple[NameRule, ...]:
    """Wan 2.2: each stage of a side is a list of its own, which ends in the layer that changes the size."""
    rules: list[NameRule] = []
    for side, old_name, new_name, sampler in (
        ("encoder", "downsamples", "down_blocks", "downsampler"),
        ("decoder", "upsamples", "up_blocks", "upsampler"),
    ):
        stage = rf"{side}\.{old_name}\.(\d+)\.{old_name}\.(\d+)"
        rules += [rule(rf"{stage}\.{old}\.(.+)", rf"{side}.{new_name}.\1.resnets.\2.{new}.\3") for old, new in _INNER]
        rules.append(rule(rf"{stage}\.(resample|time_conv)\.(.+)", rf"{side}.{new_name}.\1.{sampler}.\3.\4"))
    return (*_wan_common(), *rules)


_SAME = (rule(r"(?:encoder|decoder|quant_conv|post_quant_conv)\..+"),)

WAN_VAE = ComponentKind(
    name="wan_vae",
    label="Wan 2.1 VAE",
    layouts=(
        Layout("original", "decoder.upsamples.0.residual.0.gamma", _wan_rules()),
        Layout("diffusers", "decoder.up_blocks.0.upsamplers.0.resample.1.weight", _SAME),
    ),
    derive_config=wan_vae_config,
    published=frozen(base_dim=96, z_dim=16),
    size="z_dim",
    files=(
        "Wan2.1_VAE.safetensors", "wan_2.1_vae.safetensors", "Wan2_1_VAE_bf16.safetensors",
        "Wan2_1_VAE_fp32.safetensors",
    ),
)  # fmt: skip
WAN22_VAE = ComponentKind(
    name="wan22_vae",
    label="Wan 2.2 VAE",
    layouts=(
        Layout("original", "decoder.upsamples.0.upsamples.0.residual.0.gamma", _wan22_rules()),
        Layout("diffusers", "decoder.up_blocks.0.upsampler.resample.1.weight", _SAME),
    ),
    derive_config=wan22_vae_config,
    published=frozen(base_dim=160, decoder_base_dim=256, z_dim=48),
    size="z_dim",
    files=("Wan2.2_VAE.safetensors", "wan2.2_vae.safetensors", "Wan2_2_VAE_bf16.safetensors"),
)


# --- Hunyuan Video ----------------------------------------------------------------------------------------------


def hunyuan_vae_config(shapes: Shapes, stored: Config) -> Config:
    """The config of Hunyuan Video's VAE; everything except the widths is diffusers' default."""
    blocks = range(count(shapes, r"encoder\.down_blocks\.(\d{1,9})\."))
    return {
        "latent_channels": shapes["post_quant_conv.weight"][0],
        "block_out_channels": [
            shapes[f"encoder.down_blocks.{block}.resnets.0.conv1.conv.weight"][0] for block in blocks
        ],
    }


def _ldm_rules() -> tuple[NameRule, ...]:
    """The names of latent diffusion models; the decoder counts its blocks from the last one."""
    attention = (("norm", "group_norm"), ("q", "to_q"), ("k", "to_k"), ("v", "to_v"), ("proj_out", r"to_out.0"))
    side, down, up = "(encoder|decoder)", r"encoder\.down\.(\d+)", r"decoder\.up\."
    last = len(_STAGES) - 1
    rules = [
        rule(r"(?:quant_conv|post_quant_conv)\..+"),
        rule(rf"{side}\.conv_(in|out)\.(.+)", r"\1.conv_\2.\3"),
        rule(rf"{side}\.norm_out\.(.+)", r"\1.conv_norm_out.\2"),
        rule(rf"{side}\.mid\.block_1\.(.+)", r"\1.mid_block.resnets.0.\2"),
        rule(rf"{side}\.mid\.block_2\.(.+)", r"\1.mid_block.resnets.1.\2"),
        *(rule(rf"{side}\.mid\.attn_1\.{old}\.(.+)", rf"\1.mid_block.attentions.0.{new}.\2") for old, new in attention),
        rule(rf"{down}\.block\.(\d+)\.nin_shortcut\.(.+)", r"encoder.down_blocks.\1.resnets.\2.conv_shortcut.\3"),
        rule(rf"{down}\.block\.(\d+)\.(.+)", r"encoder.down_blocks.\1.resnets.\2.\3"),
        rule(rf"{down}\.downsample\.(.+)", r"encoder.down_blocks.\1.downsamplers.0.\2"),
    ]
    for stage in _STAGES:
        block = f"decoder.up_blocks.{last - stage}"
        rules += [
            rule(rf"{up}{stage}\.block\.(\d+)\.nin_shortcut\.(.+)", rf"{block}.resnets.\1.conv_shortcut.\2"),
            rule(rf"{up}{stage}\.block\.(\d+)\.(.+)", rf"{block}.resnets.\1.\2"),
            rule(rf"{up}{stage}\.upsample\.(.+)", rf"{block}.upsamplers.0.\1"),
        ]
    return tuple(rules)


HUNYUAN_VAE = ComponentKind(
    name="hunyuan_vae",
    label="Hunyuan Video VAE",
    layouts=(
        Layout(
            "original",
            "decoder.up_blocks.0.upsamplers.0.conv.conv.weight",
            _SAME,
            has=("encoder.conv_norm_out.weight",),
        ),
        Layout("ComfyUI", "decoder.mid.block_1.conv1.conv.weight", _ldm_rules()),
    ),
    derive_config=hunyuan_vae_config,
    published=frozen(latent_channels=16, block_out_channels=[128, 256, 512, 512]),
    size="latent_channels",
    files=("hunyuan_video_VAE_fp32.safetensors", "hunyuan_video_vae_bf16.safetensors"),
)


# --- LTX Video --------------------------------------------------------------------------------------------------

_TYPE_OF_CHANNELS = {2: "temporal", 4: "spatial", 8: "spatiotemporal"}  # by how many channels become one
_LTX_STAGES = 4  # of the encoder


def ltx_vae_config(shapes: Shapes, stored: Config) -> Config:
    """The config of LTX Video's VAE since version 0.9.5."""
    down = range(count(shapes, r"encoder\.down_blocks\.(\d{1,9})\."))
    up = range(count(shapes, r"decoder\.up_blocks\.(\d{1,9})\."))
    conv = "resnets.0.conv1.conv.weight"
    widths = [shapes[f"encoder.down_blocks.{stage}.{conv}"][0] for stage in down]
    widths.append(shapes[f"encoder.mid_block.{conv}"][0])
    kinds = []
    for stage in down:
        stored_channels = shapes[f"encoder.down_blocks.{stage}.downsamplers.0.conv.conv.weight"][0]
        kinds.append(_TYPE_OF_CHANNELS[widths[stage + 1] // stored_channels])
    decoder_widths = [shapes[f"decoder.up_blocks.{stage}.{conv}"][0] for stage in up]
    before = [shapes[f"decoder.up_blocks.{stage}.upsamplers.0.conv.conv.weight"][1] for stage in up]
    factors = [channels // width for channels, width in zip(before, decoder_widths, strict=True)]
    patch = math.isqrt(shapes["encoder.conv_in.conv.weight"][1] // 3)
    encoder_layers = [_layers(shapes, f"encoder.down_blocks.{stage}") for stage in down]
    decoder_layers = [_layers(shapes, f"decoder.up_blocks.{stage}") for stage in reversed(up)]
    return {
        "latent_channels": shapes["decoder.conv_in.conv.weight"][1],
        "block_out_channels": widths,
        "down_block_types": ["LTXVideo095DownBlock3D"] * len(down),
        "downsample_type": kinds,
        "layers_per_block": [*encoder_layers, _layers(shapes, "encoder.mid_block")],
        "spatio_temporal_scaling": [True] * len(down),
        "decoder_block_out_channels": list(reversed(before)),
        "decoder_layers_per_block": [*decoder_layers, _layers(shapes, "decoder.mid_block")],
        "decoder_spatio_temporal_scaling": [True] * len(up),
        "decoder_inject_noise": [False] * (len(up) + 1),
        "upsample_residual": [True] * len(up),
        "upsample_factor": list(reversed(factors)),
        "timestep_conditioning": "decoder.time_embedder.timestep_embedder.linear_1.weight" in shapes,
        "patch_size": patch,
        "patch_size_t": 1,
        "encoder_causal": True,
        "decoder_causal": False,
        "spatial_compression_ratio": patch * 2 ** sum(kind != "temporal" for kind in kinds),
        "temporal_compression_ratio": 2 ** sum(kind != "spatial" for kind in kinds),
    }


def _layers(shapes: Shapes, block: str) -> int:
    """The number of layers in a block."""
    return count(shapes, rf"{block.replace('.', chr(92) + '.')}\.resnets\.(\d{{1,9}})\.")


def _ltx_rules() -> tuple[NameRule, ...]:
    """The original counts the layers that change the size among the blocks: they have the odd numbers."""
    rules = [
        rule(r"per_channel_statistics\.mean-of-means", "latents_mean"),
        rule(r"per_channel_statistics\.std-of-means", "latents_std"),
        rule(r"(encoder|decoder)\.conv_(in|out)\.(.+)", r"\1.conv_\2.\3"),
        rule(r"decoder\.last_(time_embedder|scale_shift_table)(.*)", r"decoder.\1\2"),
        rule(r"decoder\.timestep_scale_multiplier"),
        rule(rf"encoder\.down_blocks\.{2 * _LTX_STAGES}\.res_blocks\.(.+)", r"encoder.mid_block.resnets.\1"),
        rule(r"decoder\.up_blocks\.0\.res_blocks\.(.+)", r"decoder.mid_block.resnets.\1"),
        rule(r"decoder\.up_blocks\.0\.time_embedder\.(.+)", r"decoder.mid_block.time_embedder.\1"),
    ]
    for stage in range(_LTX_STAGES):
        down, up = f"encoder.down_blocks.{stage}", f"decoder.up_blocks.{stage}"
        rules += [
            rule(rf"encoder\.down_blocks\.{2 * stage}\.res_blocks\.(.+)", rf"{down}.resnets.\1"),
            rule(rf"encoder\.down_blocks\.{2 * stage + 1}\.conv\.(.+)", rf"{down}.downsamplers.0.conv.\1"),
            rule(rf"decoder\.up_blocks\.{2 * stage + 1}\.conv\.(.+)", rf"{up}.upsamplers.0.conv.\1"),
            rule(rf"decoder\.up_blocks\.{2 * stage + 2}\.res_blocks\.(.+)", rf"{up}.resnets.\1"),
            rule(rf"decoder\.up_blocks\.{2 * stage + 2}\.time_embedder\.(.+)", rf"{up}.time_embedder.\1"),
        ]
    return tuple(rules)


LTX_VAE = ComponentKind(
    name="ltx_vae",
    label="LTX Video VAE",
    layouts=(
        Layout(
            "original",
            "encoder.down_blocks.1.conv.conv.weight",
            _ltx_rules(),
            has=("decoder.last_time_embedder.timestep_embedder.linear_1.weight",),  # LTX-2 has none
            ignored=("per_channel_statistics.channel", "per_channel_statistics.mean-of-stds"),
        ),
        Layout(
            "diffusers",
            "encoder.down_blocks.0.downsamplers.0.conv.conv.weight",
            (rule(r"(?:encoder|decoder)\..+"), rule(r"latents_(?:mean|std)")),
            has=("decoder.time_embedder.timestep_embedder.linear_1.weight",),
            lacks=("encoder.conv_norm_out.weight", "encoder.norm_out.gamma"),
        ),
    ),
    derive_config=ltx_vae_config,
    published=frozen(
        latent_channels=128,
        block_out_channels=[128, 256, 512, 1024, 2048],
        decoder_block_out_channels=[256, 512, 1024],
        timestep_conditioning=True,
    ),
    size="latent_channels",
    files=(
        "ltxv_0.9.7_VAE.safetensors", "ltxv-13b-0.9.7-vae.safetensors", "ltxv-13b-0.9.8-dev.safetensors",
        "ltxv-13b-0.9.8-distilled.safetensors",
    ),
)  # fmt: skip


# --- LTX Video's latent upsampler -------------------------------------------------------------------------------


def latent_upsampler_config(shapes: Shapes, stored: Config) -> Config:
    """The config of LTX Video's latent upsampler, which doubles width and height."""
    weight = shapes["initial_conv.weight"]  # [width, channels, 3, 3] or [width, channels, 3, 3, 3]
    if len(shapes.get("upsampler.0.weight", ())) == 5:
        raise ValueError("it is an upsampler for time")
    return {
        "in_channels": weight[1],
        "mid_channels": weight[0],
        "num_blocks_per_stage": count(shapes, r"res_blocks\.(\d{1,9})\."),
        "dims": len(weight) - 2,
    }


LTX_UPSAMPLER = ComponentKind(
    name="ltx_upsampler",
    label="LTX Video latent upsampler",
    layouts=(
        Layout(
            "original",
            "initial_conv.weight",
            (rule(r"(?:initial_conv|initial_norm|res_blocks|upsampler|post_upsample_res_blocks|final_conv)\..+"),),
            has=("post_upsample_res_blocks.0.conv1.weight",),
            lacks=("upsampler.conv.weight",),
        ),
    ),
    derive_config=latent_upsampler_config,
    published=frozen(in_channels=128, mid_channels=512),
    size="in_channels",
    files=(
        "ltxv-spatial-upscaler-0.9.8.safetensors", "ltxv_0.9.8_spatial_upscaler.safetensors",
        "ltxv_0.9.7_spatial_upscaler.safetensors", "ltxv-spatial-upscaler-0.9.7.safetensors",
    ),
)  # fmt: skip
