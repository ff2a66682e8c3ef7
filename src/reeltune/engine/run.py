"""One video: encode, denoise, decode, on the models that an engine keeps warm."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from reeltune.definitions.slots import TRANSFORMER, TRANSFORMER_2, Slot
from reeltune.engine import latents as latents_files
from reeltune.engine import outputs
from reeltune.engine.denoiser import Denoiser, Steering, steering
from reeltune.engine.embeddings import Encoded, key_of
from reeltune.engine.families import runtime_of
from reeltune.engine.families.base import Latents, Tensors
from reeltune.engine.finite import check_embeddings, check_finite, decode_failed
from reeltune.engine.inputs import InputImages
from reeltune.engine.models import LoadedTransformer, LoraFile
from reeltune.engine.placing import Placement, fits, release
from reeltune.engine.preview import Previewer, refit
from reeltune.engine.reporting import Reporter
from reeltune.engine.stages import Loop, denoise, encode, load_component, prompt_notices
from reeltune.engine.stamps import Stamps
from reeltune.engine.two_scales import denoise_at_two_scales, upsampled
from reeltune.engine.vae import VaeAtWork
from reeltune.engine.warm import Warm
from reeltune.engine.windows import denoise_in_windows
from reeltune.errors import LoraMismatch, MediaError
from reeltune.events import CancelToken, LatentsStored
from reeltune.families import Component
from reeltune.families.base import AUDIO_VAE, LATENT_COMPONENTS, LATENT_UPSAMPLER, VAE, Config
from reeltune.media.sound import Sound
from reeltune.media.video import Video
from reeltune.planning.fit import report_of
from reeltune.planning.memory import MemoryProfile
from reeltune.planning.plan import Plan
from reeltune.request.values import Request
from reeltune.weights._libraries import is_int8
from reeltune.weights.tensors import RUN_DTYPES


class Run:
    """The stages of one video under a plan. What they load stays in `warm` for the next one."""

    def __init__(
        self, plan: Plan, warm: Warm, placement: Placement, reporter: Reporter, cancel: CancelToken, *, previews: bool
    ) -> None:
        self.plan = plan
        self._warm, self._placement, self._reporter, self._cancel = warm, placement, reporter, cancel
        self._previews = previews
        self._architecture = plan.definition.architecture
        self._dtype = RUN_DTYPES[plan.dtype]

    @property
    def config(self) -> Config:
        """The transformer's config."""
        config: Config = self._warm.models.config(self.plan, TRANSFORMER)
        return config

    def make(self, request: Request, images: InputImages) -> Video:
        """The video of a request and its images. The latents are on disk while they are decoded."""
        prompts = (request.prompt, *request.later_prompts)
        embeddings = self._encode([replace(request, prompt=prompt) for prompt in prompts], images)
        latents = self._denoise(embeddings, request, images)
        return self.decode(latents, request, self._store(latents, request))

    # --- encode -----------------------------------------------------------------------------------------------------

    def _encode(self, requests: list[Request], images: InputImages) -> list[Tensors]:
        """The embeddings of the prompts of each request, and of images where the model looks at them."""
        self._reporter.progress("encode", 0, 1)
        self._cancel.check()
        components = [component for component in self._architecture.parts if component.name not in LATENT_COMPONENTS]
        stamps = {component.name: self._stamps(component) for component in components}
        keys = [key_of(request, images, self.config, stamps, self._dtype) for request in requests]
        encoded = self._warm.embeddings.known(keys)
        missing = {key: request for key, request in zip(keys, requests, strict=True) if key not in encoded}
        if missing:
            made = self._load_and_encode(components, list(missing.values()), images)
            encoded |= dict(zip(missing, made, strict=True))
            self._warm.embeddings.store(encoded)
        for notice in (notice for key in keys for notice in encoded[key].notices):
            self._reporter.notice(notice)
        self._reporter.progress("encode", 1, 1)
        return [encoded[key].tensors for key in keys]

    def _load_and_encode(
        self, components: list[Component], requests: list[Request], images: InputImages
    ) -> list[Encoded]:
        """Load the encoders, use them for each request, release them."""
        self._make_room()
        parts = {part.name: self._load_component(part) for part in components}
        models = [part for part in parts.values() if isinstance(part, nn.Module)]
        encoded = []
        for request in requests:
            self._cancel.check()
            work = partial(encode, self._architecture, parts, request, images, self.config, self._placement.device)
            tensors = self._placement.run(models, work)
            encoded.append(Encoded(tensors, prompt_notices(self._architecture, parts, request, self.config)))
        for model in models:
            self._placement.forget(model, weights=False)
        del work, model
        parts.clear()
        models.clear()
        release()
        encoders = [self._path(component) for component in components if "encoder" in component.name]
        for embeddings in encoded:
            check_embeddings(embeddings.tensors, encoders, self.plan.definition.id, self.plan.dtype)
        return encoded

    def _make_room(self) -> None:
        """Release the weights of the video before, where the encoders don't fit beside them."""
        encoders = [item for item in self.plan.items if item.component and item.subject not in LATENT_COMPONENTS]
        sizes = [item.memory_bytes or 0 for item in encoders]
        resident = self._placement.profile is MemoryProfile.RESIDENT
        if not self._warm.models or not resident or fits(sum(sizes), self._placement.device):
            return
        if self._placement.device.type == "cuda":
            self._placement.clear()
            return
        self._reporter.notice("The encoders don't fit beside the transformer, which is loaded again for each video.")
        self._warm.models.drop(self._placement)

    def _path(self, component: Component) -> Path:
        return self.plan.path(component.name)

    def _stamps(self, component: Component) -> Stamps:
        paths = self.plan.item(component.name).paths
        return tuple(stamp for path in paths for stamp in self._warm.files.stamps_of(path))

    def _load_component(self, component: Component) -> Any:
        """A component, quantized while it is loaded where the plan says so."""
        item = self.plan.item(component.name)
        dtype = self._component_dtype(component)
        loaded = load_component(component, item.path, dtype, more=item.more, quantize=item.quantize)
        if item.quantize and not any(is_int8(weight) for weight in loaded.parameters()):
            self._reporter.notice(f"The {component.name} in {item.path} stays in 16 bits: its layers have other names.")
        return loaded

    def _component_dtype(self, component: Component) -> torch.dtype:
        return torch.float32 if component.name == "image_encoder" else self._dtype

    # --- denoise ----------------------------------------------------------------------------------------------------

    def _denoise(self, embeddings: list[Tensors], request: Request, images: InputImages) -> Latents:
        """From noise to latents [1, channels, frames', height', width'], and those of sound, fp32.

        `embeddings`: of each window that has a prompt of its own.
        """
        vae = self._vae()
        steered = steering(self._architecture, request, self.config, self._reporter)
        previewer = self._previewer(vae.vae, request)
        checked: list[bool] = []
        total = request.steps * request.windows

        def on_step(done: int) -> None:
            steered.step = done % request.steps if done < total else request.steps - 1
            self._reporter.progress("denoise", done, total)
            self._cancel.check()

        def on_pass(sized: Request) -> None:
            self._cancel.check()
            steered.close()  # what the step cache recorded is of another size or window
            if previewer is not None:
                previewer.start(sized)

        def on_latents(values: torch.Tensor, noise: float) -> None:
            if not checked:  # the first step shows damaged weights, before all others are made in vain
                self._check_latents(values, images)
                checked.append(True)
            if previewer is not None:
                previewer(values, noise)

        vae.fit(self._architecture, request)
        try:
            prompted, negative = zip(*(self._without_negative(window) for window in embeddings), strict=True)
            parts = {VAE: vae.in_pipeline, TRANSFORMER: self._denoiser(negative[0], request, steered)}
            if runtime_of(self._architecture).sound:
                parts[AUDIO_VAE] = self._part(AUDIO_VAE)
            self._cancel.check()
            self._reporter.progress("denoise", 0, total)
            loop = Loop(self._architecture, parts, prompted, images, on_step, self._placement.device, on_latents)
            latents = self._looped(loop, request, vae, on_pass)
        finally:
            steered.close()
        if previewer is not None:
            self._warm.vae.rgb = previewer.rgb
        self._placement.rest()
        self._report_steering(steered)
        return latents

    def _looped(self, loop: Loop, request: Request, vae: VaeAtWork, on_pass: Callable[[Request], None]) -> Latents:
        """The latents of all passes and windows, checked. `on_pass`: called before each of them."""
        if request.passes:
            latents = denoise_at_two_scales(loop, request, partial(self._upsample, vae), on_pass)
        elif request.window is not None and runtime_of(self._architecture).continues:
            latents = denoise_in_windows(loop, request, request.window, on_pass)
        else:
            latents = denoise(loop, request)
        self._check_latents(latents.video, loop.images)
        if latents.sound is not None:
            self._check_latents(latents.sound, loop.images)
        return latents

    def _upsample(self, vae: VaeAtWork, latents: torch.Tensor) -> torch.Tensor:
        """Latents at twice the height and width."""
        self._cancel.check()
        work = partial(upsampled, latents, vae.vae, self._architecture)
        return self._warm.parts[LATENT_UPSAMPLER].run(work, self._part(LATENT_UPSAMPLER), self._placement)

    def _part(self, name: str) -> Any:
        """A small component, on the CPU unless it is at work."""
        return self._warm.parts[name].get(self._architecture, self.plan.path(name))

    def _without_negative(self, embeddings: Tensors) -> tuple[Tensors, Tensors]:
        """The embeddings for the pipeline, and the arguments of the pass without the prompt that differ."""
        positive = dict(embeddings)
        negative = runtime_of(self._architecture).negative
        return positive, {} if negative is None else negative(positive)

    def _denoiser(self, negative: Tensors, request: Request, steered: Steering) -> Denoiser:
        """The stand-in for the transformers.

        Of two transformers, each is loaded when its first step is reached; the only one is loaded now.
        """
        load = partial(self._load, request)
        if all(phase.transformer == TRANSFORMER for phase in request.phases):
            load(TRANSFORMER)
        runtime = runtime_of(self._architecture)
        return Denoiser(self.config, self._dtype, load, self._placement, steered, negative, self._reporter, runtime)

    def _load(self, request: Request, slot: Slot) -> LoadedTransformer:
        """The transformer of a slot with the LoRAs that have a weight in one of its steps."""
        steps = tuple(step for step in range(request.steps) if request.phase(step).transformer == slot)
        loras = []
        for lora, planned in zip(request.loras, self.plan.loras, strict=True):
            if any(lora.weights[step] for step in steps) and self._fits(slot, planned.item.path):
                loras.append(LoraFile(planned.item.path, lora.weights, steps))
        return self._warm.models.load(self.plan, slot, self._placement, loras, self._cancel)

    def _fits(self, slot: Slot, lora: Path) -> bool:
        """Whether a LoRA fits the transformer of a slot; of two transformers, it may fit only one."""
        if not self._two_transformers:
            return True  # it was checked before anything was loaded
        try:
            report_of(self.plan, slot, lora)
        except LoraMismatch:
            self._reporter.notice(f"{lora.name} is not applied to the {slot}: nothing of it fits.")
            return False
        return True

    @property
    def _two_transformers(self) -> bool:
        return TRANSFORMER_2 in self.plan.selection.choices

    def _check_latents(self, latents: torch.Tensor, images: InputImages) -> None:
        """Raise NotFinite for NaN or infinity in latents, naming the files whose damaged weights may have caused it."""
        files = [*self._warm.models.files(self.plan), *(lora.item.path for lora in self.plan.loras)]
        if not images.none:
            files.append(self.plan.path(VAE))
        check_finite(latents, "The latents", files, self.plan.definition.id, self.plan.dtype)

    def _previewer(self, vae: Any, request: Request) -> Previewer | None:
        """A previewer of the unfinished video; None if no previews are wanted."""
        if not self._previews:
            return None
        return Previewer(self._warm.vae.rgb, vae, self._architecture, request, self._reporter.listener)

    def _report_steering(self, steered: Steering) -> None:
        """Report what RIFLEx and the step cache have changed."""
        if steered.temporal_axis is not None and not steered.stretched:
            self._reporter.notice("RIFLEx changed nothing: the video is not long enough to repeat itself.")
        cache = steered.cache
        if cache is not None:
            self._reporter.notice(f"The step cache skipped most of {cache.skipped} passes of {cache.passes}.")

    # --- decode -----------------------------------------------------------------------------------------------------

    def decode(self, latents: Latents, request: Request, file: Path | None) -> Video:
        """The video of latents. `file`: where they are stored until it is written. Raises DecodeFailed."""
        self._reporter.progress("decode", 0, 1)
        vae = self._vae()
        try:
            vae.fit(self._architecture, request)
            frames = vae.decode(self._architecture, latents.video, request)
            sound = self._sound(latents)
        except Exception as error:  # whatever it was, the denoising must not be lost
            raise decode_failed(error, file, self.plan.path(VAE), self.plan.definition.id) from error
        self._placement.rest()
        self._reporter.progress("decode", 1, 1)
        if self._warm.vae.rgb is not None and len(frames) > 1:
            self._warm.vae.rgb = refit(latents.video, frames, self._warm.vae.rgb)
        origin = outputs.origin(self.plan, request.settings)
        return Video(frames, request.fps, origin, file, image=self._architecture.image_outputs, sound=sound)

    def _sound(self, latents: Latents) -> Sound | None:
        """The sound of latents; None if there are none. Raises MediaError for NaN and infinity."""
        values, rate = latents.sound, 0
        if values is None:
            return None
        for name, work in runtime_of(self._architecture).sound:
            model = self._part(name)
            rate = model.config.get("output_sampling_rate", 0)

            def compute(
                part: Any, device: torch.device, work: Any = work, given: torch.Tensor = values
            ) -> torch.Tensor:
                with torch.no_grad():
                    made: torch.Tensor = work(part, given.to(device))
                return made

            values = self._warm.parts[name].run(compute, model, self._placement)
        return Sound(values[0].float().clamp(-1, 1).cpu().numpy(), rate)

    def _store(self, latents: Latents, request: Request) -> Path | None:
        """Write the latents to disk until the video is written; a failure is reported, and stops nothing."""
        folder = self.plan.outputs / latents_files.FOLDER
        try:
            path = latents_files.store(latents.video, request.settings, self.plan.definition.id, folder, latents.sound)
        except MediaError as error:
            self._reporter.notice(f"The latents are not kept, should decoding fail: {error}")
            return None
        self._reporter.event(LatentsStored(str(path)))
        return path

    def _vae(self) -> VaeAtWork:
        return self._warm.vae.get(self._architecture, self.plan.path(VAE), self._placement)
