"""Tiny components of each family, and the folders in which diffusers, WanGP, ComfyUI and the Hub's cache keep them."""

from __future__ import annotations

import json
import re
import shutil

import tiny_parts
import torch
import transformers
from diffusers import AutoencoderKLHunyuanVideo, AutoencoderKLLTXVideo, AutoencoderKLWan
from diffusers.pipelines.hunyuan_video import pipeline_hunyuan_video, pipeline_hunyuan_video_image2video
from diffusers.pipelines.ltx.modeling_latent_upsampler import LTXLatentUpsamplerModel

import comfyui
import wangp
from reeltune.families import ARCHITECTURES
from reeltune.families.components.vae import wan22_vae_config

BF16 = torch.bfloat16
COMMIT = "0123456789abcdef"
PIECES = [("<pad>", 0.0, 3), ("</s>", 0.0, 3), ("<unk>", 0.0, 2), ("▁", -2.0, 1),
          *((letter, -4.0, 1) for letter in "abcdefghijklmnopqrstuvwxyz")]  # fmt: skip
T5_LINEARS = r".*(SelfAttention\.[qkvo]|DenseReluDense\.w[io].*)\.weight"
LTX_VAE = {
    "latent_channels": 8, "block_out_channels": (4, 8, 16, 32, 64), "decoder_block_out_channels": (8, 16, 32),
    "layers_per_block": (1,) * 5, "decoder_layers_per_block": (1,) * 4,
    "down_block_types": ("LTXVideo095DownBlock3D",) * 4, "spatio_temporal_scaling": (True,) * 4,
    "decoder_spatio_temporal_scaling": (True,) * 3, "decoder_inject_noise": (False,) * 4,
    "downsample_type": ("spatial", "temporal", "spatiotemporal", "spatiotemporal"), "upsample_residual": (True,) * 3,
    "upsample_factor": (2,) * 3, "timestep_conditioning": True, "patch_size": 4, "spatial_compression_ratio": 32,
    "temporal_compression_ratio": 8,
}  # fmt: skip


def _wan(architecture):
    text = transformers.UMT5Config(
        vocab_size=40, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, feed_forward_proj="gated-gelu"
    )
    models = {
        "tokenizer": transformers.T5Tokenizer(vocab=[(text, score) for text, score, _ in PIECES], extra_ids=0),
        "text_encoder": transformers.UMT5EncoderModel(text).to(BF16),
        "vae": AutoencoderKLWan(base_dim=4),
    }
    if architecture == "ti2v_2_2":
        published = wan22_vae_config(
            {
                "encoder.conv_in.weight": (160, 12),
                "post_quant_conv.weight": (48,),
                "decoder.conv_out.weight": (12, 256),
            },
            {},
        )
        models["vae"] = AutoencoderKLWan(**{**published, "base_dim": 4, "decoder_base_dim": 4})
    if architecture == "i2v":
        vision = transformers.CLIPVisionConfig(
            hidden_size=8, num_hidden_layers=3, num_attention_heads=1, image_size=28, intermediate_size=16,
            patch_size=14, hidden_act="gelu",
        )  # fmt: skip
        models["image_encoder"] = transformers.CLIPVisionModel(vision).to(BF16)
        models["image_processor"] = transformers.CLIPImageProcessor(crop_size=28, size=28)
    return models


def _hunyuan(architecture):
    language = transformers.LlamaConfig(
        vocab_size=300, hidden_size=16, intermediate_size=32, num_hidden_layers=4, num_attention_heads=1,
        num_key_value_heads=1, rms_norm_eps=1e-5, rope_parameters={"rope_type": "default", "rope_theta": 500_000.0},
        pad_token_id=0, bos_token_id=2, eos_token_id=1,
    )  # fmt: skip
    vision = transformers.CLIPVisionConfig(
        hidden_size=8, num_hidden_layers=3, num_attention_heads=1, image_size=336, intermediate_size=16, patch_size=14
    )
    config = transformers.LlavaConfig(vision_config=vision, text_config=language, image_token_index=6)
    config.pad_token_id = 0
    whole = transformers.LlavaForConditionalGeneration(config).to(BF16)
    clip = transformers.CLIPTextConfig(
        bos_token_id=0, eos_token_id=2, pad_token_id=1, hidden_size=8, intermediate_size=16, num_attention_heads=1,
        num_hidden_layers=2, vocab_size=300,
    )  # fmt: skip
    pipeline = pipeline_hunyuan_video_image2video if architecture == "hunyuan_i2v" else pipeline_hunyuan_video
    template = pipeline.DEFAULT_PROMPT_TEMPLATE
    models = {
        "tokenizer": tiny_parts.llama_tokenizer(template, template["crop_start"]),
        "text_encoder": whole.model.language_model,
        "tokenizer_2": tiny_parts.byte_tokenizer(bos="<s>"),
        "text_encoder_2": transformers.CLIPTextModel(clip).to(BF16),
        "vae": AutoencoderKLHunyuanVideo(block_out_channels=(32, 32, 32, 32)),
    }
    if architecture == "hunyuan_i2v":
        models["text_encoder"] = whole
        models["image_processor"] = transformers.CLIPImageProcessor(crop_size=336, size=336)
    return models | {"whole": whole}


def _ltx(architecture):
    text = transformers.T5Config(
        vocab_size=300, d_model=32, d_kv=8, d_ff=37, num_layers=2, num_heads=4, feed_forward_proj="gated-gelu"
    )
    return {
        "tokenizer": tiny_parts.byte_tokenizer(),
        "text_encoder": transformers.T5EncoderModel(text).to(BF16),
        "vae": AutoencoderKLLTXVideo(**LTX_VAE),
        "latent_upsampler": LTXLatentUpsamplerModel(
            in_channels=LTX_VAE["latent_channels"], mid_channels=32, num_blocks_per_stage=1
        ),
    }


def _qwen():
    """Qwen2.5-VL as its releases are, but small."""
    text = {
        "vocab_size": 300, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 4, "num_attention_heads": 1,
        "num_key_value_heads": 1, "rms_norm_eps": 1e-6, "bos_token_id": 0, "eos_token_id": 0,
        "max_position_embeddings": 128_000,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000.0, "mrope_section": [2, 3, 3]},
    }  # fmt: skip
    vision = {"depth": 1, "hidden_size": 8, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 16}
    config = transformers.Qwen2_5_VLConfig(text_config=text, vision_config=vision)
    return transformers.Qwen2_5_VLForConditionalGeneration(config).to(BF16)


def _hunyuan_1_5(architecture):
    image = architecture.endswith("i2v")
    models = tiny_parts.MAKERS["hunyuan_1_5"]("hunyuan_1_5_image" if image else "hunyuan_1_5")
    glyphs = transformers.T5Config(
        vocab_size=384, d_model=32, d_kv=8, d_ff=37, num_layers=2, num_heads=4, feed_forward_proj="gated-gelu"
    )
    whole = _qwen()
    models |= {
        "whole": whole, "text_encoder": whole.model.language_model,
        "text_encoder_2": transformers.T5EncoderModel(glyphs).to(BF16),
    }  # fmt: skip
    if image:
        vision = transformers.SiglipVisionConfig(
            hidden_size=8,
            intermediate_size=16,
            num_hidden_layers=2,
            num_attention_heads=1,
            image_size=28,
            patch_size=14,
        )
        models["image_encoder"] = transformers.SiglipVisionModel(vision).to(BF16)
    return models


def _kandinsky_5(architecture):
    models = _hunyuan("hunyuan")
    whole = _qwen()
    tokenizer = tiny_parts.MAKERS["kandinsky_5"]("kandinsky_5")["tokenizer"]
    return models | {"tokenizer": tokenizer, "text_encoder": whole, "whole": whole}


def models_of(architecture):
    """Tiny models of an architecture, of the published design."""
    torch.manual_seed(0)
    makers = {"wan": _wan, "hunyuan": _hunyuan, "ltx": _ltx, "hunyuan_1_5": _hunyuan_1_5, "kandinsky_5": _kandinsky_5}
    return makers[ARCHITECTURES[architecture].family.name](architecture)


# --- folders ------------------------------------------------------------------------------------------------------


def write_diffusers(models, folder, architecture):
    """A repository in diffusers layout."""
    for component in ARCHITECTURES[architecture].parts:
        models[component.name].save_pretrained(folder / component.name)
    return folder


def write_hub_cache(models, folder, architecture):
    """The same in the Hub's cache: links to blobs."""
    repository = ARCHITECTURES[architecture].components_repo
    top = folder / f"models--{repository.replace('/', '--')}"
    written = write_diffusers(models, folder / "written", architecture)
    (top / "refs").mkdir(parents=True)
    (top / "refs" / "main").write_text(COMMIT)
    (top / "blobs").mkdir()
    for number, path in enumerate(sorted(file for file in written.rglob("*") if file.is_file())):
        blob = top / "blobs" / f"{number:064x}"
        shutil.move(path, blob)
        link = top / "snapshots" / COMMIT / path.relative_to(written)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(blob)
    shutil.rmtree(written)
    return folder


def _stored(architecture):
    """What tiny vocabularies don't have: the published number of the token for images."""
    return {"config": json.dumps({"image_token_index": 6})} if architecture in ("hunyuan", "hunyuan_i2v") else None


def _write_qwen_of_wangp(models, ckpts):
    folder = ckpts / "Qwen2.5-VL-7B-Instruct"
    models["tokenizer"].save_pretrained(folder)
    wangp.write(folder / "Qwen2.5-VL-7B-Instruct_bf16.safetensors", comfyui.qwen(models["whole"].state_dict()))


def _write_hunyuan_1_5_of_wangp(models, ckpts):
    _write_qwen_of_wangp(models, ckpts)
    stack = {name.removeprefix("encoder."): row for name, row in models["text_encoder_2"].state_dict().items()}
    glyphs = ckpts / "Glyph-SDXL-v2" / "byt5-small"
    wangp.write(glyphs / "byt5_model.safetensors", {name: row for name, row in stack.items() if "shared" not in name})
    bytes_alone = transformers.T5Config(vocab_size=384, d_model=16, d_kv=8, d_ff=8, num_layers=1, num_heads=2)
    transformers.T5ForConditionalGeneration(bytes_alone).save_pretrained(glyphs)  # without what was learned of glyphs
    vae = comfyui.hunyuan15_vae(models["vae"].state_dict())
    wangp.write(ckpts / "hunyuan_video_1_5_VAE_fp32.safetensors", vae)
    if "image_encoder" in models:
        models["image_encoder"].save_pretrained(ckpts / "siglip_vision_model")
        models["feature_extractor"].save_pretrained(ckpts / "siglip_vision_model")


def write_wangp(models, ckpts, architecture):
    """WanGP's folder `ckpts`."""
    family = ARCHITECTURES[architecture].family.name
    if family == "hunyuan_1_5":
        _write_hunyuan_1_5_of_wangp(models, ckpts)
        return ckpts
    if family == "kandinsky_5":
        _write_qwen_of_wangp(models, ckpts)
        _write_clip_of_wangp(models, ckpts)
        return ckpts
    text = models["text_encoder"].state_dict()
    if family == "wan":
        models["tokenizer"].save_pretrained(ckpts / "umt5-xxl")
        wangp.write(ckpts / wangp.UMT5_FILE, wangp.umt5(text))
        if architecture == "ti2v_2_2":
            wangp.write(ckpts / "Wan2.2_VAE.safetensors", comfyui.wan22_vae(models["vae"].state_dict()))
        else:
            wangp.write(ckpts / wangp.VAE_FILE, wangp.wan_vae(models["vae"].state_dict()))
        if "image_encoder" in models:
            wangp.write(ckpts / wangp.CLIP_FILE, wangp.open_clip(models["image_encoder"].state_dict()))
    elif family == "hunyuan":
        folder = ckpts / "llava-llama-3-8b"
        models["tokenizer"].save_pretrained(folder)
        whole = comfyui.llava(models["whole"].state_dict())
        wangp.write(folder / "llava-llama-3-8b-v1_1_vlm_fp16.safetensors", whole, _stored(architecture))
        _write_clip_of_wangp(models, ckpts)
    else:
        models["tokenizer"].save_pretrained(ckpts / "T5_xxl_1.1")
        wangp.write(ckpts / "T5_xxl_1.1" / "T5_xxl_1.1_enc_bf16.safetensors", _one_name(text))
        vae = comfyui.prefixed("vae.", comfyui.ltx_vae(models["vae"].state_dict()))
        wangp.write(ckpts / "ltxv_0.9.7_VAE.safetensors", vae)
        wangp.write(ckpts / "ltxv_0.9.8_spatial_upscaler.safetensors", models["latent_upsampler"].state_dict())
    return ckpts


def _write_clip_of_wangp(models, ckpts):
    """CLIP-L and the VAE of Hunyuan Video."""
    models["text_encoder_2"].save_pretrained(ckpts / "clip_vit_large_patch14")
    models["tokenizer_2"].save_pretrained(ckpts / "clip_vit_large_patch14")
    vae = comfyui.prefixed("vae.", models["vae"].state_dict())
    wangp.write(ckpts / "hunyuan_video_VAE_fp32.safetensors", vae)


def _one_name(state):
    return {name: row for name, row in state.items() if name != "encoder.embed_tokens.weight"}


def write_comfyui(models, home, architecture):
    """An installation of ComfyUI: its folder `models`, a folder that its YAML names, and its own tokenizers.

    Text encoders are in scaled fp8 and the models get the same numbers; so their videos are comparable.
    """
    family = ARCHITECTURES[architecture].family.name
    folder, extra = home / "models", home.parent / "more"
    text, vae = models["text_encoder"].state_dict(), models["vae"].state_dict()
    if family == "wan":
        found = _fp8(models["text_encoder"], _one_name(text), T5_LINEARS)
        found["spiece_model"] = comfyui.sentencepiece(PIECES)
        wangp.write(folder / "text_encoders" / "umt5_xxl_fp8_e4m3fn_scaled.safetensors", found)
        if architecture == "ti2v_2_2":
            wangp.write(extra / "vae" / "wan2.2_vae.safetensors", comfyui.wan22_vae(vae))
        else:
            wangp.write(extra / "vae" / "wan_2.1_vae.safetensors", wangp.wan_vae(vae))
        if "image_encoder" in models:
            vision = comfyui.prefixed("vision_model.", models["image_encoder"].state_dict())
            wangp.write(folder / "clip_vision" / "clip_vision_h.safetensors", vision)
    elif family == "hunyuan":
        language = models["whole"].model.language_model
        found = _fp8(language, language.state_dict(), r"layers.*_proj\.weight")
        found = {name if name == "scaled_fp8" else f"model.{name}": row for name, row in found.items()}
        wangp.write(folder / "text_encoders" / "llava_llama3_fp8_scaled.safetensors", found, _stored(architecture))
        wangp.write(
            folder / "clip_vision" / "llava_llama3_vision.safetensors",
            comfyui.llava_vision(models["whole"].state_dict()),
        )
        _write_clip_of_comfyui(models, home)
        models["tokenizer"].save_pretrained(home / "comfy" / "text_encoders" / "llama_tokenizer")
    elif family == "hunyuan_1_5":
        _write_qwen_of_comfyui(models, home)
        glyphs = _one_name(models["text_encoder_2"].state_dict())
        wangp.write(folder / "text_encoders" / "byt5_small_glyphxl_fp16.safetensors", glyphs)
        wangp.write(extra / "vae" / "hunyuanvideo15_vae_fp16.safetensors", comfyui.hunyuan15_vae(vae))
        if "image_encoder" in models:
            vision = comfyui.prefixed("vision_model.", models["image_encoder"].state_dict())
            wangp.write(folder / "clip_vision" / "sigclip_vision_patch14_384.safetensors", vision)
    elif family == "kandinsky_5":
        _write_qwen_of_comfyui(models, home)
        _write_clip_of_comfyui(models, home)
    else:
        wangp.write(folder / "text_encoders" / "t5xxl_fp16.safetensors", text)
        wangp.write(
            folder / "checkpoints" / "ltxv-13b-0.9.8-dev.safetensors",
            comfyui.prefixed("vae.", comfyui.ltx_vae(vae)) | {"model.diffusion_model.x": torch.zeros(1)},
        )
        wangp.write(
            folder / "upscale_models" / "ltxv-spatial-upscaler-0.9.8.safetensors",
            models["latent_upsampler"].state_dict(),
        )
        models["tokenizer"].save_pretrained(home / "comfy" / "text_encoders" / "t5_tokenizer")
    (home / "comfy").mkdir(exist_ok=True)
    (home / "extra_model_paths.yaml").write_text(
        "my_disk:\n    base_path: ../more\n    is_default: true\n    vae: vae/\n    loras: |\n        loras/\n        old/\n"
    )
    return home


def _write_clip_of_comfyui(models, home):
    """CLIP-L and the VAE of Hunyuan Video."""
    clip = comfyui.prefixed("text_model.", models["text_encoder_2"].state_dict())
    wangp.write(home / "models" / "clip" / "clip_l.safetensors", clip)
    vae = comfyui.hunyuan_vae(models["vae"].state_dict())
    wangp.write(home.parent / "more" / "vae" / "hunyuan_video_vae_bf16.safetensors", vae)
    models["tokenizer_2"].save_pretrained(home / "comfy" / "sd1_tokenizer")


def _write_qwen_of_comfyui(models, home):
    language = models["whole"].model.language_model
    found = _fp8(language, language.state_dict(), r"layers.*_proj\.weight")
    found = {name if name == "scaled_fp8" else f"model.{name}": row for name, row in found.items()}
    rest = {name: row for name, row in comfyui.qwen(models["whole"].state_dict()).items() if "model." not in name}
    wangp.write(home / "models" / "text_encoders" / "qwen_2.5_vl_7b_fp8_scaled.safetensors", found | rest)
    models["tokenizer"].save_pretrained(home / "comfy" / "text_encoders" / "qwen25_tokenizer")


def _fp8(model, state, layers):
    quantized, plain = comfyui.scaled_fp8(state, layers)
    model.load_state_dict(plain, strict=False)
    assert sum(row.dtype == comfyui.FP8 for row in quantized.values()) > 5
    return {re.sub("^encoder.embed_tokens", "shared", name): row for name, row in quantized.items()}
