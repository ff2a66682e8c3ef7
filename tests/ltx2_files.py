"""LTX-2's published configs, and its components as the original release names them."""

from __future__ import annotations

import re

import torch

State = dict[str, torch.Tensor]

# --- the transformers ---------------------------------------------------------------------------------------------

_ALL = {
    "num_attention_heads": 32, "attention_head_dim": 128, "cross_attention_dim": 4096, "audio_num_attention_heads": 32,
    "audio_attention_head_dim": 64, "audio_cross_attention_dim": 2048, "num_layers": 48, "rope_type": "split",
    "perturbed_attn": True,
}  # fmt: skip
TRANSFORMER_2_0 = _ALL | {"caption_channels": 3840, "use_prompt_embeddings": True}
TRANSFORMER_2_3 = _ALL | {
    "gated_attn": True, "audio_gated_attn": True, "cross_attn_mod": True, "audio_cross_attn_mod": True,
    "use_prompt_embeddings": False,
}  # fmt: skip
TRANSFORMER_2_5 = TRANSFORMER_2_3 | {"ff_bias": False, "use_keyframes_abs_pos_embedding": True}

# --- its components ------------------------------------------------------------------------------------------------

_BLOCKS = {
    "latent_channels": 128, "layers_per_block": (4, 6, 6, 2, 2), "block_out_channels": (256, 512, 1024, 2048),
    "decoder_block_out_channels": (256, 512, 1024), "decoder_layers_per_block": (5, 5, 5, 5),
    "decoder_causal": False, "spatial_compression_ratio": 32, "temporal_compression_ratio": 8,
}  # fmt: skip
VAE_2_0 = _BLOCKS
VAE_2_3 = _BLOCKS | {
    "layers_per_block": (4, 6, 4, 2, 2), "block_out_channels": (256, 512, 1024, 1024),
    "decoder_block_out_channels": (256, 512, 512, 1024), "decoder_layers_per_block": (4, 6, 4, 2, 2),
    "decoder_spatio_temporal_scaling": (True,) * 4, "decoder_inject_noise": (False,) * 5,
    "upsample_type": ("spatiotemporal", "spatiotemporal", "temporal", "spatial"), "upsample_residual": (False,) * 4,
    "upsample_factor": (2, 2, 1, 2), "decoder_spatial_padding_mode": "zeros",
}  # fmt: skip
CONNECTORS_2_0 = {"rope_type": "split"}
CONNECTORS_2_3 = {
    "rope_type": "split", "per_modality_projections": True, "proj_bias": True,
    "video_connector_num_attention_heads": 32, "video_connector_num_layers": 8, "video_gated_attn": True,
    "audio_connector_num_attention_heads": 32, "audio_connector_attention_head_dim": 64,
    "audio_connector_num_layers": 8, "audio_gated_attn": True,
}  # fmt: skip
UPSAMPLER_2_0: dict[str, object] = {}
UPSAMPLER_2_3 = {"use_rational_resampler": False}


def embeddings(state: State) -> State:
    """The connectors without their projections."""
    found = {}
    for name, row in state.items():
        if "text_proj_in" not in name:
            new = re.sub(r"^(video|audio)_connector", r"\1_embeddings_connector", name)
            new = new.replace("transformer_blocks", "transformer_1d_blocks")
            found[re.sub(r"norm_([qk])", r"\1_norm", new)] = row
    return found


def projections(state: State) -> State:
    """What precedes the connectors."""
    return {name.replace("text_proj_in", "aggregate_embed"): row for name, row in state.items() if "text_proj" in name}


def statistics(state: State) -> State:
    """An audio VAE with the names of its statistics."""
    names = {"latents_mean": "mean-of-means", "latents_std": "std-of-means"}
    found = {f"per_channel_statistics.{names[key]}" if key in names else key: row for key, row in state.items()}
    return found | {"per_channel_statistics.channel": torch.zeros(3)}


def vocoder(state: State) -> State:
    """A vocoder of either kind."""
    found = {}
    for name, row in state.items():
        new = re.sub(r"(^|\.)upsamplers\.", r"\1ups.", name)
        new = new.replace("resnets", "resblocks").replace("conv_in", "conv_pre").replace("conv_out", "conv_post")
        new = new.replace("act_out", "act_post")
        found[re.sub(r"downsample\.(?!lowpass)", "downsample.lowpass.", new)] = row
    return found
