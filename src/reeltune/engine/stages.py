"""The stages of a generation on diffusers' own pipelines: encode text, denoise, decode.

Each stage loads what it needs and lets go of it, so that the text encoder never sits beside the transformer.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import numpy.typing as npt
import torch
import transformers
from safetensors import SafetensorError
from torch import nn

from reeltune._quiet import quiet
from reeltune.engine.request import Request
from reeltune.errors import DeviceError, GenerationError
from reeltune.families import Architecture, Component, Family

_FLOW = {"prediction_type": "flow_prediction", "use_flow_sigmas": True}


@dataclass(frozen=True)
class TextEmbeddings:
    """`positive` and `negative` (None without guidance): [1, tokens, text_dim]."""

    positive: torch.Tensor
    negative: torch.Tensor | None


def torch_device(name: str) -> torch.device:
    """The device by its name, pinned: never another one. Raises DeviceError where it isn't there."""
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DeviceError(f"There is no device {name!r}.", hint="Use auto, cpu, mps, cuda or cuda:1.") from error
    counts = {"cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available()), "cpu": 1}
    available = counts.get(device.type, 0)
    if (device.index or 0) >= available:
        found = ", ".join(f"{count} x {kind}" for kind, count in counts.items() if count)
        raise DeviceError(f"The device {name!r} isn't there ({found}).", hint="Choose another with --device.")
    return device


def load_component(component: Component, folder: Path, dtype: torch.dtype) -> Any:
    """A component by the family's own class, from local files only: nothing in the folder picks code to run."""
    library = transformers if component.library == "transformers" else diffusers
    try:
        with quiet():
            component_class = getattr(library, component.class_name)  # imported on first use
            if component.class_name.startswith("Auto"):
                return component_class.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
            transformers.utils.logging.disable_progress_bar()
            dtype_name = "dtype" if component.library == "transformers" else "torch_dtype"
            options = {dtype_name: dtype, "use_safetensors": True, "local_files_only": True}
            loaded, info = component_class.from_pretrained(str(folder), output_loading_info=True, **options)
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise GenerationError(
            f"The {component.name} in {folder} can't be loaded: {error}.", hint="Fetch that folder again."
        ) from error
    lacking = sorted(str(name) for name in (*info["missing_keys"], *info.get("mismatched_keys", ())))
    if lacking:  # the libraries would fill them with random numbers
        raise GenerationError(
            f"The {component.name} in {folder} lacks {len(lacking)} weights, the first is {lacking[0]}.",
            hint="Fetch that folder again.",
        )
    return loaded.eval().requires_grad_(False)


def encode(
    architecture: Architecture, tokenizer: Any, encoder: nn.Module, request: Request, device: torch.device
) -> TextEmbeddings:
    """Embed prompt and negative prompt, as long as tokenizer and family allow."""
    with quiet():
        pipeline_class = getattr(diffusers, architecture.pipeline)  # imported on first use
    pipeline = pipeline_class(tokenizer=tokenizer, text_encoder=encoder.to(device), vae=None, scheduler=None)
    tokens = min(architecture.family.max_text_tokens, int(tokenizer.model_max_length))
    with torch.inference_mode():
        positive, negative = pipeline.encode_prompt(
            prompt=request.prompt,
            negative_prompt=request.negative_prompt,
            do_classifier_free_guidance=request.guidance > 1,
            max_sequence_length=tokens,
            device=device,
        )
    return TextEmbeddings(positive, negative)


def scheduler(request: Request) -> Any:
    """The solver asked for, at the request's shift (flow matching, as the models were trained)."""
    if request.solver == "euler":
        return diffusers.FlowMatchEulerDiscreteScheduler(shift=request.shift)
    if request.solver == "dpm++":
        return diffusers.DPMSolverMultistepScheduler(flow_shift=request.shift, **_FLOW)
    return diffusers.UniPCMultistepScheduler(flow_shift=request.shift, **_FLOW)


def denoise(
    architecture: Architecture,
    transformer: nn.Module,
    text: TextEmbeddings,
    request: Request,
    on_step: Callable[[int], None],
) -> torch.Tensor:
    """From noise to latents [1, channels, latent frames, latent height, latent width], fp32.

    `on_step` is called after each step with the number done; what it raises stops the work.
    """
    pipeline = getattr(diffusers, architecture.pipeline)(
        tokenizer=None, text_encoder=None, vae=None, scheduler=scheduler(request), transformer=transformer
    )
    pipeline.set_progress_bar_config(disable=True)

    def step_end(_: Any, index: int, __: Any, values: dict[str, Any]) -> dict[str, Any]:
        on_step(index + 1)
        return values

    with torch.inference_mode():
        result = pipeline(
            prompt_embeds=text.positive,
            negative_prompt_embeds=text.negative,
            height=request.height,
            width=request.width,
            num_frames=request.frames,
            num_inference_steps=request.steps,
            guidance_scale=request.guidance,
            generator=torch.Generator("cpu").manual_seed(request.seed),
            output_type="latent",
            callback_on_step_end=step_end,
        )
    return result.frames.float()  # type: ignore[no-any-return]


def decode(vae: Any, latents: torch.Tensor) -> npt.NDArray[np.uint8]:
    """Frames uint8 [frames, height, width, 3] from latents [1, channels, frames', height', width']."""
    config, dtype = vae.config, next(vae.parameters()).dtype
    device = next(vae.parameters()).device
    spread = functools.partial(torch.tensor, device=device, dtype=dtype)
    mean = spread(config.latents_mean).view(1, -1, 1, 1, 1)
    std = spread(config.latents_std).view(1, -1, 1, 1, 1)
    with torch.inference_mode():
        pixels = vae.decode(latents.to(device, dtype) * std + mean, return_dict=False)[0]
    pixels = ((pixels[0].float() + 1) * 127.5).round().clamp(0, 255)  # [3, frames, height, width]
    return pixels.permute(1, 2, 3, 0).to(torch.uint8).cpu().numpy()  # type: ignore[no-any-return]


def find(family: Family, name: str) -> Component:
    """The family's component of that name."""
    return next(component for component in family.components if component.name == name)
