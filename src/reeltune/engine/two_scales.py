"""Videos that are made at two scales: small first, then enlarged by the latent upsampler and denoised further.

Both loops, and the upsampling between them, are those of diffusers' pipelines.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import diffusers
import torch

from reeltune.engine.families import runtime_of
from reeltune.engine.families.base import Latents
from reeltune.engine.stages import Loop, assemble, generator_of
from reeltune.families import Architecture
from reeltune.families.base import LATENT_UPSAMPLER
from reeltune.request.values import Request

Upsample = Callable[[torch.Tensor], torch.Tensor]


def upsampled(
    latents: torch.Tensor, vae: Any, architecture: Architecture, model: Any, device: torch.device
) -> torch.Tensor:
    """Latents [1, channels, frames', height', width'] at twice the height and width, fp32."""
    name, options = runtime_of(architecture).upsampling
    pipeline = assemble(getattr(diffusers, name), {"vae": vae, LATENT_UPSAMPLER: model}, device)
    with torch.no_grad():
        enlarged: torch.Tensor = pipeline(latents=latents.to(device), output_type="latent", **options).frames
    return enlarged.float()


def denoise_at_two_scales(
    loop: Loop, request: Request, upsample: Upsample, on_pass: Callable[[Request], None]
) -> Latents:
    """From noise to latents at the last scale, fp32.

    `on_pass` is called before each pass with the request at the size of the pass.
    """
    generator = generator_of(request)
    arguments = runtime_of(loop.architecture).pass_arguments
    assert arguments is not None
    latents: Latents | None = None
    for scale in request.passes:
        if latents is not None:
            latents = replace(latents, video=upsample(latents.video))
        sized = replace(request, width=scale.width, height=scale.height, steps=scale.steps)
        on_pass(sized)
        latents = loop.run(sized, generator, scale.first_step, **arguments(scale, latents))
    assert latents is not None
    return latents
