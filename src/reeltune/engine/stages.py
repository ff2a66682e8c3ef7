"""The stages of a generation on diffusers' own pipelines: encode text, denoise, decode.

Each stage loads what it needs and releases it, so that the text encoder never sits beside the transformer. None runs
in inference mode: int8 weights could not be moved between devices in it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import numpy.typing as npt
import torch
import transformers
from safetensors import SafetensorError
from torch.nn import functional

from reeltune._quiet import importing, quiet
from reeltune.definitions.slots import TRANSFORMER
from reeltune.engine.families import runtime_of
from reeltune.engine.families.base import Arguments, Latents, Tensors
from reeltune.engine.inputs import InputImages
from reeltune.engine.loop import AllStepsMade, OnLatents, StepEnds, call_after_steps, seeded
from reeltune.engine.solvers import scheduler
from reeltune.errors import DeviceMissing, GenerationError, NotFinite
from reeltune.families import Architecture, Component
from reeltune.families.base import VAE, Config
from reeltune.request.values import Request
from reeltune.weights._libraries import ComputesOnItsDevice, library_class
from reeltune.weights.components import check_folder, load_component_file, load_component_folder

_DOWNLOAD_AGAIN = "Delete that folder and download it again (`reeltune pull`)."
_IMAGE_EMBEDS, _STEP_END = "image_embeds", "callback_on_step_end"
_NOT_IN_ALL_CALLS = {"height", "width", _STEP_END}  # some pipelines read the size from the image
Parts = Mapping[str, Any]  # of a pipeline, by the name of its component


def torch_device(name: str) -> torch.device:
    """The device of that name, a card with its number. Raises DeviceMissing where there is none."""
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DeviceMissing(f"There is no device {name!r}.", hint="Use auto, cpu, mps, cuda or cuda:1.") from error
    counts = {"cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available()), "cpu": 1}
    available = counts.get(device.type, 0)
    if (device.index or 0) >= available:
        found = ", ".join(f"{count} x {kind}" for kind, count in counts.items() if count)
        raise DeviceMissing(f"The device {name!r} isn't available ({found}).", hint="Choose another with --device.")
    return torch.device("cuda", device.index or 0) if device.type == "cuda" else device  # as tensors name theirs


def load_component(
    component: Component, folder: Path, dtype: torch.dtype, *, more: Sequence[Path] = (), quantize: bool = False
) -> Any:
    """A component by the family's own class, from local files only: the folder can't choose code that is run.

    `folder`: in diffusers layout, or a single file that holds it; `more`: other files that it is assembled from.
    `quantize`: 16-bit linear layers become int8 while they are loaded. Raises GenerationError, CheckpointError.
    """
    if folder.is_file():
        with quiet():
            return load_component_file(component, folder, dtype, more=more, quantize=quantize)
    check_folder(component, folder)
    if component.kind and (quantize or component.part_of_folder):
        with quiet():
            loaded_by_names = load_component_folder(component, folder, dtype, quantize=quantize)
        if loaded_by_names is not None:
            return loaded_by_names
    try:
        with importing():
            component_class = library_class(component.library, component.class_name)
        with quiet():
            if component.class_name.startswith("Auto") or component.class_name.endswith("Processor"):
                return component_class.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
            transformers.utils.logging.disable_progress_bar()
            dtype_name = "dtype" if component.library == "transformers" else "torch_dtype"
            options = {dtype_name: dtype, "use_safetensors": True, "local_files_only": True}
            loaded, info = component_class.from_pretrained(str(folder), output_loading_info=True, **options)
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise GenerationError(
            f"The {component.name} in {folder} can't be loaded: {error}.",
            hint=_DOWNLOAD_AGAIN,
        ) from error
    missing = sorted(str(name) for name in (*info["missing_keys"], *info.get("mismatched_keys", ())))
    if missing:  # the libraries would fill them with random numbers
        raise GenerationError(
            f"The {component.name} in {folder} lacks {len(missing)} weights, the first is {missing[0]}.",
            hint=_DOWNLOAD_AGAIN,
        )
    return loaded.eval().requires_grad_(False)


def pipeline_class(architecture: Architecture, images: InputImages) -> Any:
    """The diffusers class that makes this video."""
    name = architecture.image_pipeline if architecture.image_pipeline and not images.none else architecture.pipeline
    with importing():
        return getattr(diffusers, name)


def assemble(kind: Any, parts: Parts, device: torch.device | None = None) -> Any:
    """A pipeline of some of its parts; the others that it needs are None.

    `device`: what it computes on; without, it is where its first part lies, which is elsewhere while weights rest.
    """
    wanted = inspect.signature(kind.__init__).parameters
    empty = {name: None for name, row in wanted.items() if name != "self" and row.default is row.empty}
    accepted = {name: part for name, part in parts.items() if name in wanted}
    if device is None:
        return kind(**empty | accepted)
    pipeline = _steered(kind)(**empty | accepted)
    pipeline.computes_on = device
    return pipeline


class _Steered(ComputesOnItsDevice):
    """What a pipeline of diffusers does here in another way: it computes on the device it is given, and images that
    were encoded before are not encoded again.

    Its call takes either images or their embeddings, and needs both.
    """

    image_embeds: torch.Tensor | None = None

    def encode_image(self, *images: Any, **options: Any) -> Any:
        """The embeddings that are there already, else the pipeline's own."""
        if self.image_embeds is not None:
            return self.image_embeds
        return super().encode_image(*images, **options)  # type: ignore[misc]


@cache
def _steered(kind: Any) -> Any:
    """The class of a pipeline with the changes of `_Steered`."""
    return type(kind.__name__, (_Steered, kind), {})


def encode(
    architecture: Architecture,
    parts: Parts,
    request: Request,
    images: InputImages,
    config: Config,
    device: torch.device,
) -> Tensors:
    """Embed the prompts, and the images where the model looks at them, as long as tokenizer and family allow.

    `parts`: all components but the VAE, in place; `config`: the transformer's. Returns arguments of the call.
    """
    runtime = runtime_of(architecture)
    pipeline = assemble(pipeline_class(architecture, images), {**runtime.stand_ins, **parts}, device)
    tokens = _most_tokens(architecture, parts)
    with torch.no_grad():
        return runtime.encode(pipeline, request, images, config, tokens, device)


def _most_tokens(architecture: Architecture, parts: Parts) -> int:
    return min(architecture.family.max_text_tokens, int(parts["tokenizer"].model_max_length))


def prompt_notices(architecture: Architecture, parts: Parts, request: Request, config: Config) -> tuple[str, ...]:
    """Notices about prompts that are too long for the text encoder, and about guidance that needs a negative prompt."""
    most = _most_tokens(architecture, parts)
    negative = request.negative_prompt if request.guided else ""
    notices = []
    if request.guided and not negative and config.get("guidance_embeds"):
        notices.append("guidance_scale does nothing without a negative_prompt: this model's guidance is built in.")
    for name, text in (("prompt", request.prompt), ("negative prompt", negative)):
        with quiet():
            count = len(parts["tokenizer"](text)["input_ids"])
        if count > most:
            notices.append(f"The {name} has {count:,} tokens, and the text encoder takes {most}: its end is not used.")
    return tuple(notices)


@dataclass(frozen=True)
class Loop:
    """What the denoising loop of a video needs besides its request.

    `parts`: the VAE and the transformer. `embeddings`: of each window; the last ones also of all that follow. `on_step`
    is called after each step with the number done, of the steps of all windows; what it raises stops the work.
    `device`: what the work is done on. `on_latents` gets the latents after each step, as the pipeline holds them, and
    the share of noise (0 to 1) that is left in them. `before`: the latents of the window before; None for the first
    one.
    """

    architecture: Architecture
    parts: Parts
    embeddings: tuple[Tensors, ...]
    images: InputImages
    on_step: Callable[[int], None]
    device: torch.device | None = None
    on_latents: OnLatents | None = None
    before: torch.Tensor | None = None

    def embeddings_of(self, window: int) -> Tensors:
        """The embeddings of a window, counted from 0."""
        return self.embeddings[min(window, len(self.embeddings) - 1)]

    def run(self, request: Request, generator: torch.Generator, first_step: int = 0, **options: Any) -> Latents:
        """From noise to latents [1, channels, latent frames, latent height, latent width], and those of sound, fp32.

        `first_step`: the number of steps that were made before. `options`: further arguments of the pipeline's call.
        """
        runtime = runtime_of(self.architecture)
        pipeline = self._pipeline(request)
        step_end = StepEnds(
            request,
            self.on_step,
            self._seen(request),
            first_step,
            stop=runtime.decodes_windows,
            embeddings_of=self.embeddings_of,
        )
        arguments = self._arguments(request, generator, step_end) | options
        left_out = _NOT_IN_ALL_CALLS - set(inspect.signature(pipeline.__call__).parameters)
        if _STEP_END in left_out:
            call_after_steps(pipeline, step_end)
        with torch.no_grad(), quiet(), seeded(request.seed, self.device):
            if runtime.conditions is not None:
                conditions = runtime.conditions(pipeline, request, self.images, self.before)
                self.parts[TRANSFORMER].conditions = conditions
            try:
                result = pipeline(**{name: value for name, value in arguments.items() if name not in left_out})
            except AllStepsMade:
                windows = [self._of_video(latents) for latents in step_end.windows]
                return Latents(torch.cat(windows, dim=2).float())
        if runtime.channels_last:
            return Latents(self._channels_first(result.frames).float())
        # the pipeline cuts off what the decoder needs for the first frames, and leaves what references stand for
        latents = step_end.windows[-1] if runtime.extra_frames(self._config) else self._of_video(result.frames)
        return Latents(latents.float(), result.audio.float() if runtime.sound else None)

    def _of_video(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents without those that stand for reference images, before the video or after it."""
        count = len(self.images.references)
        if runtime_of(self.architecture).references_last:
            return latents[:, :, : latents.shape[2] - count]
        return latents[:, :, count:]

    @property
    def _config(self) -> Config:
        """The transformer's config."""
        config: Config = self.parts[TRANSFORMER].config
        return config

    def _pipeline(self, request: Request) -> Any:
        """The pipeline of the parts, ready to be called with embeddings."""
        pipeline = assemble(
            pipeline_class(self.architecture, self.images),
            {**self.parts, **self.architecture.options, "scheduler": scheduler(request, self.architecture.family)},
            self.device,
        )
        runtime_of(self.architecture).prepare(pipeline, request)
        pipeline.set_progress_bar_config(disable=True)
        pipeline.image_embeds = self.embeddings[0].get(_IMAGE_EMBEDS)
        return pipeline

    def _arguments(self, request: Request, generator: torch.Generator, step_end: StepEnds) -> Arguments:
        """The arguments of the pipeline's call; some pipelines don't take those of _NOT_IN_ALL_CALLS."""
        runtime = runtime_of(self.architecture)
        embeddings = {name: value for name, value in self.embeddings[0].items() if name != _IMAGE_EMBEDS}
        arguments = {
            "height": request.height,
            "width": request.width,
            "num_frames": request.frames + runtime.extra_frames(self._config),
            "num_inference_steps": request.steps,
            "generator": generator,
            "output_type": "latent",
            _STEP_END: step_end,
            **embeddings,
            **runtime.arguments(request, self.images, self._config),
        }
        if runtime.decodes_windows:
            del arguments["num_frames"]
        return arguments

    def _seen(self, request: Request) -> OnLatents | None:
        """What gets the latents after each step, as the VAE takes them."""
        on_latents, runtime = self.on_latents, runtime_of(self.architecture)
        as_decoded = runtime.as_decoded
        if on_latents is not None and as_decoded is not None:
            return lambda latents, noise: on_latents(as_decoded(latents, self.parts[VAE], request), noise)
        if on_latents is not None and runtime.references_last:
            return lambda latents, noise: on_latents(self._of_video(latents), noise)
        if on_latents is None or not runtime.channels_last:
            return on_latents
        return lambda latents, noise: on_latents(self._channels_first(latents), noise)

    def _channels_first(self, latents: torch.Tensor) -> torch.Tensor:
        """[1, channels, frames', height', width'] from [1, frames', height', width', channels and conditions]."""
        return latents[..., : self._config["out_visual_dim"]].permute(0, 4, 1, 2, 3)


def denoise(loop: Loop, request: Request) -> Latents:
    """From noise to latents [1, channels, latent frames, latent height, latent width], fp32."""
    return loop.run(request, generator_of(request))


def generator_of(request: Request) -> torch.Generator:
    """The generator of all noise of a video, on the CPU, so that it is the same on every device."""
    return torch.Generator("cpu").manual_seed(request.seed)


def decode(architecture: Architecture, vae: Any, latents: torch.Tensor, request: Request) -> npt.NDArray[np.uint8]:
    """Frames uint8 [frames, height, width, 3] from latents [1, channels, frames', height', width']."""
    weight = next(vae.parameters())
    with torch.no_grad():
        pixels = runtime_of(architecture).decode(vae, latents.to(weight.device, weight.dtype), request)
    pixels = pixels[0, :, -request.frames :].float()  # [3, frames, height, width]
    pixels = _scaled(pixels, request)
    if not bool(torch.isfinite(pixels).all()):
        raise NotFinite("The decoded frames hold NaN or infinity", files=())
    pixels = ((pixels + 1) * 127.5).round().clamp(0, 255)
    return pixels.permute(1, 2, 3, 0).to(torch.uint8).cpu().numpy()


def _scaled(pixels: torch.Tensor, request: Request) -> torch.Tensor:
    """Pixels [3, frames, height, width] at the size of the video; those of two scales are computed larger."""
    if tuple(pixels.shape[2:]) == (request.height, request.width) or not request.passes:
        return pixels
    size = (request.height, request.width)
    frames = functional.interpolate(pixels.transpose(0, 1), size, mode="bilinear", align_corners=False)
    return frames.transpose(0, 1)


def find(architecture: Architecture, name: str) -> Component:
    """The architecture's component of that name."""
    return next(component for component in architecture.parts if component.name == name)
