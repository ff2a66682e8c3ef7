"""LTX Video at two scales by diffusers' own pipelines: all parts in memory, one call after the other."""

from pathlib import Path

import diffusers
import numpy as np
import torch
from diffusers.pipelines.ltx.modeling_latent_upsampler import LTXLatentUpsamplerModel
from diffusers.pipelines.ltx.pipeline_ltx_condition import LTXVideoCondition
from torch.nn import functional

from reeltune.engine.solvers import scheduler
from reeltune.engine.stages import load_component
from reeltune.machine import probe
from reeltune.weights.load import load_transformer
from reeltune.weights.wide import products_in_fp32


def load_pipelines(definition, request):
    """`LTXConditionPipeline` and `LTXLatentUpsamplePipeline` with the files of a definition."""
    folder = Path(definition.components)
    parts = {
        part.name: load_component(part, folder / part.name, torch.float32 if part.name == "vae" else torch.bfloat16)
        for part in definition.architecture.parts
        if part.name != "latent_upsampler"
    }
    upsampler = LTXLatentUpsamplerModel.from_pretrained(folder / "latent_upsampler", torch_dtype=torch.float32)
    transformer = load_transformer(Path(definition.slots["transformer"][0].url), "bf16")
    pipeline = diffusers.LTXConditionPipeline(**parts, transformer=transformer, scheduler=scheduler(request))
    pipeline.set_progress_bar_config(disable=True)
    return pipeline, diffusers.LTXLatentUpsamplePipeline(vae=parts["vae"], latent_upsampler=upsampler)


def two_scale_latents(pipelines, request, images, first_times, second_times, **options):
    """Latents by both pipelines. `first_times`, `second_times`: timesteps from 1000; `options` of both calls."""
    pipeline, upsample = pipelines
    generator = torch.Generator().manual_seed(request.seed)
    pairs = [(images.start, 0), (images.end, request.frames - 1)]
    conditions = [LTXVideoCondition(image=image, frame_index=at) for image, at in pairs if image] or None
    width, height = (int(side * 2 / 3) // 32 * 32 for side in (request.width, request.height))
    call = {
        "prompt": request.prompt, "negative_prompt": request.negative_prompt, "num_frames": request.frames,
        "frame_rate": request.fps, "conditions": conditions, "generator": generator, "output_type": "latent",
        "guidance_scale": 1.0,
    }  # fmt: skip
    with torch.inference_mode(), products_in_fp32(probe().products_in_fp32("cpu", "bf16")):
        small = pipeline(width=width, height=height, timesteps=first_times, **call | options).frames
        large = upsample(latents=small, adain_factor=1.0, output_type="latent").frames
        return pipeline(
            width=2 * width, height=2 * height, latents=large, timesteps=[1000.0, *second_times],
            denoise_strength=0.999, **call | options,
        ).frames  # fmt: skip


def two_scale_frames(pipelines, request, latents):
    """Frames uint8 of latents, at the size of the request."""
    pipeline, upsample = pipelines
    vae = pipeline.vae
    with torch.inference_mode():
        latents = upsample.tone_map_latents(latents.float(), request.tone_mapping)
        latents = pipeline._denormalize_latents(latents, vae.latents_mean, vae.latents_std, vae.config.scaling_factor)
        pixels = vae.decode(latents, None, return_dict=False)[0]  # [1, 3, frames, height, width]
        frames = functional.interpolate(pixels[0].transpose(0, 1), (request.height, request.width), mode="bilinear")
    frames = ((frames + 1) / 2).clamp(0, 1).permute(0, 2, 3, 1)
    return (frames.numpy() * 255).round().astype(np.uint8)
