"""The stages of a generation on diffusers' own pipelines: encode text, denoise, decode.

Each stage loads what it needs and lets go of it, so that the text encoder never sits beside the transformer. None runs
in inference mode: int8 weights that are moved between devices meanwhile could not be.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import numpy.typing as npt
import torch
import transformers
from safetensors import SafetensorError

from reeltune._quiet import importing, quiet
from reeltune.engine.inputs import Given
from reeltune.engine.kinds import KINDS, Config, Tensors
from reeltune.errors import DeviceMissing, GenerationError, NotFinite
from reeltune.families import Architecture, Component
from reeltune.request.parse import Request
from reeltune.settings import neutral
from reeltune.weights._libraries import pinned_pipeline
from reeltune.weights.components import check_folder, load_component_file

_FLOW = {"prediction_type": "flow_prediction", "use_flow_sigmas": True}


def torch_device(name: str) -> torch.device:
    """The device by its name, never another one; a card with its number. Raises DeviceMissing where it isn't there."""
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DeviceMissing(f"There is no device {name!r}.", hint="Use auto, cpu, mps, cuda or cuda:1.") from error
    counts = {"cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available()), "cpu": 1}
    available = counts.get(device.type, 0)
    if (device.index or 0) >= available:
        found = ", ".join(f"{count} x {kind}" for kind, count in counts.items() if count)
        raise DeviceMissing(f"The device {name!r} isn't there ({found}).", hint="Choose another with --device.")
    return torch.device("cuda", device.index or 0) if device.type == "cuda" else device  # as tensors name theirs


def load_component(component: Component, folder: Path, dtype: torch.dtype) -> Any:
    """A component by the family's own class, from local files only: nothing in the folder picks code to run.

    `folder`: in diffusers layout, or a single file that holds it. Raises GenerationError, CheckpointError.
    """
    if folder.is_file():
        with quiet():
            return load_component_file(component, folder, dtype)
    check_folder(component, folder)
    library = transformers if component.library == "transformers" else diffusers
    try:
        with importing():
            component_class = getattr(library, component.class_name)
        with quiet():
            if component.class_name.startswith("Auto") or component.class_name.endswith("Processor"):
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


def pipeline_class(architecture: Architecture, given: Given) -> Any:
    """The diffusers class that makes this video."""
    name = architecture.image_pipeline if architecture.image_pipeline and given.start else architecture.pipeline
    with importing():
        return getattr(diffusers, name)


def assemble(kind: Any, parts: Mapping[str, Any], device: torch.device | None = None) -> Any:
    """A pipeline of some of its parts; those it needs and doesn't get are None.

    `device`: what it computes on; without, it is where its first part lies, which is elsewhere while weights rest.
    """
    wanted = inspect.signature(kind.__init__).parameters
    empty = {name: None for name, row in wanted.items() if name != "self" and row.default is row.empty}
    pipeline = (kind if device is None else pinned_pipeline(kind))(
        **empty | {name: part for name, part in parts.items() if name in wanted}
    )
    pipeline.computes_on = device
    return pipeline


def encode(
    architecture: Architecture,
    parts: Mapping[str, Any],
    request: Request,
    given: Given,
    config: Config,
    device: torch.device,
) -> Tensors:
    """Embed the prompts, and the images where the model looks at them, as long as tokenizer and family allow.

    `parts`: all components but the VAE, in place; `config`: the transformer's. Returns arguments of the call.
    """
    pipeline = assemble(pipeline_class(architecture, given), parts, device)
    tokens = _most_tokens(architecture, parts)
    with torch.no_grad():
        return KINDS[architecture.family.name].encode(pipeline, request, given, config, tokens, device)


def _most_tokens(architecture: Architecture, parts: Mapping[str, Any]) -> int:
    return min(architecture.family.max_text_tokens, int(parts["tokenizer"].model_max_length))


def prompt_notices(
    architecture: Architecture, parts: Mapping[str, Any], request: Request, config: Config
) -> tuple[str, ...]:
    """What of the prompts is not used: ends that are longer than the text encoder takes, with both numbers of tokens,
    and a guidance that needs a negative prompt.
    """
    most = _most_tokens(architecture, parts)
    negative = request.negative_prompt if request.guidance > 1 else ""
    notices = []
    if request.guidance > 1 and not negative and config.get("guidance_embeds"):
        notices.append("guidance_scale does nothing without a negative_prompt: this model's guidance is built in.")
    for name, text in (("prompt", request.prompt), ("negative prompt", negative)):
        with quiet():
            count = len(parts["tokenizer"](text)["input_ids"])
        if count > most:
            notices.append(f"The {name} has {count:,} tokens, and the text encoder takes {most}: its end is not used.")
    return tuple(notices)


def scheduler(request: Request) -> Any:
    """The solver asked for, at the request's shift (flow matching, as the models were trained)."""
    if request.solver == "euler":
        return diffusers.FlowMatchEulerDiscreteScheduler(shift=request.shift)
    if request.solver == "dpm++":
        return diffusers.DPMSolverMultistepScheduler(flow_shift=request.shift, **_FLOW)
    return diffusers.UniPCMultistepScheduler(flow_shift=request.shift, **_FLOW)


def denoise(
    architecture: Architecture,
    parts: Mapping[str, Any],
    embeddings: Tensors,
    request: Request,
    given: Given,
    on_step: Callable[[int], None],
    device: torch.device | None = None,
    on_latents: Callable[[torch.Tensor, float], None] | None = None,
) -> torch.Tensor:
    """From noise to latents [1, channels, latent frames, latent height, latent width], fp32.

    `parts`: the VAE, the transformer, and the second one where there is one. `on_step` is called after each step
    with the number done; what it raises stops the work. `device`: what the work is done on. `on_latents` gets the
    latents after each step, as the pipeline holds them, and the share of noise (0 to 1) that is left in them.
    """
    kind, config = KINDS[architecture.family.name], parts["transformer"].config
    two = {"boundary_ratio": request.boundary} if "transformer_2" in parts else {}
    pipeline = assemble(
        pipeline_class(architecture, given),
        {**parts, **architecture.options, **two, "scheduler": scheduler(request)},
        device,
    )
    pipeline.set_progress_bar_config(disable=True)
    embeddings = dict(embeddings)
    if (image_embeds := embeddings.pop("image_embeds", None)) is not None:
        pipeline.encode_image = lambda *_: image_embeds  # the call takes either the image or these, and needs both
    last: list[torch.Tensor] = []

    def step_end(running: Any, index: int, _: Any, values: dict[str, Any]) -> dict[str, Any]:
        last[:] = [values["latents"]]
        on_step(index + 1)
        if on_latents is not None:
            on_latents(values["latents"], float(running.scheduler.sigmas[index + 1]))
        return values

    wanted = {name: request.settings[key] for key, name in architecture.family.arguments.items()
              if key in request.settings and (name != "guidance_scale_2" or _phased(request, two))}  # fmt: skip
    extra = kind.extra_frames(config)
    with torch.no_grad(), quiet():
        result = pipeline(
            height=request.height,
            width=request.width,
            num_frames=request.frames + extra,
            num_inference_steps=request.steps,
            generator=torch.Generator("cpu").manual_seed(request.seed),
            output_type="latent",
            callback_on_step_end=step_end,
            **wanted | embeddings | kind.arguments(request, given, config),
        )
    # the pipeline cuts off what the decoder needs for the first frames, and leaves what references stand for
    latents = last[0] if extra else result.frames[:, :, len(given.references) :]
    return latents.float()


def _phased(request: Request, two: Mapping[str, Any]) -> bool:
    """Whether the second transformer has a guidance of its own."""
    return bool(two) and not neutral("guidance2_scale", request.settings)


def decode(architecture: Architecture, vae: Any, latents: torch.Tensor, request: Request) -> npt.NDArray[np.uint8]:
    """Frames uint8 [frames, height, width, 3] from latents [1, channels, frames', height', width']."""
    weight = next(vae.parameters())
    with torch.no_grad():
        pixels = KINDS[architecture.family.name].decode(vae, latents.to(weight.device, weight.dtype), request)
    pixels = pixels[0, :, -request.frames :].float()  # [3, frames, height, width]
    if not bool(torch.isfinite(pixels).all()):
        raise NotFinite("The decoded frames hold NaN or infinity", files=())
    pixels = ((pixels + 1) * 127.5).round().clamp(0, 255)
    return pixels.permute(1, 2, 3, 0).to(torch.uint8).cpu().numpy()


def find(architecture: Architecture, name: str) -> Component:
    """The architecture's component of that name."""
    return next(component for component in architecture.parts if component.name == name)
