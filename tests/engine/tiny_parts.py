"""Tiny random components and checkpoints of every architecture, of the real classes, written as real files."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import torch
import transformers
from diffusers import (
    AutoencoderKLHunyuanVideo,
    AutoencoderKLHunyuanVideo15,
    AutoencoderKLLTX2Audio,
    AutoencoderKLLTX2Video,
    AutoencoderKLLTXVideo,
    AutoencoderKLWan,
    ChronoEditTransformer3DModel,
    HunyuanVideo15Transformer3DModel,
    HunyuanVideoTransformer3DModel,
    Kandinsky5T2VPipeline,
    Kandinsky5Transformer3DModel,
    LTX2VideoTransformer3DModel,
    LTXVideoTransformer3DModel,
    SkyReelsV2Transformer3DModel,
    WanAnimateTransformer3DModel,
    WanTransformer3DModel,
    WanVACETransformer3DModel,
)
from diffusers.pipelines.hunyuan_video import pipeline_hunyuan_video, pipeline_hunyuan_video_image2video
from diffusers.pipelines.ltx.modeling_latent_upsampler import LTXLatentUpsamplerModel
from diffusers.pipelines.ltx2 import LTX2LatentUpsamplerModel, LTX2TextConnectors, LTX2Vocoder, LTX2VocoderWithBWE
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from layouts import original_layout
from reeltune.families.hunyuan import HUNYUAN
from reeltune.families.hunyuan15 import HUNYUAN_1_5
from reeltune.families.kandinsky5 import KANDINSKY_5
from reeltune.families.ltx import LTX
from reeltune.families.ltx2 import LTX_2
from reeltune.families.wan import WAN

BF16 = torch.bfloat16
WAN_CONFIG = {
    "patch_size": (1, 2, 2), "num_attention_heads": 2, "attention_head_dim": 12, "in_channels": 16, "out_channels": 16,
    "text_dim": 32, "freq_dim": 32, "ffn_dim": 32, "num_layers": 2, "cross_attn_norm": True, "rope_max_seq_len": 64,
}  # fmt: skip
HUNYUAN_CONFIG = {
    "in_channels": 16, "out_channels": 16, "num_attention_heads": 2, "attention_head_dim": 16, "num_layers": 1,
    "num_single_layers": 1, "num_refiner_layers": 1, "patch_size": 1, "patch_size_t": 1, "guidance_embeds": True,
    "text_embed_dim": 16, "pooled_projection_dim": 8, "rope_axes_dim": (2, 6, 8),
}  # fmt: skip
HUNYUAN_1_5_CONFIG = {
    "in_channels": 65, "out_channels": 32, "num_attention_heads": 2, "attention_head_dim": 16, "num_layers": 2,
    "num_refiner_layers": 1, "mlp_ratio": 2.0, "text_embed_dim": 16, "text_embed_2_dim": 32, "image_embed_dim": 8,
    "rope_axes_dim": (2, 6, 8),
}  # fmt: skip
KANDINSKY_5_CONFIG = {
    "in_visual_dim": 16, "out_visual_dim": 16, "in_text_dim": 16, "in_text_dim2": 8, "time_dim": 16, "model_dim": 32,
    "ff_dim": 48, "num_text_blocks": 1, "num_visual_blocks": 2, "axes_dims": (4, 6, 6), "visual_cond": True,
}  # fmt: skip
LTX_CONFIG = {
    "in_channels": 8, "out_channels": 8, "num_attention_heads": 4, "attention_head_dim": 8, "cross_attention_dim": 32,
    "num_layers": 1, "caption_channels": 32,
}  # fmt: skip
LTX_2_CONFIG = {
    "in_channels": 8, "out_channels": 8, "num_attention_heads": 4, "attention_head_dim": 8, "cross_attention_dim": 32,
    "audio_in_channels": 16, "audio_out_channels": 16, "audio_num_attention_heads": 4, "audio_attention_head_dim": 4,
    "audio_cross_attention_dim": 16, "num_layers": 2, "caption_channels": 32, "rope_type": "split",
    "perturbed_attn": True,
}  # fmt: skip
LTX_2_3_CONFIG = LTX_2_CONFIG | {
    "gated_attn": True, "audio_gated_attn": True, "cross_attn_mod": True, "audio_cross_attn_mod": True,
    "use_prompt_embeddings": False,
}  # fmt: skip
LTX_2_5_CONFIG = LTX_2_3_CONFIG | {
    "ff_bias": False, "audio_ff_bias": False, "use_prompt_adaln_single": False, "use_keyframes_abs_pos_embedding": True,
}  # fmt: skip
LTX_2_CONFIGS = {
    "ltx2_19B": LTX_2_CONFIG,
    **dict.fromkeys(("ltx2_22B", "ltx2_22B_msr"), LTX_2_3_CONFIG),
    "ltx2_25_22B": LTX_2_5_CONFIG,
}
ANIMATE_CONFIG = {
    "latent_channels": 16, "motion_encoder_channel_sizes": {"4": 8, "8": 6, "16": 4}, "motion_encoder_size": 16,
    "motion_style_dim": 8, "motion_dim": 4, "motion_encoder_dim": 6, "face_encoder_hidden_dim": 8,
    "face_encoder_num_heads": 2, "inject_face_latents_blocks": 1,
}  # fmt: skip
WAN_CLASSES = {
    "vace": WanVACETransformer3DModel, "sky_": SkyReelsV2Transformer3DModel, "animate": WanAnimateTransformer3DModel,
    "chrono": ChronoEditTransformer3DModel,
}  # fmt: skip
LLAMA_TOKENS = ("<pad>", "</s>", "<s>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<image>")


def byte_tokenizer(specials=("<pad>", "</s>", "<s>"), bos=None, eos=True, whole=()):
    """A tokenizer of single bytes; `whole` texts are one token each."""
    vocabulary = {name: index for index, name in enumerate(specials)}
    for sign in sorted(pre_tokenizers.ByteLevel.alphabet()):
        vocabulary.setdefault(sign, len(vocabulary))
    inner = Tokenizer(models.BPE(vocab=vocabulary, merges=[], byte_fallback=False))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens([*specials, *whole])
    ends = ([(bos, vocabulary[bos])] if bos else []) + ([("</s>", vocabulary["</s>"])] if eos else [])
    form = (f"{bos}:0 " if bos else "") + "$A:0" + (" </s>:0" if eos else "")
    inner.post_processor = processors.TemplateProcessing(single=form, special_tokens=ends)
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", eos_token="</s>", bos_token=bos, model_max_length=600
    )


def llama_tokenizer(template, crop_start):
    """Cuts the template before the prompt into exactly `crop_start` tokens, as Llama's does."""
    before = template["template"].partition("{}")[0]
    specials = ("system", "user", "assistant", "\n\n")
    start = before.index("Describe")
    text = before[start : before.index("<|eot_id|>")]
    for tail in range(len(text) - 1):
        whole = (*specials, *filter(None, [text[: len(text) - tail]]))
        tokenizer = byte_tokenizer(LLAMA_TOKENS, bos="<s>", eos=False, whole=whole)
        if len(tokenizer(before)["input_ids"]) == crop_start:
            return tokenizer
    raise AssertionError("the template has changed")


def llama_config():
    return transformers.LlamaConfig(
        bos_token_id=2, eos_token_id=1, pad_token_id=0, hidden_size=16, intermediate_size=32, num_attention_heads=4,
        num_hidden_layers=4, vocab_size=300,
    )  # fmt: skip


def clip_vision(size=28):
    return transformers.CLIPVisionConfig(
        hidden_size=8, projection_dim=8, num_hidden_layers=3, num_attention_heads=2, image_size=size,
        intermediate_size=16, patch_size=14,
    )  # fmt: skip


def _wan_parts(kind):
    vae = {
        "base_dim": 3, "z_dim": 16, "dim_mult": [1, 1, 1, 1], "num_res_blocks": 1,
        "temperal_downsample": [False, True, True],
    }  # fmt: skip
    if kind == "wan22":
        vae |= {
            "z_dim": 48, "in_channels": 12, "out_channels": 12, "is_residual": True, "patch_size": 2,
            "latents_mean": [0.0] * 48, "latents_std": [1.0] * 48, "scale_factor_spatial": 16, "scale_factor_temporal": 4,
        }  # fmt: skip
    text = transformers.UMT5Config(vocab_size=300, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4)
    parts = {
        "tokenizer": byte_tokenizer(), "text_encoder": transformers.UMT5EncoderModel(text), "vae": AutoencoderKLWan(**vae),
    }  # fmt: skip
    if kind == "wan_image":
        parts["image_encoder"] = transformers.CLIPVisionModel(clip_vision())
        parts["image_processor"] = transformers.CLIPImageProcessor(crop_size=28, size=28)
    return parts


def _hunyuan_parts(kind):
    vae = AutoencoderKLHunyuanVideo(
        in_channels=3, out_channels=3, latent_channels=16, down_block_types=("HunyuanVideoDownBlock3D",) * 4,
        up_block_types=("HunyuanVideoUpBlock3D",) * 4, block_out_channels=(8, 8, 8, 8), layers_per_block=1,
        norm_num_groups=4, scaling_factor=0.476986, spatial_compression_ratio=8, temporal_compression_ratio=4,
    )  # fmt: skip
    clip = transformers.CLIPTextConfig(
        bos_token_id=2, eos_token_id=1, pad_token_id=0, hidden_size=8, intermediate_size=16, num_attention_heads=2,
        num_hidden_layers=2, vocab_size=300, projection_dim=8,
    )  # fmt: skip
    parts = {
        "tokenizer_2": byte_tokenizer(bos="<s>"), "text_encoder_2": transformers.CLIPTextModel(clip), "vae": vae,
    }  # fmt: skip
    if kind == "hunyuan":
        template = pipeline_hunyuan_video.DEFAULT_PROMPT_TEMPLATE
        text = transformers.LlamaModel(llama_config())
    else:
        template = pipeline_hunyuan_video_image2video.DEFAULT_PROMPT_TEMPLATE
        text = transformers.LlavaForConditionalGeneration(
            transformers.LlavaConfig(vision_config=clip_vision(336), text_config=llama_config(), image_token_index=6)
        )
        text.config.pad_token_id = 0
        parts["image_processor"] = transformers.CLIPImageProcessor(crop_size=336, size=336)
    return parts | {"tokenizer": llama_tokenizer(template, template["crop_start"]), "text_encoder": text}


QWEN = {
    "hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "num_key_value_heads": 1,
    "num_hidden_layers": 4, "vocab_size": 300, "max_position_embeddings": 2048, "bos_token_id": 2, "eos_token_id": 1,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]},
}  # fmt: skip
CHAT = "{% for row in messages %}{{ row.role }}: {{ row.content }}{% endfor %}assistant:"


def _hunyuan_1_5_parts(kind):
    vae = AutoencoderKLHunyuanVideo15(block_out_channels=(16, 16, 32, 64, 64), layers_per_block=1)
    byt5 = transformers.T5Config(vocab_size=384, d_model=32, d_kv=8, d_ff=37, num_layers=2, num_heads=4)
    tokenizer = byte_tokenizer(eos=False)
    tokenizer.chat_template, tokenizer.model_max_length = CHAT, 2048
    parts = {
        "tokenizer": tokenizer, "tokenizer_2": transformers.ByT5Tokenizer(), "vae": vae,
        "text_encoder": transformers.Qwen2_5_VLTextModel(transformers.Qwen2_5_VLTextConfig(**QWEN)),
        "text_encoder_2": transformers.T5EncoderModel(byt5),
    }  # fmt: skip
    if kind == "hunyuan_1_5_image":
        vision = transformers.SiglipVisionConfig(
            hidden_size=8, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=28,
            patch_size=14,
        )  # fmt: skip
        parts["image_encoder"] = transformers.SiglipVisionModel(vision)
        parts["feature_extractor"] = transformers.SiglipImageProcessor(size={"height": 28, "width": 28})
    return parts


def _kandinsky_5_parts(kind):
    before = Kandinsky5T2VPipeline(*[None] * 7).prompt_template.partition("{}")[0]
    tokens = byte_tokenizer(eos=False, whole=(before[: -(128 - 1)],))  # the template before the prompt: 128 tokens
    assert len(tokens(before)["input_ids"]) == 128
    vision = {"depth": 1, "hidden_size": 8, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 16}
    text = transformers.Qwen2_5_VLForConditionalGeneration(
        transformers.Qwen2_5_VLConfig(text_config=QWEN, vision_config=vision)
    )
    shared = ("tokenizer_2", "text_encoder_2", "vae")
    parts = {name: part for name, part in _hunyuan_parts("hunyuan").items() if name in shared}
    return parts | {"tokenizer": tokens, "text_encoder": text}


def _ltx_parts(kind):
    text = transformers.T5Config(vocab_size=300, d_model=32, d_kv=8, d_ff=37, num_layers=2, num_heads=4)
    vae = AutoencoderKLLTXVideo(
        in_channels=3, out_channels=3, latent_channels=8, block_out_channels=(8, 8, 8, 8),
        decoder_block_out_channels=(8, 8, 8, 8), layers_per_block=(1,) * 5, decoder_layers_per_block=(1,) * 5,
        spatio_temporal_scaling=(True, True, False, False), decoder_spatio_temporal_scaling=(True, True, False, False),
        decoder_inject_noise=(False,) * 5, upsample_residual=(False,) * 4, upsample_factor=(1,) * 4,
        timestep_conditioning=kind == "ltx_timed", patch_size=1, patch_size_t=1, encoder_causal=True, decoder_causal=False,
    )  # fmt: skip
    upsampler = LTXLatentUpsamplerModel(in_channels=8, mid_channels=32, num_blocks_per_stage=1)
    return {
        "tokenizer": byte_tokenizer(), "text_encoder": transformers.T5EncoderModel(text), "vae": vae,
        "latent_upsampler": upsampler,
    }  # fmt: skip


def gemma_3():
    text = {
        "vocab_size": 300, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
        "num_key_value_heads": 1, "head_dim": 16, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2,
    }  # fmt: skip
    vision = {
        "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1, "image_size": 28,
        "patch_size": 14,
    }  # fmt: skip
    config = transformers.Gemma3Config(
        text_config=text, vision_config=vision, mm_tokens_per_image=4, image_token_index=6
    )
    return transformers.Gemma3ForConditionalGeneration(config)


def gemma_4():
    text = {
        "vocab_size": 300, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
        "num_key_value_heads": 1, "head_dim": 16, "global_head_dim": 16,
    }  # fmt: skip
    return transformers.Gemma4UnifiedForConditionalGeneration(transformers.Gemma4UnifiedConfig(text_config=text))


def ltx_2_vocoder(*, wide):
    layers = {"resnet_kernel_sizes": [3, 7, 11], "resnet_dilations": [[1, 3, 5]] * 3}
    if not wide:
        return LTX2Vocoder(in_channels=32, hidden_channels=32, **layers)
    raising = {"in_channels": 16, "hidden_channels": 32, **layers}
    vocoder = LTX2VocoderWithBWE(
        in_channels=32, hidden_channels=64, **layers, **{f"bwe_{key}": value for key, value in raising.items()},
        filter_length=64, window_length=64, num_mel_channels=8,
    )  # fmt: skip
    for name, values in vocoder.named_buffers():  # filters, which are stored: zeros at first
        if "basis" in name:
            values.copy_(torch.rand_like(values) * 0.1)
    with torch.no_grad():  # louder sound would be cut off
        vocoder.vocoder.conv_out.weight.mul_(0.05)
        vocoder.bwe_generator.conv_out.weight.mul_(0.05)
    return vocoder


def _ltx_2_parts(kind):
    first = kind == "ltx_2"
    vae = AutoencoderKLLTX2Video(
        latent_channels=8, block_out_channels=(8, 16, 16, 32), decoder_block_out_channels=(8, 16, 32),
        layers_per_block=(1,) * 5, decoder_layers_per_block=(1,) * 4, decoder_causal=False,
        spatial_compression_ratio=32, temporal_compression_ratio=8,
    )  # fmt: skip
    audio_vae = AutoencoderKLLTX2Audio(
        base_channels=16, ch_mult=(1, 1, 2), num_res_blocks=1, latent_channels=4, mel_bins=16
    )
    for values in (vae.latents_mean, vae.latents_std, audio_vae.latents_mean, audio_vae.latents_std):
        values.copy_(torch.rand_like(values) * 0.5 + 0.5)
    gates = {} if first else {
        "video_gated_attn": True, "audio_gated_attn": True, "per_modality_projections": True, "proj_bias": True,
    }  # fmt: skip
    connectors = LTX2TextConnectors(
        caption_channels=32, text_proj_in_factor=3, video_connector_num_attention_heads=2 if first else 4,
        video_connector_attention_head_dim=16 if first else 8, video_connector_num_layers=1,
        video_connector_num_learnable_registers=8, audio_connector_num_attention_heads=2,
        audio_connector_attention_head_dim=16 if first else 8, audio_connector_num_layers=1,
        audio_connector_num_learnable_registers=8, rope_type="split", video_hidden_dim=32, audio_hidden_dim=16, **gates,
    )  # fmt: skip
    tokenizer = byte_tokenizer(bos="<s>", eos=False)
    tokenizer.model_max_length = 1024
    return {
        "tokenizer": tokenizer, "text_encoder": gemma_4() if kind == "ltx_2_5" else gemma_3(), "vae": vae,
        "connectors": connectors, "audio_vae": audio_vae, "vocoder": ltx_2_vocoder(wide=not first),
        "latent_upsampler": LTX2LatentUpsamplerModel(
            in_channels=8, mid_channels=32, num_blocks_per_stage=1, use_rational_resampler=first
        ),
    }  # fmt: skip


MAKERS = {
    "wan": _wan_parts, "wan_image": _wan_parts, "wan22": _wan_parts, "hunyuan": _hunyuan_parts,
    "hunyuan_image": _hunyuan_parts, "ltx": _ltx_parts, "ltx_timed": _ltx_parts,
    "hunyuan_1_5": _hunyuan_1_5_parts, "hunyuan_1_5_image": _hunyuan_1_5_parts, "kandinsky_5": _kandinsky_5_parts,
    **dict.fromkeys(("ltx_2", "ltx_2_3", "ltx_2_5"), _ltx_2_parts),
}  # fmt: skip


def write_parts(kind: str, folder: Path) -> Path:
    """A folder of components in diffusers layout."""
    torch.manual_seed(0)
    for name, part in MAKERS[kind](kind).items():
        part.save_pretrained(folder / name)
    return folder


@cache
def _random(model_class, **config):
    torch.manual_seed(len(str(config)))
    return model_class(**config).state_dict()


def transformer_files(folder: Path, architecture: str, layout: str = "original") -> dict[str, Any]:
    """Write an architecture's weights, bf16; returns the lists of its definition. `layout`: of Wan's models."""
    if architecture.startswith("hunyuan_1_5"):
        config = HUNYUAN_1_5_CONFIG | {"use_meanflow": architecture.endswith("_step")}
        state = _random(HunyuanVideo15Transformer3DModel, **config)
        layout = "diffusers" if architecture.endswith("_diffusers") else "original"
        stored = {"rope_axes_dim": [2, 6, 8]}
        return {"URLs": [_write(folder / "x_bf16.safetensors", state, HUNYUAN_1_5, stored, layout)]}
    if architecture.startswith("k5_"):
        state = _random(Kandinsky5Transformer3DModel, **KANDINSKY_5_CONFIG)
        state = {name: torch.randn_like(row) * 0.2 for name, row in state.items()}  # some are zeros at first
        return {"URLs": [_write(folder / "x_bf16.safetensors", state, KANDINSKY_5, {})]}
    if architecture.startswith("hunyuan"):
        extra = {"hunyuan_i2v_concat": {"in_channels": 33, "guidance_embeds": False}}.get(architecture, {})
        config, family = HUNYUAN_CONFIG | extra, HUNYUAN
        if architecture == "hunyuan_i2v_token":
            config |= {"image_condition_type": "token_replace"}
        if extra:
            config |= {"image_condition_type": "latent_concat"}
        state = _random(HunyuanVideoTransformer3DModel, **config)
        return {"URLs": [_write(folder / "x_bf16.safetensors", state, family, {"rope_axes_dim": [2, 6, 8]})]}
    if architecture.startswith("ltx2_"):
        config = LTX_2_CONFIGS[architecture.removesuffix("_diffusers")]
        state = _random(LTX2VideoTransformer3DModel, **config)
        layout = "diffusers" if architecture.endswith("_diffusers") else "original"
        stored = {"num_attention_heads": 4, "audio_num_attention_heads": 4}
        lora = {}
        for name, row in state.items():
            if name.endswith("to_v.weight"):
                start = f"diffusion_model.{name.removesuffix('.weight')}"
                lora[f"{start}.lora_A.weight"] = torch.randn(
                    2, row.shape[1], generator=torch.Generator().manual_seed(1)
                )
                lora[f"{start}.lora_B.weight"] = torch.ones(row.shape[0], 2) * 0.2
        folder.mkdir(parents=True, exist_ok=True)
        save_file(lora, folder.parent / "second.safetensors")
        path = _write(folder / "x_bf16.safetensors", state, LTX_2, stored, layout)
        return {"URLs": [path], "ltx2_lora_distilled": str(folder.parent / "second.safetensors")}
    if architecture.startswith("ltxv"):
        state = _random(LTXVideoTransformer3DModel, **LTX_CONFIG)
        return {"URLs": [_write(folder / "x_bf16.safetensors", state, LTX, {"num_attention_heads": 4})]}
    return _wan_files(folder, architecture, layout)


def _wan_files(folder: Path, architecture: str, layout: str) -> dict[str, list[str]]:
    stored = {"num_attention_heads": 2, "rope_max_seq_len": 64}
    config = dict(WAN_CONFIG)
    if architecture in ("i2v", "fun_inp", "fun_inp_1.3B", "flf2v_720p", "animate", "chrono_edit", "wanmove"):
        width = config["num_attention_heads"] * config["attention_head_dim"]
        config |= {"in_channels": 36, "image_dim": 8, "added_kv_proj_dim": width}
    if architecture == "flf2v_720p":
        config["pos_embed_seq_len"] = 2 * 5
    if architecture.startswith("i2v_2_2"):
        config["in_channels"] = 36
    if architecture == "ti2v_2_2":
        config |= {"in_channels": 48, "out_channels": 48}
    if architecture == "lucy_edit":
        config |= {"in_channels": 96, "out_channels": 48}
    if architecture == "sky_df_1.3B":
        config["inject_sample_info"] = True
    if architecture == "animate":
        config |= ANIMATE_CONFIG
    if architecture.startswith("vace"):
        config |= {"vace_layers": [0], "vace_in_channels": 96}
    kinds = [kind for start, kind in WAN_CLASSES.items() if architecture.startswith(start)]
    model_class = kinds[0] if kinds else WanTransformer3DModel
    lists: dict[str, list[str]] = {}
    for key, seed in (
        {"URLs": 0, "URLs2": 1}.items()
        if architecture.endswith(("_2_2", "_svi2pro")) and architecture != "ti2v_2_2"
        else [("URLs", 0)]
    ):
        torch.manual_seed(seed)
        state = model_class(**config).state_dict()
        base = {name: row for name, row in state.items() if not name.startswith("vace_")}
        lists[key] = [_write(folder / f"{key}_bf16.safetensors", base, WAN, stored, layout)]
        if architecture.startswith("vace"):
            module = {name: row for name, row in state.items() if name.startswith("vace_")}
            lists["modules"] = [[_write(folder / "module_bf16.safetensors", module, WAN, {})]]
    return lists


def vace_lora(path: Path, seed: int) -> str:
    """Write a LoRA on the layers of Vace, under the names that DiffSynth gives them; returns the name of its file."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for layer in ("self_attn.q", "self_attn.o", "cross_attn.k", "ffn.0", "ffn.2"):
        out, into = {"ffn.0": (32, 24), "ffn.2": (24, 32)}.get(layer, (24, 24))
        name = f"vace_blocks.0.{layer}"
        state[f"{name}.lora_A.default.weight"] = torch.randn(2, into, generator=generator)
        state[f"{name}.lora_B.default.weight"] = torch.randn(out, 2, generator=generator)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(state, path)
    return path.name


def _write(path, state, family, stored, layout="original"):
    path.parent.mkdir(parents=True, exist_ok=True)
    named = original_layout(state, family) if layout == "original" else state
    weights = {name: row.to(BF16).contiguous() for name, row in named.items()}
    save_file(weights, path, {"format": "pt"} | ({"config": json.dumps(stored)} if stored else {}))
    return str(path)
