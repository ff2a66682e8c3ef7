"""LTX-2 at run time. Its pipeline guides by itself, since three kinds of guidance act on video and sound."""

from __future__ import annotations

from typing import Any

import torch

from reeltune.engine.families import ltx
from reeltune.engine.families.base import Arguments, FamilyRuntime, Latents, Tensors
from reeltune.engine.inputs import InputImages
from reeltune.families.base import AUDIO_VAE, VOCODER, Config
from reeltune.request.values import Pass, Request

_CRF, _CRF_2_5 = 33, 18  # how strongly the images of its training were compressed


class _Connected:
    """Stands in a pipeline for the connectors, whose embeddings are made with those of the prompt."""

    def __init__(self, width: int) -> None:
        self._width = width

    def __call__(self, embeddings: torch.Tensor, mask: torch.Tensor, **_: object) -> tuple[torch.Tensor, ...]:
        """The embeddings [batch, tokens, width] for the video and for the sound, and their mask."""
        streams = embeddings[..., : self._width], embeddings[..., self._width :]
        return (*(stream.contiguous() for stream in streams), mask)


def encode(
    pipeline: Any, request: Request, images: InputImages, config: Config, tokens: int, device: torch.device
) -> Tensors:
    """The embeddings of both prompts for the video, with those for the sound behind them."""
    embeds, mask, negative, negative_mask = ltx.prompt_embeddings(pipeline, request, tokens, device)
    if negative is not None and negative_mask is not None:  # in one batch, as in the pipeline
        embeds, mask = torch.cat([negative, embeds]), torch.cat([negative_mask, mask])
    video, sound, mask = pipeline.connectors(embeds, mask, padding_side="left")
    embeds = torch.cat([video, sound], dim=-1)
    return {
        "prompt_embeds": embeds[-1:],
        "prompt_attention_mask": mask[-1:],
        "negative_prompt_embeds": embeds[:1] if request.guided else None,
        "negative_prompt_attention_mask": mask[:1] if request.guided else None,
    }


def prepare(pipeline: Any, request: Request) -> None:
    """Put in what stands for the connectors."""
    pipeline.register_modules(connectors=_Connected(pipeline.transformer.config.caption_channels))


def arguments(request: Request, images: InputImages, config: Config) -> Arguments:
    """Frame rate, the images that are held at the first and the last frame, and the clip of reference images."""
    found: Arguments = {"frame_rate": float(request.fps), "use_cross_timestep": bool(config["cross_attn_mod"])}
    held = [(images.start, 0), (images.end, -1)]
    if images.clip:
        from diffusers.pipelines.ltx2.pipeline_ltx2_ic_lora import LTX2ReferenceCondition

        found["reference_conditions"] = [LTX2ReferenceCondition(list(images.clip))]
    elif not images.none:
        from diffusers.pipelines.ltx2.pipeline_ltx2_condition import LTX2VideoCondition

        crf = _CRF if config["ff_bias"] else _CRF_2_5
        found["conditions"] = [LTX2VideoCondition(image, index, crf=crf) for image, index in held if image is not None]
    return found


def pass_arguments(scale: Pass, latents: Latents | None) -> Arguments:
    """The levels of noise and the guidance of a pass, and the latents that it starts from."""
    levels = [time / 1000 for time in scale.timesteps]
    guidance = max(scale.guidance, key=lambda row: row.perturbation)  # other steps may have none
    found: Arguments = {
        "sigmas": levels,
        "guidance_scale": guidance.scale,
        "audio_guidance_scale": guidance.sound_scale,
        "spatio_temporal_guidance_blocks": list(guidance.blocks),
    }
    both = {
        "stg_scale": guidance.perturbation,
        "modality_scale": guidance.modality_scale,
        "guidance_rescale": guidance.rescaling,
    }
    found |= {f"{stream}{name}": value for name, value in both.items() for stream in ("", "audio_")}
    if latents is not None:
        found |= {"latents": latents.video, "audio_latents": latents.sound, "noise_scale": levels[0]}
    return found


def as_decoded(latents: torch.Tensor, vae: Any, request: Request) -> torch.Tensor:
    """Latents [1, channels, frames', height', width'] of a pipeline's [1, tokens, channels]; images come last there."""
    side, step = vae.spatial_compression_ratio, vae.temporal_compression_ratio
    height, width = request.height // side, request.width // side
    frames = (request.frames - 1) // step + 1
    rows = latents[:, : frames * height * width].reshape(1, frames, height, width, -1).permute(0, 4, 1, 2, 3)
    mean, std = (values.view(1, -1, 1, 1, 1).to(rows) for values in (vae.latents_mean, vae.latents_std))
    decoded: torch.Tensor = rows * std / vae.config.scaling_factor + mean
    return decoded


def decode(vae: Any, latents: torch.Tensor, request: Request) -> torch.Tensor:
    """Pixels of latents."""
    pixels: torch.Tensor = vae.decode(latents, None, return_dict=False)[0]
    return pixels


def _spectrogram(audio_vae: Any, latents: torch.Tensor) -> torch.Tensor:
    """A mel spectrogram [1, 2, frames, bins] of latents of sound."""
    spectrogram: torch.Tensor = audio_vae.decode(latents, return_dict=False)[0]
    return spectrogram


def _samples(vocoder: Any, spectrogram: torch.Tensor) -> torch.Tensor:
    """Samples [1, 2, samples] of a mel spectrogram."""
    samples: torch.Tensor = vocoder(spectrogram)
    return samples


RUNTIME = FamilyRuntime(
    encode,
    arguments,
    decode,
    pixel_bytes=4 * 128 * 4 // 16,
    frames_at_once=0,
    prepare=prepare,
    pass_arguments=pass_arguments,
    upsampling=("LTX2LatentUpsamplePipeline", {}),
    guides=True,
    as_decoded=as_decoded,
    sound=((AUDIO_VAE, _spectrogram), (VOCODER, _samples)),
)
