"""LTX-2 by diffusers' own pipelines, as its documentation calls them: all parts in memory, one call after the other."""

import json
from pathlib import Path

import diffusers
import numpy as np
import torch
import transformers
from diffusers.pipelines.ltx2 import LTX2LatentUpsamplePipeline, LTX2LatentUpsamplerModel
from diffusers.pipelines.ltx2.pipeline_ltx2_condition import LTX2VideoCondition
from diffusers.pipelines.ltx2.pipeline_ltx2_ic_lora import LTX2ReferenceCondition
from PIL import Image, ImageOps
from safetensors.torch import load_file
from torch.nn import functional

from reeltune.machine import probe
from reeltune.weights.load import load_transformer
from reeltune.weights.wide import products_in_fp32

LEVELS = [1.0, 0.99375, 0.9875, 0.98125, 0.975, 0.909375, 0.725, 0.421875]
SECOND_LEVELS = LEVELS[-3:]
UNGUIDED = {
    f"{stream}{name}": scale
    for stream in ("", "audio_")
    for name, scale in (("guidance_scale", 1.0), ("stg_scale", 0.0), ("modality_scale", 1.0), ("guidance_rescale", 0.0))
}
PUBLISHED_SCHEDULER = {
    "use_dynamic_shifting": True, "base_shift": 0.95, "max_shift": 2.05, "base_image_seq_len": 1024,
    "max_image_seq_len": 4096, "shift_terminal": 0.1,
}  # fmt: skip


def load_pipeline(definition, settings):
    """`LTX2Pipeline`, or `LTX2ConditionPipeline` for images, with the files of a definition."""
    folder = Path(definition.components)
    classes = {"audio_vae": diffusers.AutoencoderKLLTX2Audio, "vae": diffusers.AutoencoderKLLTX2Video}
    for name, module in (("connectors", diffusers.pipelines.ltx2), ("vocoder", diffusers.pipelines.ltx2)):
        classes[name] = getattr(module, json.loads((folder / name / "config.json").read_text())["_class_name"])
    parts = {
        name: whole.from_pretrained(
            folder / name, torch_dtype=torch.bfloat16 if name == "connectors" else torch.float32
        )
        for name, whole in classes.items()
    }
    text_config = json.loads((folder / "text_encoder" / "config.json").read_text())
    text_class = getattr(transformers, text_config["architectures"][0])
    parts["text_encoder"] = text_class.from_pretrained(folder / "text_encoder", dtype=torch.bfloat16)
    parts["tokenizer"] = transformers.AutoTokenizer.from_pretrained(folder / "tokenizer", padding_side="left")
    pipeline_class = diffusers.LTX2ConditionPipeline if "image_start" in settings else diffusers.LTX2Pipeline
    if "image_refs" in settings:
        pipeline_class = diffusers.LTX2InContextPipeline
    pipeline = pipeline_class(
        **parts,
        transformer=transformer_of(definition),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(**PUBLISHED_SCHEDULER),
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def transformer_of(definition, lora=None, weight=1.0):
    """The transformer; `lora`: the path of a LoRA that is computed beside its layers."""
    model = load_transformer(Path(definition.slots["transformer"][0].url), "bf16")
    rows = {name.removeprefix("diffusion_model."): row for name, row in load_file(lora).items()} if lora else {}
    for name in [name.removesuffix(".lora_A.weight") for name in rows if "lora_A" in name]:
        down, up = (rows[f"{name}.lora_{letter}.weight"].to(torch.bfloat16) for letter in "AB")

        def beside(layer, inputs, output, down=down, up=up):
            return output + functional.linear(functional.linear(inputs[0], down), up) * weight

        model.get_submodule(name).register_forward_hook(beside)
    return model


def by_diffusers(definition, settings, images):
    """Frames uint8 and samples float32 [2, samples] of a tiny case."""
    whole = dict(definition.architecture.defaults) | dict(definition.settings) | settings
    pipeline = load_pipeline(definition, settings)
    width, height = (int(side) for side in whole["resolution"].split("x"))
    single = whole["guidance_phases"] == 1
    distilled = definition.architecture.scales.distilled
    fixed = distilled or whole.get("sample_solver") == "distilled_8_steps"
    guidance = UNGUIDED if distilled else guidance_of(whole)
    generator = torch.Generator().manual_seed(whole["seed"])
    held = [(images.start, 0), (images.end, -1)]
    conditions = [LTX2VideoCondition(image, index) for image, index in held if image is not None]
    call = {
        "prompt": whole["prompt"], "num_frames": whole["video_length"], "frame_rate": 24.0, "generator": generator,
        "output_type": "latent", "use_cross_timestep": pipeline.transformer.config.cross_attn_mod,
        **({"conditions": conditions} if conditions else {}),
    }  # fmt: skip
    if "image_refs" in settings:
        call["reference_conditions"] = [LTX2ReferenceCondition(clip_of(definition, settings), strength=1.0)]
    lora = None if distilled else definition.loras[-1].url
    if fixed:
        pipeline.scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
        if lora:
            pipeline.transformer = transformer_of(definition, lora, 0.5)
    size = (width, height) if single else (width // 2, height // 2)
    steps = {"sigmas": LEVELS} if fixed else {"num_inference_steps": whole["num_inference_steps"]}
    with torch.no_grad(), products_in_fp32(probe().products_in_fp32("cpu", "bf16")):
        small = pipeline(width=size[0], height=size[1], **steps, **call, **guidance)
        if single:
            return _decoded(pipeline, small)
        upsampler = LTX2LatentUpsamplerModel.from_pretrained(
            Path(definition.components) / "latent_upsampler", torch_dtype=torch.float32
        )
        upsample = LTX2LatentUpsamplePipeline(vae=pipeline.vae, latent_upsampler=upsampler)
        large = upsample(latents=small.frames, output_type="latent", return_dict=False)[0]
        pipeline.scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
        if lora and not fixed:
            pipeline.transformer = transformer_of(definition, lora)
        made = pipeline(
            width=width, height=height, latents=large, audio_latents=small.audio, noise_scale=SECOND_LEVELS[0],
            sigmas=SECOND_LEVELS, **call, **UNGUIDED,
        )  # fmt: skip
        return _decoded(pipeline, made)


def clip_of(definition, settings):
    """Two latent frames for each subject, on white, and one for the background, which fills the frame."""
    size = tuple(int(side) for side in settings["resolution"].split("x"))
    background, *subjects = [Image.open(definition.root / name).convert("RGB") for name in settings["image_refs"]]
    frames = []
    for number, subject in enumerate(subjects):
        fitted = ImageOps.pad(subject, size, Image.Resampling.LANCZOS, color="white")
        frames += [fitted] * (9 if number == 0 else 16)
    return frames + [ImageOps.fit(background, size, Image.Resampling.LANCZOS)] * 8


def guidance_of(settings):
    """The arguments for the guidance of full models."""
    perturbed = settings["perturbation_switch"] == 2
    both = {
        "stg_scale": float(perturbed), "modality_scale": settings["alt_guidance_scale"],
        "guidance_rescale": settings["alt_scale"],
    }  # fmt: skip
    return {
        "negative_prompt": settings["negative_prompt"], "guidance_scale": settings["guidance_scale"],
        "audio_guidance_scale": settings["audio_guidance_scale"],
        "spatio_temporal_guidance_blocks": settings["perturbation_layers"] if perturbed else None,
        **both, **{f"audio_{name}": value for name, value in both.items()},
    }  # fmt: skip


def _decoded(pipeline, latents):
    """As in the pipeline, which would round the latents of the video to the data type of the transformer."""
    pixels = pipeline.vae.decode(latents.frames, None, return_dict=False)[0]
    frames = pipeline.video_processor.postprocess_video(pixels, output_type="np")[0]
    samples = pipeline.vocoder(pipeline.audio_vae.decode(latents.audio, return_dict=False)[0])
    return (frames * 255).round().astype(np.uint8), samples[0].clamp(-1, 1).numpy()
