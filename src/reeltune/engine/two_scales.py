"""Videos that are made at two scales: small first, then enlarged by the latent upsampler and denoised further.

Both loops, and the upsampling between them, are those of diffusers' pipelines.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import torch

from reeltune.engine.placing import Placement, out_of_memory, release
from reeltune.engine.reporting import Reporter
from reeltune.engine.stages import Loop, assemble, find, generator_of, load_component
from reeltune.engine.stamps import FilesInUse, Stamps
from reeltune.families import Architecture
from reeltune.families.base import LATENT_UPSAMPLER
from reeltune.request.values import Pass, Request

_ONLY_NOISE = 1000.0  # the timestep of latents that are nothing but noise
_MATCHED = 1.0  # how far the enlarged latents get the mean and deviation that each channel had before
Upsample = Callable[[torch.Tensor], torch.Tensor]


class UpsamplerSlot:
    """The latent upsampler of an engine, loaded on first use, and again if its files have changed."""

    def __init__(self, reporter: Reporter, files: FilesInUse) -> None:
        self._reporter, self._files = reporter, files
        self._loaded: tuple[Stamps, Any] | None = None

    def get(self, architecture: Architecture, path: Path) -> Any:
        """The upsampler in a file or folder, on the CPU, fp32. Raises CheckpointError, GenerationError."""
        stamps = self._files.stamps_of(path)
        if self._loaded is None or self._loaded[0] != stamps:
            self._loaded = None
            model = load_component(find(architecture, LATENT_UPSAMPLER), path, torch.float32)
            self._loaded = stamps, model
        return self._loaded[1]

    def drop(self, placement: Placement | None) -> None:
        """Release it."""
        if self._loaded is not None and placement is not None:
            placement.forget(self._loaded[1], weights=False)
        self._loaded = None

    def upsample(self, latents: torch.Tensor, vae: Any, model: Any, placement: Placement) -> torch.Tensor:
        """Latents [1, channels, frames', height', width'] at twice the height and width, fp32.

        If the device runs out of memory, the upsampler computes on the CPU.
        """
        try:
            with placement.visiting(model):
                return _upsampled(latents, vae, model, placement.device)
        except Exception as error:
            if not out_of_memory(error) or placement.device.type == "cpu":
                raise
        self._reporter.notice("Out of memory in the latent upsampler: it computes on the CPU.")
        placement.forget(model)
        release()
        cpu = torch.device("cpu")
        return _upsampled(latents.to(cpu), vae, model.to(cpu), cpu)


def _upsampled(latents: torch.Tensor, vae: Any, model: Any, device: torch.device) -> torch.Tensor:
    parts = {"vae": vae, LATENT_UPSAMPLER: model}
    pipeline = assemble(diffusers.LTXLatentUpsamplePipeline, parts, device)
    with torch.no_grad():
        enlarged: torch.Tensor = pipeline(latents=latents, adain_factor=_MATCHED, output_type="latent").frames
    return enlarged.float()


def denoise_at_two_scales(
    loop: Loop, request: Request, upsample: Upsample, on_pass: Callable[[Request], None]
) -> torch.Tensor:
    """From noise to latents [1, channels, latent frames, latent height, latent width] at the second scale, fp32.

    `on_pass` is called before each pass with the request at the size of the pass.
    """
    generator = generator_of(request)
    latents: torch.Tensor | None = None
    for scale in request.passes:
        if latents is not None:
            latents = upsample(latents)
        sized = replace(request, width=scale.width, height=scale.height, steps=scale.steps)
        on_pass(sized)
        latents = loop.run(sized, generator, scale.first_step, **_arguments(scale, latents))
    assert latents is not None
    return latents


def _arguments(scale: Pass, latents: torch.Tensor | None) -> dict[str, object]:
    """Arguments of the pipeline's call for a pass; `latents`: those that it starts from, None for noise.

    The pipeline starts from latents at a level of noise below the first timestep: it leaves out the share
    `1 - denoise_strength` of them.
    """
    times = list(scale.timesteps)
    if latents is None:
        return {"timesteps": times}
    times.insert(0, _ONLY_NOISE)
    return {"timesteps": times, "latents": latents, "denoise_strength": 1 - 0.5 / len(times)}
