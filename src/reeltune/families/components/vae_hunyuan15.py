"""The VAE of Hunyuan Video 1.5, with the names of its release and of diffusers."""

from __future__ import annotations

from reeltune.families.base import Config, Shapes, frozen
from reeltune.families.components.base import ComponentKind, Layout, NameRule, count, rule

_ATTENTION = (("norm", "norm"), ("q", "to_q"), ("k", "to_k"), ("v", "to_v"), ("proj_out", "proj_out"))
_TO_ATTENTION = r"\1.mid_block.attentions.0"


def hunyuan15_vae_config(shapes: Shapes, stored: Config) -> Config:
    """The config of Hunyuan Video 1.5's VAE; everything except the sizes is diffusers' default."""
    blocks = range(count(shapes, r"encoder\.down_blocks\.(\d{1,9})\."))
    return {
        "latent_channels": shapes["decoder.conv_in.conv.weight"][1],
        "block_out_channels": [
            shapes[f"encoder.down_blocks.{block}.resnets.0.conv1.conv.weight"][0] for block in blocks
        ],
        "layers_per_block": count(shapes, r"encoder\.down_blocks\.0\.resnets\.(\d{1,9})\."),
    }


def _original_rules() -> tuple[NameRule, ...]:
    """The names of the release, whose decoder counts its blocks from the first one, as diffusers does."""
    side = "(encoder|decoder)"
    rules = [
        rule(rf"{side}\.(?:conv_in|conv_out|norm_out)\..+"),
        rule(rf"{side}\.mid\.block_1\.(.+)", r"\1.mid_block.resnets.0.\2"),
        rule(rf"{side}\.mid\.block_2\.(.+)", r"\1.mid_block.resnets.1.\2"),
        *(
            rule(rf"{side}\.mid\.attn_1\.{old}\.(.+)", rf"\1.mid_block.attentions.0.{new}.\2")
            for old, new in _ATTENTION
        ),
    ]
    for name, old in (("encoder", "down"), ("decoder", "up")):
        stage = rf"{name}\.{old}\.(\d+)"
        rules.append(rule(rf"{stage}\.block\.(\d+)\.(.+)", rf"{name}.{old}_blocks.\1.resnets.\2.\3"))
        rules.append(rule(rf"{stage}\.{old}sample\.(.+)", rf"{name}.{old}_blocks.\1.{old}samplers.0.\2"))
    return tuple(rules)


HUNYUAN15_VAE = ComponentKind(
    name="hunyuan15_vae",
    label="Hunyuan Video 1.5 VAE",
    layouts=(  # the VAE of Hunyuan Image's refiner has the same names and sizes
        Layout("original", "decoder.mid.block_1.norm1.gamma", _original_rules(), told_by_name=True),
        Layout(
            "diffusers",
            "decoder.up_blocks.0.upsamplers.0.conv.conv.weight",
            (rule(r"(?:encoder|decoder)\..+"),),
            has=("encoder.norm_out.gamma",),
            told_by_name=True,
        ),
    ),
    derive_config=hunyuan15_vae_config,
    published=frozen(latent_channels=32, block_out_channels=[128, 256, 512, 1024, 1024], layers_per_block=2),
    size="latent_channels",
    files=(
        "hunyuan_video_1_5_VAE_fp32.safetensors", "hunyuanvideo15_vae_fp16.safetensors",
        "HunyuanVideo-1.5/vae/diffusion_pytorch_model.safetensors",
    ),
)  # fmt: skip
