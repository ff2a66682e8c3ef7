"""A component from a file in every layout computes the same bits as the class that the file was made from."""

import contextlib
import json
import re
from random import Random

import pytest
import torch
import transformers
from accelerate import init_empty_weights
from diffusers import (
    AutoencoderKLHunyuanVideo,
    AutoencoderKLHunyuanVideo15,
    AutoencoderKLLTX2Audio,
    AutoencoderKLLTX2Video,
    AutoencoderKLLTXVideo,
    AutoencoderKLWan,
)
from diffusers.loaders.single_file_utils import (
    convert_ltx2_audio_vae_to_diffusers,
    convert_ltx2_vae_to_diffusers,
    convert_ltx_vae_checkpoint_to_diffusers,
    convert_wan_vae_to_diffusers,
)
from diffusers.pipelines.ltx2 import LTX2LatentUpsamplerModel, LTX2TextConnectors, LTX2Vocoder, LTX2VocoderWithBWE
from torchao.quantization import Int8Tensor

import comfyui
import ltx2_files
import nvfp4_files
import wangp
from reeltune.checkpoints.components import component_names
from reeltune.checkpoints.contents import Header, Tensor
from reeltune.checkpoints.formats import format_by_header
from reeltune.checkpoints.identify import identify
from reeltune.engine.stages import load_component
from reeltune.errors import CheckpointError, UnsupportedFormat
from reeltune.families import ARCHITECTURES
from reeltune.families.components import KINDS
from reeltune.families.components.vae import ltx_vae_config, wan22_vae_config

BF16, FP32 = torch.bfloat16, torch.float32
T5_LINEARS = r".*(SelfAttention\.[qkvo]|DenseReluDense\.w[io].*)\.weight"
LLAMA_LINEARS = r".*_proj\.weight"


def part(architecture, name):
    return next(row for row in ARCHITECTURES[architecture].parts if row.name == name)


def seeded(model, dtype=BF16):
    torch.manual_seed(0)
    for row in model.parameters():
        row.data = torch.randn_like(row) * (0.3 if row.dim() > 1 else 0.1) + (row.dim() == 1)
    for row in model.parameters():  # not buffers: the libraries keep them in fp32
        row.data = row.data.to(dtype)
    return model.eval()


def t5(kind=transformers.UMT5EncoderModel, config=transformers.UMT5Config):
    sizes = {"vocab_size": 50, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 3, "num_heads": 4}
    model = seeded(kind(config(**sizes, feed_forward_proj="gated-gelu")))
    model.tie_weights()
    return model


def llama_config():
    return transformers.LlamaConfig(
        vocab_size=60, hidden_size=16, intermediate_size=24, num_hidden_layers=3, num_attention_heads=1,
        num_key_value_heads=1, rms_norm_eps=1e-5, rope_parameters={"rope_type": "default", "rope_theta": 500_000.0},
        pad_token_id=0,
    )  # fmt: skip


def llava():
    vision = transformers.CLIPVisionConfig(
        hidden_size=8, num_hidden_layers=3, num_attention_heads=1, image_size=28, intermediate_size=16, patch_size=14
    )
    config = transformers.LlavaConfig(vision_config=vision, text_config=llama_config(), image_token_index=6)
    config.pad_token_id = 0
    return seeded(transformers.LlavaForConditionalGeneration(config))


def clip_text():
    return seeded(
        transformers.CLIPTextModel(
            transformers.CLIPTextConfig(
                vocab_size=60, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=1,
                bos_token_id=0, eos_token_id=2, pad_token_id=1,
            )
        )
    )  # fmt: skip


def clip_vision():
    return seeded(
        transformers.CLIPVisionModel(
            transformers.CLIPVisionConfig(
                hidden_size=16, num_hidden_layers=3, num_attention_heads=1, image_size=28, intermediate_size=24,
                patch_size=14, hidden_act="gelu",
            )
        )
    )  # fmt: skip


def qwen():
    """Small, and of the published design: its heads turn with three positions, 2, 3 and 3 of 8 numbers."""
    text = {
        "vocab_size": 60, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3, "num_attention_heads": 1,
        "num_key_value_heads": 1, "rms_norm_eps": 1e-6, "bos_token_id": 0, "eos_token_id": 0,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000.0, "mrope_section": [2, 3, 3]},
    }  # fmt: skip
    vision = {"depth": 1, "hidden_size": 8, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 16}
    config = transformers.Qwen2_5_VLConfig(text_config=text, vision_config=vision)
    return seeded(transformers.Qwen2_5_VLForConditionalGeneration(config))


def byt5():
    return t5(transformers.T5EncoderModel, transformers.T5Config)


def siglip():
    return seeded(
        transformers.SiglipVisionModel(
            transformers.SiglipVisionConfig(
                hidden_size=16, num_hidden_layers=3, num_attention_heads=1, image_size=28, intermediate_size=24,
                patch_size=14,
            )
        )
    )  # fmt: skip


def hunyuan15_vae():
    return seeded(AutoencoderKLHunyuanVideo15(block_out_channels=(16, 16, 32, 64, 64), layers_per_block=1), FP32)


WAN22 = {
    "base_dim": 4, "decoder_base_dim": 6, "z_dim": 5, "in_channels": 12, "out_channels": 12, "is_residual": True,
    "patch_size": 2, "scale_factor_spatial": 16, "latents_mean": [0.0] * 5, "latents_std": [1.0] * 5,
}  # fmt: skip
LTX = {
    "latent_channels": 8, "block_out_channels": (4, 8, 16, 32, 64), "decoder_block_out_channels": (8, 16, 32),
    "layers_per_block": (1, 2, 1, 1, 1), "decoder_layers_per_block": (2, 1, 1, 1),
    "down_block_types": ("LTXVideo095DownBlock3D",) * 4, "spatio_temporal_scaling": (True,) * 4,
    "decoder_spatio_temporal_scaling": (True,) * 3, "decoder_inject_noise": (False,) * 4,
    "downsample_type": ("spatial", "temporal", "spatiotemporal", "spatiotemporal"), "upsample_residual": (True,) * 3,
    "upsample_factor": (2,) * 3, "timestep_conditioning": True, "patch_size": 4, "spatial_compression_ratio": 32,
    "temporal_compression_ratio": 8,
}  # fmt: skip


LTX_2 = {
    "2.0": ltx2_files.VAE_2_0 | {"latent_channels": 8, "layers_per_block": (1, 2, 1, 1, 1), "decoder_layers_per_block": (2, 1, 1, 1),
            "block_out_channels": (4, 8, 16, 32), "decoder_block_out_channels": (8, 16, 32)},
    "2.3": ltx2_files.VAE_2_3 | {"latent_channels": 8, "layers_per_block": (1, 2, 1, 1, 1), "decoder_layers_per_block": (2, 1, 1, 1, 1),
            "block_out_channels": (4, 8, 16, 16), "decoder_block_out_channels": (8, 16, 16, 32)},
}  # fmt: skip


def ltx2_vae(version):
    return seeded(AutoencoderKLLTX2Video(**LTX_2[version]), FP32)


def ltx2_audio_vae():
    sizes = {"base_channels": 16, "ch_mult": (1, 1, 2), "num_res_blocks": 1, "latent_channels": 4, "mel_bins": 16}
    return seeded(AutoencoderKLLTX2Audio(**sizes), FP32)


def ltx2_vocoder(*, wide):
    sizes = {"in_channels": 8, "hidden_channels": 64}
    if not wide:
        return seeded(LTX2Vocoder(**sizes), FP32)
    more = {"bwe_in_channels": 6, "bwe_hidden_channels": 32, "num_mel_channels": 3}
    model = seeded(LTX2VocoderWithBWE(**sizes, **more, filter_length=32, window_length=32), FP32)
    for name, row in model.named_buffers():
        if "basis" in name:
            row.copy_(torch.rand_like(row))
    return model


def ltx2_connectors(version):
    published = ltx2_files.CONNECTORS_2_0 if version == "2.0" else ltx2_files.CONNECTORS_2_3
    heads = {f"{stream}_connector_num_attention_heads": 2 for stream in ("video", "audio")}
    registers = {f"{stream}_connector_num_learnable_registers": 4 for stream in ("video", "audio")}
    sizes = {} if version == "2.0" else {
        "video_connector_attention_head_dim": 16, "audio_connector_attention_head_dim": 8, "video_hidden_dim": 32,
        "audio_hidden_dim": 16,
    }  # fmt: skip
    text = 256 if version == "2.0" else 8
    return seeded(LTX2TextConnectors(caption_channels=text, **{**published, **heads, **registers, **sizes}))


def gemma(kind=transformers.Gemma3TextModel):
    text = {
        "vocab_size": 60, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 7, "num_attention_heads": 1,
        "num_key_value_heads": 1, "head_dim": 256, "pad_token_id": 0,
        "rope_parameters": {
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
        },
    }  # fmt: skip
    if kind is transformers.Gemma3TextModel:
        return seeded(kind(transformers.Gemma3TextConfig(**text)))
    vision = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "image_size": 28, "patch_size": 14}
    return seeded(kind(transformers.Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4)))


# --- what they compute --------------------------------------------------------------------------------------------


def embed(model):
    ids = torch.arange(14).reshape(2, 7)
    return [model(ids, torch.tensor([[1] * 7, [1] * 4 + [0] * 3]), output_hidden_states=True).hidden_states[-2]]


def look_and_read(model):
    pixels = torch.rand(1, 3, 28, 28, generator=torch.Generator().manual_seed(1)).to(model.dtype)
    ids = torch.tensor([[1, *[6] * 4, 9, 11]])
    answer = model(ids, pixels, torch.ones_like(ids), output_hidden_states=True)
    return list(answer.hidden_states)


def look(model):
    pixels = torch.rand(2, 3, 28, 28, generator=torch.Generator().manual_seed(1)).to(model.dtype)
    answer = model(pixels, output_hidden_states=True)
    return [answer.hidden_states[-2], answer.pooler_output]


def pool(model):
    return [model(torch.tensor([[0, 9, 11, 59]])).pooler_output]


def decode(channels):
    def run(model):
        latents = torch.rand(1, channels, 2, 2, 2, generator=torch.Generator().manual_seed(1)).to(model.dtype)
        more = (torch.tensor([0.05]),) if model.config.get("timestep_conditioning") else ()
        frames = model.decode(latents, *more, return_dict=False)[0]
        return [frames, model.encode(frames.clamp(-1, 1)).latent_dist.mode()]

    return run


def decode_frames(model):
    latents = torch.rand(1, 8, 2, 2, 2, generator=torch.Generator().manual_seed(1))
    frames = model.decode(latents, None, return_dict=False)[0]
    return [frames, model.encode(frames.clamp(-1, 1)).latent_dist.mode()]


def decode_sound(model):
    latents = torch.rand(1, 4, 3, 4, generator=torch.Generator().manual_seed(1))
    return [model.decode(latents, return_dict=False)[0]]


def synthesize(model):
    return [model(torch.rand(1, 2, 3, model.config.in_channels // 2, generator=torch.Generator().manual_seed(1)))]


def connect(model):
    states = torch.rand(1, 8, model.config.caption_channels * 49, generator=torch.Generator().manual_seed(1))
    return list(model(states.to(model.dtype), torch.tensor([[0] * 3 + [1] * 5])))


def enlarge(model):
    return [model(torch.rand(1, 6, 2, 3, 4, generator=torch.Generator().manual_seed(1)))]


def same(ours, theirs, compute):
    for row in ours.parameters():  # some kernels compute differently on memory that isn't aligned, as in files
        row.data = row.data.clone()
    with torch.inference_mode():
        for left, right in zip(compute(ours), compute(theirs), strict=True):
            assert right.isfinite().all()
            assert torch.equal(left, right)


def gguf_names(state):
    """T5's names in llama.cpp."""
    found = {}
    for name, tensor in state.items():
        new = name.replace("shared.", "token_embd.").replace("encoder.final_layer_norm", "enc.output_norm")
        new = re.sub(r"encoder\.block\.(\d+)\.layer\.0\.SelfAttention\.([qkvo])\.", r"enc.blk.\1.attn_\2.", new)
        new = re.sub(r"encoder\.block\.(\d+)\.layer\.0\.SelfAttention\.rel\w+", r"enc.blk.\1.attn_rel_b", new)
        new = re.sub(r"encoder\.block\.(\d+)\.layer\.0\.layer_norm", r"enc.blk.\1.attn_norm", new)
        new = re.sub(r"encoder\.block\.(\d+)\.layer\.1\.layer_norm", r"enc.blk.\1.ffn_norm", new)
        for theirs, ours in {"wi_0": "gate", "wi_1": "up", "wo": "down"}.items():
            new = re.sub(rf"encoder\.block\.(\d+)\.layer\.1\.DenseReluDense\.{theirs}", rf"enc.blk.\1.ffn_{ours}", new)
        if "embed_tokens" not in new:
            found[new] = tensor
    return found


def alone(state):
    return {name: row for name, row in state.items() if "embed_tokens" not in name} | {
        "spiece_model": torch.zeros(4, dtype=torch.uint8)
    }


def encoder_alone(state):
    """The encoder of T5 by itself, as ByT5 was trained on glyphs."""
    inside = {name.removeprefix("encoder."): row for name, row in state.items() if "embed_tokens" not in name}
    return {name.replace("shared.", "embed_tokens."): row for name, row in inside.items()}


LLAMA_EXTRA = {"lm_head.weight": torch.zeros(60, 16)}
LAYOUTS = {
    "UMT5, original": ("t2v", "text_encoder", t5, wangp.umt5, embed),
    "UMT5, ComfyUI": ("t2v", "text_encoder", t5, alone, embed),
    "UMT5, llama.cpp": ("t2v", "text_encoder", t5, gguf_names, embed),
    "T5, ComfyUI": ("ltxv_13B", "text_encoder", lambda: t5(transformers.T5EncoderModel, transformers.T5Config), alone, embed),
    "T5, all in one": (
        "ltxv_13B", "text_encoder", lambda: t5(transformers.T5EncoderModel, transformers.T5Config),
        lambda state: comfyui.prefixed("text_encoders.t5xxl.transformer.", state) | {"vae.x": torch.zeros(1)}, embed,
    ),
    "Llama, its own names": ("hunyuan", "text_encoder", lambda: seeded(transformers.LlamaModel(llama_config())), dict, embed),
    "Llama, ComfyUI": (
        "hunyuan", "text_encoder", lambda: seeded(transformers.LlamaModel(llama_config())),
        lambda state: comfyui.prefixed("model.", state) | LLAMA_EXTRA, embed,
    ),
    "Llama, in WanGP's Llava": (
        "hunyuan", "text_encoder", lambda: llava().model.language_model,
        lambda state: comfyui.llava(llava().state_dict()), embed,
    ),
    "Llava, WanGP": ("hunyuan_i2v", "text_encoder", llava, comfyui.llava, look_and_read),
    "Llava, today's names": ("hunyuan_i2v", "text_encoder", llava, dict, look_and_read),
    "Qwen, ComfyUI and WanGP": (
        "hunyuan_1_5_t2v", "text_encoder", lambda: qwen().model.language_model,
        lambda state: comfyui.qwen(qwen().state_dict()), embed,
    ),
    "Qwen, today's names": (
        "k5_lite_t2v", "text_encoder", lambda: qwen().model.language_model, lambda state: qwen().state_dict(), embed,
    ),
    "Qwen, its text part": ("hunyuan_1_5_i2v", "text_encoder", lambda: qwen().model.language_model, dict, embed),
    "ByT5, ComfyUI": ("hunyuan_1_5_t2v", "text_encoder_2", byt5, alone, embed),
    "ByT5, encoder alone": ("hunyuan_1_5_t2v", "text_encoder_2", byt5, encoder_alone, embed),
    "ByT5, as trained": (
        "hunyuan_1_5_t2v", "text_encoder_2", byt5,
        lambda state: comfyui.prefixed("module.text_tower.encoder.", encoder_alone(state)), embed,
    ),
    "SigLIP, ComfyUI": (
        "hunyuan_1_5_i2v", "image_encoder", siglip, lambda state: comfyui.prefixed("vision_model.", state), look,
    ),
    "SigLIP, today's names": ("hunyuan_1_5_i2v", "image_encoder", siglip, dict, look),
    "Hunyuan 1.5 VAE, its release": ("hunyuan_1_5_t2v", "vae", hunyuan15_vae, comfyui.hunyuan15_vae, decode(32)),
    "Hunyuan 1.5 VAE, diffusers' names": ("hunyuan_1_5_t2v", "vae", hunyuan15_vae, dict, decode(32)),
    "CLIP-L, ComfyUI": (
        "hunyuan", "text_encoder_2", clip_text,
        lambda state: comfyui.prefixed("text_model.", state)
        | {"text_projection.weight": torch.zeros(2, 2), "text_model.embeddings.position_ids": torch.zeros(1, 77, dtype=torch.int64)},
        pool,
    ),
    "CLIP vision, ComfyUI": (
        "i2v", "image_encoder", clip_vision,
        lambda state: comfyui.prefixed("vision_model.", state) | {"visual_projection.weight": torch.zeros(2, 2)}, look,
    ),
    "CLIP vision, Wan's release": ("i2v", "image_encoder", clip_vision, wangp.open_clip, look),
    "Wan 2.1 VAE": ("t2v", "vae", lambda: seeded(AutoencoderKLWan(base_dim=4), FP32), wangp.wan_vae, decode(16)),
    "Wan 2.1 VAE, diffusers' names": ("t2v", "vae", lambda: seeded(AutoencoderKLWan(base_dim=4), FP32), dict, decode(16)),
    "Wan 2.2 VAE": ("ti2v_2_2", "vae", lambda: seeded(AutoencoderKLWan(**WAN22), FP32), comfyui.wan22_vae, decode(5)),
    "Wan 2.2 VAE, diffusers' names": ("ti2v_2_2", "vae", lambda: seeded(AutoencoderKLWan(**WAN22), FP32), dict, decode(5)),
    "Hunyuan VAE, its release": (
        "hunyuan", "vae", lambda: seeded(AutoencoderKLHunyuanVideo(block_out_channels=(32, 32, 64, 64)), FP32),
        lambda state: comfyui.prefixed("vae.", state), decode(16),
    ),
    "Hunyuan VAE, latent diffusion": (
        "hunyuan", "vae", lambda: seeded(AutoencoderKLHunyuanVideo(block_out_channels=(32, 32, 64, 64)), FP32),
        comfyui.hunyuan_vae, decode(16),
    ),
    "LTX VAE": ("ltxv_13B", "vae", lambda: seeded(AutoencoderKLLTXVideo(**LTX), FP32), comfyui.ltx_vae, decode(8)),
    "LTX VAE, diffusers' names": ("ltxv_13B", "vae", lambda: seeded(AutoencoderKLLTXVideo(**LTX), FP32), dict, decode(8)),
    "LTX VAE, all in one": (
        "ltxv_13B", "vae", lambda: seeded(AutoencoderKLLTXVideo(**LTX), FP32),
        lambda state: comfyui.prefixed("vae.", comfyui.ltx_vae(state)) | {"model.diffusion_model.x": torch.zeros(1)},
        decode(8),
    ),
    "LTX-2 VAE": ("ltx2_19B", "vae", lambda: ltx2_vae("2.0"), comfyui.ltx_vae, decode_frames),
    "LTX-2 VAE, diffusers' names": ("ltx2_19B", "vae", lambda: ltx2_vae("2.0"), dict, decode_frames),
    "LTX-2.3 VAE, all in one": (
        "ltx2_22B", "vae", lambda: ltx2_vae("2.3"), lambda state: comfyui.prefixed("vae.", comfyui.ltx_vae(state)),
        decode_frames,
    ),
    "LTX-2 audio VAE": ("ltx2_19B", "audio_vae", ltx2_audio_vae, ltx2_files.statistics, decode_sound),
    "LTX-2 audio VAE, diffusers' names": ("ltx2_22B", "audio_vae", ltx2_audio_vae, dict, decode_sound),
    "LTX-2 audio VAE with a vocoder": (
        "ltx2_22B", "audio_vae", ltx2_audio_vae,
        lambda state: comfyui.prefixed("audio_vae.", ltx2_files.statistics(state))
        | comfyui.prefixed("vocoder.", ltx2_files.vocoder(ltx2_vocoder(wide=True).state_dict())), decode_sound,
    ),
    "LTX-2 vocoder": ("ltx2_19B", "vocoder", lambda: ltx2_vocoder(wide=False), ltx2_files.vocoder, synthesize),
    "LTX-2.3 vocoder": (
        "ltx2_22B", "vocoder", lambda: ltx2_vocoder(wide=True),
        lambda state: comfyui.prefixed("vocoder.", ltx2_files.vocoder(state)), synthesize,
    ),
    "LTX-2.3 connectors": ("ltx2_22B", "connectors", lambda: ltx2_connectors("2.3"), dict, connect),
    "LTX-2 upsampler": (
        "ltx2_19B", "latent_upsampler",
        lambda: seeded(LTX2LatentUpsamplerModel(in_channels=6, mid_channels=32, num_blocks_per_stage=2), FP32), dict,
        enlarge,
    ),
    "LTX-2.3 upsampler": (
        "ltx2_22B", "latent_upsampler",
        lambda: seeded(LTX2LatentUpsamplerModel(
            in_channels=6, mid_channels=32, num_blocks_per_stage=1, **ltx2_files.UPSAMPLER_2_3,
        ), FP32), dict, enlarge,
    ),
    "Gemma 3": ("ltx2_19B", "text_encoder", gemma, dict, embed),
    "Gemma 3, ComfyUI": ("ltx2_22B", "text_encoder", gemma, lambda state: comfyui.prefixed("model.", state), embed),
    "Gemma 3, with its vision": (
        "ltx2_22B", "text_encoder", lambda: gemma(transformers.Gemma3ForConditionalGeneration).model.language_model,
        lambda state: dict(gemma(transformers.Gemma3ForConditionalGeneration).state_dict()), embed,
    ),
}  # fmt: skip
STORED = {"config": json.dumps({"image_token_index": 6})}  # tiny vocabularies don't have the published number


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_same_bits(tmp_path, name):
    architecture, component, make, layout, compute = LAYOUTS[name]
    theirs = make()
    dtype = theirs.dtype
    stored = STORED if architecture == "hunyuan_i2v" else None
    path = wangp.write(tmp_path / "anything.safetensors", layout(theirs.state_dict()), stored)
    ours = load_component(part(architecture, component), path, dtype)
    assert type(ours) is type(theirs)
    same(ours, theirs, compute)


@pytest.mark.parametrize("layout", [dict, comfyui.llava])
def test_llava_assembled_from_two_files(tmp_path, layout):
    theirs = llava()
    state = theirs.state_dict()
    text = {name.removeprefix("model.language_model."): row for name, row in state.items() if "language_model" in name}
    language = wangp.write(tmp_path / "llama.safetensors", comfyui.prefixed("model.", text), STORED)
    vision = wangp.write(tmp_path / "vision.safetensors", comfyui.llava_vision(state))
    component = part("hunyuan_i2v", "text_encoder")
    for first, second in ((language, vision), (vision, language)):
        same(load_component(component, first, BF16, more=(second,)), theirs, look_and_read)
    processor = load_component(part("hunyuan_i2v", "image_processor"), vision, BF16)
    whole = load_component(
        part("hunyuan_i2v", "image_processor"), wangp.write(tmp_path / "whole.safetensors", layout(state), STORED), BF16
    )
    assert processor.crop_size == whole.crop_size
    assert processor.crop_size["height"] == 28
    with pytest.raises(CheckpointError, match="No file contains the Llama 3 8B"):
        load_component(component, vision, BF16)


@pytest.mark.parametrize("version", ["2.0", "2.3"])
def test_connectors_assembled_from_two_files(tmp_path, version):
    """WanGP's; the file with both is that of the release, or ComfyUI's for LTX-2."""
    theirs = ltx2_connectors(version)
    state = theirs.state_dict()
    parts = ltx2_files.projections(state), ltx2_files.embeddings(state)
    stored = {"config": json.dumps({"caption_channels": 256, "connector_num_attention_heads": 2})}
    component = part("ltx2_19B" if version == "2.0" else "ltx2_22B", "connectors")
    first = wangp.write(tmp_path / "projection.safetensors", parts[0], stored if version == "2.0" else None)
    second = wangp.write(tmp_path / "embeddings.safetensors", parts[1], stored if version == "2.0" else None)
    whole = comfyui.prefixed("text_embedding_projection.", parts[0])
    whole |= comfyui.prefixed("model.diffusion_model.", parts[1])
    both = wangp.write(tmp_path / "both.safetensors", whole, stored if version == "2.0" else None)
    for path, more in ((first, (second,)), (second, (first,)), (both, ())):
        same(load_component(component, path, BF16, more=more), theirs, connect)


FP8 = {
    "UMT5": ("t2v", "text_encoder", t5, T5_LINEARS, lambda state: state, embed),
    "T5": ("ltxv_13B", "text_encoder", lambda: t5(transformers.T5EncoderModel, transformers.T5Config), T5_LINEARS,
           lambda state: state, embed),
    "Llama": ("hunyuan", "text_encoder", lambda: seeded(transformers.LlamaModel(llama_config())), LLAMA_LINEARS,
              lambda state: comfyui.prefixed("model.", state), embed),
    "Qwen": ("hunyuan_1_5_t2v", "text_encoder", lambda: qwen().model.language_model, LLAMA_LINEARS,
             lambda state: comfyui.prefixed("model.", state), embed),
    "CLIP-L": ("hunyuan", "text_encoder_2", clip_text, r".*(proj|fc\d)\.weight",
               lambda state: comfyui.prefixed("text_model.", state), pool),
}  # fmt: skip


@pytest.mark.parametrize("name", FP8)
def test_scaled_fp8_is_what_its_numbers_are(tmp_path, name):
    """As in umt5_xxl_fp8_e4m3fn_scaled, t5xxl_fp8_e4m3fn_scaled and llava_llama3_fp8_scaled."""
    architecture, component, make, layers, layout, compute = FP8[name]
    theirs = make()
    state = {
        key: row for key, row in theirs.state_dict().items() if "embed_tokens" not in key or name in ("Llama", "Qwen")
    }
    quantized, plain = comfyui.scaled_fp8(state, layers)
    stored = {key if key == "scaled_fp8" else next(iter(layout({key: row}))): row for key, row in quantized.items()}
    path = wangp.write(tmp_path / "fp8.safetensors", stored)
    ours = load_component(part(architecture, component), path, BF16)
    theirs.load_state_dict(plain, strict=False)
    same(ours, theirs, compute)


@pytest.mark.parametrize("kind", nvfp4_files.KINDS)
def test_nvfp4_is_what_its_numbers_are(tmp_path, kind):
    theirs = t5()
    state = {key: row for key, row in theirs.state_dict().items() if "embed_tokens" not in key}

    def is_linear(key):
        return re.fullmatch(T5_LINEARS, key) is not None and state[key].shape[1] % 16 == 0

    stored, numbers, metadata = nvfp4_files.stored_as(state, is_linear, kind)
    assert sum(row.dtype == torch.uint8 and row.ndim == 2 for row in stored.values()) > 4
    path = wangp.write(tmp_path / "x.safetensors", stored, metadata)
    theirs.load_state_dict({key: row.to(BF16) for key, row in numbers.items()}, strict=False)
    same(load_component(part("t2v", "text_encoder"), path, BF16), theirs, embed)


def int8_weights(model):
    return {name for name, row in model.named_parameters() if isinstance(row.data, Int8Tensor)}


@pytest.mark.parametrize(
    "name", ["UMT5, original", "T5, ComfyUI", "Llama, ComfyUI", "Llava, WanGP", "Qwen, ComfyUI and WanGP"]
)
@pytest.mark.parametrize("stored", ["16 bits", "folder", "fp8", "quanto"])
def test_text_encoders_become_int8_while_they_are_loaded(tmp_path, name, stored):
    """From every file and folder the same int8 weights; quanto's files are int8 already."""
    architecture, component, make, layout, _ = LAYOUTS[name]
    theirs = make()
    state, metadata = layout(theirs.state_dict()), dict(STORED)
    linears = T5_LINEARS if "T5" in name else LLAMA_LINEARS
    if "original" in name:
        linears = r"blocks\.\d+\.(attn\.[qkvo]|ffn\..*)\.weight"
    linears = rf"(?!.*vision_).*{linears.removeprefix('.*')}" if "Llava" in name else linears
    if stored == "fp8":
        state, _ = comfyui.scaled_fp8(state, linears)
    if stored == "quanto":
        state, more = wangp.int8(state, linears)
        metadata |= more
    path = wangp.write(tmp_path / "x.safetensors", state, metadata)
    if stored == "folder":
        path = tmp_path / "folder"
        theirs.save_pretrained(path, max_shard_size="8KB")
        assert len(list(path.glob("*.safetensors"))) > 1
    ours = load_component(part(architecture, component), path, BF16, quantize=True)
    kinds = int8_weights(ours)
    assert len(kinds) == 3 * 7
    assert not any("embed" in key or "shared" in key or "norm" in key for key in kinds)
    if stored != "fp8":
        for key in kinds:
            data, scale = wangp.int8({"x.weight": theirs.state_dict()[key]}, r"x\.weight")[0]["x.weight._data"], None
            assert torch.equal(ours.get_parameter(key).qdata, data), (key, scale)
    plain = load_component(part(architecture, component), path, BF16)
    assert int8_weights(plain) == (kinds if stored == "quanto" else set())


def test_qwen_as_a_whole_model_in_a_folder(tmp_path):
    """As in the repositories of Kandinsky 5: names of version 4, and the config of the text inside that of the whole."""
    whole = qwen()
    whole.save_pretrained(tmp_path / "q", max_shard_size="8KB")
    text, component = whole.model.language_model, part("k5_lite_t2v", "text_encoder")
    same(load_component(component, tmp_path / "q", BF16), text, embed)
    ours = load_component(component, tmp_path / "q", BF16, quantize=True)
    assert len(int8_weights(ours)) == 3 * 7
    assert ours.config.rope_parameters == text.config.rope_parameters
    with torch.inference_mode():
        (left,), (right,) = embed(ours), embed(text)
    assert 0 < (left.float() - right.float()).norm() / right.float().norm() < 0.1
    old = json.loads((tmp_path / "q" / "config.json").read_text())
    inside = old.pop("text_config")  # the first releases keep its values beside those of the vision model
    flat = inside | old | {"rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]}, "rope_theta": 1_000_000.0}
    (tmp_path / "q" / "config.json").write_text(json.dumps(flat))
    for quantize in (False, True):
        again = load_component(component, tmp_path / "q", BF16, quantize=quantize)
        assert again.config.hidden_size == 16
        assert again.config.rope_parameters["rope_theta"] == 1_000_000.0
    same(load_component(component, tmp_path / "q", BF16), text, embed)


# --- against diffusers' own converters, at the published sizes ------------------------------------------------------


def header(state):
    tensors = {name: Tensor(name, "BF16", tuple(row.shape), 0, 0) for name, row in state.items()}
    return Header("x", tensors, {}, 0, 0)


def names(kind, state, *, certain=True):
    """Names in the file and in the class, and the config. `certain`: whether no other model has the same header."""
    read = header(state)
    match = next(row for row in identify(read).components if row.kind == kind)
    assert match.has_published_sizes
    assert match.is_published == certain
    found = component_names(read.tensors, KINDS[kind].layout(match.layout), match.prefix)
    assert not found.unknown
    return {stored: places.names[0] for stored, places in found.diffusers.items()}, match.config


def test_vaes_as_diffusers_converts_them():
    with init_empty_weights():
        wan = AutoencoderKLWan()
        ltx = AutoencoderKLLTXVideo(
            **LTX
            | {
                "latent_channels": 128,
                "block_out_channels": (128, 256, 512, 1024, 2048),
                "decoder_block_out_channels": (256, 512, 1024),
                "layers_per_block": (4, 6, 6, 2, 2),
                "decoder_layers_per_block": (5, 5, 5, 5),
            }
        )
    stored = wangp.wan_vae(wan.state_dict())
    ours, _ = names("wan_vae", stored)
    assert ours == {old: new for new, old in convert_wan_vae_to_diffusers({name: name for name in stored}).items()}
    stored = comfyui.prefixed("vae.", comfyui.ltx_vae(ltx.state_dict()))
    ours, config = names("ltx_vae", stored)
    theirs = convert_ltx_vae_checkpoint_to_diffusers(dict(stored))
    assert set(ours.values()) == set(theirs) == set(ltx.state_dict())
    for key, value in config.items():
        actual = ltx.config[key]
        assert value == (list(actual) if isinstance(actual, tuple) else actual), key


def test_ltx2_at_the_published_sizes():
    """The names are those of diffusers' own conversion, and the configs those of its repositories."""
    with init_empty_weights():
        vaes = [AutoencoderKLLTX2Video(**config) for config in (ltx2_files.VAE_2_0, ltx2_files.VAE_2_3)]
        audio_vae = AutoencoderKLLTX2Audio()
        vocoders = [LTX2Vocoder(), LTX2VocoderWithBWE()]
        upsamplers = [
            LTX2LatentUpsamplerModel(**config) for config in (ltx2_files.UPSAMPLER_2_0, ltx2_files.UPSAMPLER_2_3)
        ]
        connectors = [LTX2TextConnectors(**config) for config in (ltx2_files.CONNECTORS_2_0, ltx2_files.CONNECTORS_2_3)]
    cases = [
        *(("ltx2_vae", vae, comfyui.prefixed("vae.", comfyui.ltx_vae(vae.state_dict()))) for vae in vaes),
        ("ltx2_audio_vae", audio_vae, comfyui.prefixed("audio_vae.", ltx2_files.statistics(audio_vae.state_dict()))),
        ("ltx2_vocoder", vocoders[0], ltx2_files.vocoder(vocoders[0].state_dict())),
        ("ltx2_wide_vocoder", vocoders[1], ltx2_files.vocoder(vocoders[1].state_dict())),
        *(("ltx2_upsampler", upsampler, upsampler.state_dict()) for upsampler in upsamplers),
        *(("ltx2_connectors", connector, connector.state_dict()) for connector in connectors),
    ]
    converted = []
    for kind, model, stored in cases:
        ours, config = names(kind, stored)
        assert set(ours.values()) == set(model.state_dict()), kind
        unused = {"video_hidden_dim", "audio_hidden_dim"} if model is connectors[0] else set()
        for key, value in config.items():
            actual = model.config[key]
            assert key in unused or value == (list(actual) if isinstance(actual, tuple) else actual), (kind, key)
        converted.append(set(ours.values()))
    assert converted[0] == set(convert_ltx2_vae_to_diffusers(dict(cases[0][2])))
    theirs = set(convert_ltx2_audio_vae_to_diffusers(dict(cases[2][2])))
    assert converted[2] == theirs - {"per_channel_statistics.channel"}


def meta(make):
    with init_empty_weights():
        return make().state_dict()


def test_components_of_hunyuan_1_5_at_the_published_sizes():
    """Names as in diffusers' script and in the files of WanGP and ComfyUI; the classes have their published configs."""
    vae = meta(AutoencoderKLHunyuanVideo15)
    stored = comfyui.hunyuan15_vae(vae)
    ours, config = names("hunyuan15_vae", stored, certain=False)
    assert ours == hunyuan15_vae_converted(stored)
    assert set(ours.values()) == set(vae)
    assert set(meta(lambda: AutoencoderKLHunyuanVideo15(**config))) == set(vae)
    glyphs = {"vocab_size": 1510, "d_model": 1472, "d_kv": 64, "d_ff": 3584, "num_layers": 12, "num_heads": 6}
    gated = transformers.T5Config(**glyphs, feed_forward_proj="gated-gelu")
    state = meta(lambda: transformers.T5EncoderModel(gated))
    for layout in (alone, encoder_alone):
        ours, config = names("byt5", layout(state))
        assert {key: config[key] for key in glyphs} == glyphs
        assert [row.kind for row in identify(header(layout(state))).components] == ["byt5"]
    so400m = {"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "num_attention_heads": 16,
              "image_size": 384, "patch_size": 14}  # fmt: skip
    state = meta(lambda: transformers.SiglipVisionModel(transformers.SiglipVisionConfig(**so400m)))
    _, config = names("siglip_vision", comfyui.prefixed("vision_model.", state), certain=False)
    assert config == so400m


QWEN_TEXT = {
    "vocab_size": 152_064, "hidden_size": 3584, "intermediate_size": 18_944, "num_hidden_layers": 28,
    "num_attention_heads": 28, "num_key_value_heads": 4, "max_position_embeddings": 128_000, "rms_norm_eps": 1e-6,
    "bos_token_id": 151_643, "eos_token_id": 151_645,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000.0, "mrope_section": [16, 24, 24]},
}  # fmt: skip
QWEN_VISION = {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "out_hidden_size": 3584}


def test_qwen_at_its_published_size():
    """As the header of qwen_2.5_vl_7b_fp8_scaled.safetensors lists it: 1,446 tensors with its scales and its mark."""
    config = transformers.Qwen2_5_VLConfig(text_config=QWEN_TEXT, vision_config=QWEN_VISION)
    whole = meta(lambda: transformers.Qwen2_5_VLForConditionalGeneration(config))
    state = comfyui.qwen(whole)
    layers = [name for name in state if re.search(r"(blocks|layers)\.\d+\..*(proj|qkv)\.weight|merger\.mlp", name)]
    scaled = [name for name in layers if name.endswith(".weight")]
    assert len(state) + 2 * len(scaled) + 1 == 1446
    for shape, name in (
        ((152064, 3584), "lm_head.weight"), ((3584, 18944), "model.layers.27.mlp.down_proj.weight"),
        ((512,), "model.layers.0.self_attn.k_proj.bias"), ((5120, 5120), "visual.merger.mlp.0.weight"),
        ((1280, 3, 2, 14, 14), "visual.patch_embed.proj.weight"), ((3420,), "visual.blocks.0.mlp.gate_proj.bias"),
    ):  # fmt: skip
        assert tuple(state[name].shape) == shape
    read = header(state)
    tensors = dict(read.tensors) | {name: Tensor(name, "F8_E4M3", tuple(state[name].shape), 0, 0) for name in scaled}
    for name in scaled:
        for ending in ("scale_weight", "scale_input"):
            scale = name.removesuffix("weight") + ending
            tensors[scale] = Tensor(scale, "F32", (), 0, 0)
    tensors["scaled_fp8"] = Tensor("scaled_fp8", "F8_E4M3", (0,), 0, 0)
    for found in (identify(read), identify(Header("x", tensors, {}, 0, 0)), identify(header(whole))):
        (match,) = found.components
        assert (match.kind, match.is_published, match.size, match.label) == ("qwen", True, 3584, KINDS["qwen"].label)
        assert dict(match.config) == QWEN_TEXT
    text = {name.removeprefix("model.language_model."): row for name, row in whole.items() if "language_model" in name}
    assert set(names("qwen", state)[0].values()) == set(text)
    (match,) = identify(header(text)).components
    assert match.has_published_sizes
    assert not match.is_published  # Qwen2.5 7B has this header too
    del state["visual.blocks.0.mlp.gate_proj.bias"]
    assert not identify(header(state)).components  # Qwen2-VL 7B


def hunyuan15_vae_converted(stored):
    """The names of the release and what diffusers' script for Hunyuan Video 1.5 calls them."""
    found = {}
    for side, up, layers in (("encoder", "down", 2), ("decoder", "up", 3)):
        modules = {f"{end}.conv": f"{end}.conv" for end in ("conv_in", "conv_out")} | {"norm_out": "norm_out"}
        inner = ("norm1", "norm2", "conv1.conv", "conv2.conv")
        for stage in range(5):
            for block in range(layers):
                own, other = f"{up}.{stage}.block.{block}", f"{up}_blocks.{stage}.resnets.{block}"
                modules |= {f"{own}.{layer}": f"{other}.{layer}" for layer in inner}
            modules[f"{up}.{stage}.{up}sample.conv.conv"] = f"{up}_blocks.{stage}.{up}samplers.0.conv.conv"
        for number in (1, 2):
            modules |= {f"mid.block_{number}.{layer}": f"mid_block.resnets.{number - 1}.{layer}" for layer in inner}
        attention = {"norm": "norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "proj_out"}
        modules |= {f"mid.attn_1.{own}": f"mid_block.attentions.0.{other}" for own, other in attention.items()}
        for own, other in modules.items():
            for kind in ("weight", "bias", "gamma"):
                if f"{side}.{own}.{kind}" in stored:
                    found[f"{side}.{own}.{kind}"] = f"{side}.{other}.{kind}"
    return found


def test_what_comes_without_files_of_its_own(tmp_path):
    """The tokenizer of bytes with its weights, and what prepares images for SigLIP."""
    path = wangp.write(tmp_path / "b.safetensors", alone(byt5().state_dict()) | {})
    ours, theirs = load_component(part("hunyuan_1_5_t2v", "tokenizer_2"), path, BF16), transformers.ByT5Tokenizer()
    text = 'Text "où". '
    assert ours(text)["input_ids"] == theirs(text)["input_ids"]
    assert len(ours) == len(theirs) == 384
    path = wangp.write(tmp_path / "s.safetensors", siglip().state_dict())
    processor = load_component(part("hunyuan_1_5_i2v", "feature_extractor"), path, BF16)
    assert dict(processor.size) == {"height": 28, "width": 28}
    image = torch.randint(0, 255, (3, 40, 60), dtype=torch.uint8)
    published = transformers.SiglipImageProcessor(size={"height": 28, "width": 28}, resample=3, image_mean=[0.5] * 3,
                                                  image_std=[0.5] * 3)  # fmt: skip
    left, right = (row(images=image, return_tensors="pt").pixel_values for row in (processor, published))
    assert left.shape == (1, 3, 28, 28)
    assert torch.equal(left, right)


def test_forged_sizes_raise_what_the_caller_expects():
    for derive in (ltx_vae_config, wan22_vae_config):
        with pytest.raises((KeyError, ValueError)):
            derive({"encoder.conv_in.weight": (4, 7, 3, 3, 3), "post_quant_conv.weight": (2, 2)}, {})


def test_a_component_with_a_missing_layer_is_not_recognized():
    state = t5().state_dict()
    assert [row.kind for row in identify(header(state)).components] == ["umt5"]
    del state["encoder.block.2.layer.1.DenseReluDense.wo.weight"]
    assert not identify(header(state)).components
    assert format_by_header(header(state)).label == "16 bits"


@pytest.mark.parametrize("name", LAYOUTS)
def test_forged_headers_are_identified_or_not_but_raise_nothing(name):
    _, _, make, layout, _ = LAYOUTS[name]
    random = Random(name)
    whole = {key: list(row.shape) for key, row in layout(make().state_dict()).items()}
    for _ in range(60):
        shapes = {key: list(shape) for key, shape in whole.items()}
        for key in random.sample(sorted(shapes), min(len(shapes), random.randint(1, 4))):
            action = random.randrange(4)
            if action == 0:
                del shapes[key]
            elif action == 1:
                shapes[key] = [random.choice([0, 1, 3, 7, 2**40]) for _ in range(random.randrange(6))]
            elif action == 2:
                number = str(random.choice([0, 9, 10**8, 10**12]))
                shapes[re.sub(r"\d+", number, key)] = shapes.pop(key)
            else:
                shapes[key + random.choice([".x", "\n", "._data"])] = shapes[key]
        dtype = random.choice(["BF16", "F8_E4M3"])
        tensors = {key: Tensor(key, dtype, tuple(shape), 0, 0) for key, shape in shapes.items()}
        metadata = {"config": random.choice(["{}", "[", '{"vision_config": 3}'])}
        for match in identify(Header("x", tensors, metadata, 0, 0)).components:
            assert match.size is None or match.size >= 0
            assert match.label


@pytest.mark.parametrize("prefix", ["model.", ""])
@pytest.mark.parametrize(
    "other", ["self_attn.q_proj.bias", "self_attn.q_norm.weight", "pre_feedforward_layernorm.weight"]
)
def test_other_language_models_are_not_llama(prefix, other):
    state = transformers.LlamaModel(llama_config()).state_dict()
    for layer in range(3):
        state[f"layers.{layer}.{other}"] = torch.zeros(16)
    found = identify(header(comfyui.prefixed(prefix, state))).components
    assert [row.kind for row in found] == (["qwen"] if other.endswith("bias") else [])
    assert not any(row.is_published for row in found)
    assert all(row.label.endswith(" or a similar model") for row in found)


# --- SentencePiece inside of a file ---------------------------------------------------------------------------------

PIECES = [("<pad>", 0.0, 3), ("</s>", 0.0, 3), ("<unk>", 0.0, 2), ("▁", -2.0, 1), ("▁a", -1.0, 1), ("▁cat", -1.5, 1),
          *((letter, -4.0, 1) for letter in "abcdefghijklmnopqrstuvwxyz"), ("<extra_id_0>", 0.0, 4)]  # fmt: skip


def umt5_with_tokenizer(tmp_path, tensor):
    state = alone(t5().state_dict()) | {"spiece_model": tensor}
    return wangp.write(tmp_path / "umt5.safetensors", state)


def test_the_tokenizer_in_a_file_of_comfyui(tmp_path):
    path = umt5_with_tokenizer(tmp_path, comfyui.sentencepiece(PIECES))
    ours = load_component(part("t2v", "tokenizer"), path, BF16)
    theirs = transformers.T5Tokenizer(vocab=[(text, score) for text, score, _ in PIECES], extra_ids=0)
    for text in ("a cat", "  a   cat zebra", "A cat!", "", "walks\n a </s>"):
        assert ours(text)["input_ids"] == theirs(text)["input_ids"], text
    padded = ours("a cat", padding="max_length", max_length=9, truncation=True)
    assert padded["input_ids"][:4] == [4, 5, 1, 0]
    assert padded["attention_mask"] == [1] * 3 + [0] * 6
    assert ours.model_max_length > 10_000


@pytest.mark.parametrize("cut", range(0, 60, 7))
def test_damaged_tokenizers_are_typed_errors(tmp_path, cut):
    whole = comfyui.sentencepiece(PIECES)
    for damaged in (whole[: 5 + cut], whole ^ 1, torch.full((40,), 255, dtype=torch.uint8)):
        path = umt5_with_tokenizer(tmp_path, damaged.clone())
        with contextlib.suppress(CheckpointError):  # and nothing else
            load_component(part("t2v", "tokenizer"), path, BF16)


def test_a_format_that_is_not_loaded_is_named(tmp_path):
    state = {name: row.to(torch.int8) for name, row in t5().state_dict().items()}
    path = wangp.write(tmp_path / "x.safetensors", state)
    with pytest.raises(UnsupportedFormat, match="other int8"):
        load_component(part("t2v", "text_encoder"), path, BF16)
