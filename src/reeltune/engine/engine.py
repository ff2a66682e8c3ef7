"""From a definition to videos: one warm engine per definition, stage by stage.

with Engine(catalog["nano_t2v"]) as engine:
    video = engine.generate(prompt="a red circle moves right on a black background", seed=7)
video.save("out.mp4")
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any, Self

import torch
from torch import nn

from reeltune.definitions import Definition, load_catalog
from reeltune.dtypes import DType
from reeltune.engine import latents as latents_files
from reeltune.engine import outputs
from reeltune.engine.arithmetic import arithmetic
from reeltune.engine.denoiser import Denoiser, Steering, steering
from reeltune.engine.finite import check_embeddings, check_finite, decode_failed
from reeltune.engine.inputs import Given, read
from reeltune.engine.kinds import Tensors
from reeltune.engine.memo import Encoded, Memo, key_of
from reeltune.engine.models import SLOTS, Models
from reeltune.engine.placing import Places, fits, release
from reeltune.engine.positions import check_positions
from reeltune.engine.preview import Previewer, refit
from reeltune.engine.room import allocating, check_room
from reeltune.engine.stages import denoise, encode, load_component, prompt_notices, torch_device
from reeltune.engine.stamps import Seen
from reeltune.engine.vae import VaeAtWork, VaeSlot
from reeltune.errors import MediaError
from reeltune.events import Batch, CancelToken, Event, Kept, Listener, Notice, Progress, UsedFile, Using, ignore
from reeltune.families import Component
from reeltune.fetch import pull, require
from reeltune.machine import Machine, probe
from reeltune.media.video import Video
from reeltune.planning.estimate import check_memory
from reeltune.planning.memory import MemoryProfile, pick
from reeltune.planning.plan import Explanation
from reeltune.preferences import Preferences, load_preferences
from reeltune.request.parse import Request, build_request, check_runnable, complete_settings, request_of_latents
from reeltune.settings import videos_asked
from reeltune.weights.saving import save_quantized
from reeltune.weights.tensors import RUN_DTYPES


class Engine:
    """Makes videos with one definition; loads on first use and stays warm until closed.

    `listener` hears progress and notices, with `previews` also the emerging video (`events.Preview`). Missing files are
    fetched first. `save_quantized`: the int8 versions of the 16-bit files are written to `ckpts/` and listed in the
    definition first, and then used. Raises NotRunnable at once for a definition this program can't run.
    """

    def __init__(
        self,
        definition: Definition,
        *,
        preferences: Preferences | None = None,
        listener: Listener = ignore,
        machine: Machine | None = None,
        save_quantized: bool = False,
        previews: bool = False,
    ) -> None:
        self.definition = check_runnable(definition)
        self._preferences = preferences
        self._listener = listener
        self._machine = machine
        self._save, self._saving = save_quantized, save_quantized  # wished for; and still to be done
        self._explanation: Explanation | None = None
        self._seen = Seen()
        self._models = Models(listener, self._say, self._seen)
        self._vae = VaeSlot(self._say, self._seen)
        self._places: Places | None = None
        self._memo = Memo()
        self._said: set[str] = set()
        self._previews = previews

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of all weights."""
        self._models.drop(self._places)
        self._vae.drop()
        self._places = None
        self._memo.clear()

    def switch(self, definition: Definition) -> None:
        """Make videos with another definition from here on. What both have in common stays: components, embeddings,
        and of one architecture the model, which takes the other's weights. Raises NotRunnable.
        """
        self.definition, self._explanation = check_runnable(definition), None
        self._saving = self._save
        self._said.clear()

    # --- making videos ------------------------------------------------------------------------------------

    def generate(self, prompt: str | None = None, *, cancel: CancelToken | None = None, **settings: Any) -> Video:
        """One video. Settings not given come from the definition; `seed=-1` picks one.

        When the settings ask for several (lines of the prompt, `repeat_generation`) this is the first; a notice
        says so. Raises SettingsError, FetchError, CheckpointError, DecodeFailed, Cancelled.
        """
        asked = self._asked(prompt, settings)
        if len(asked) > 1:
            self._say(f"The settings ask for {len(asked)} videos; generate() makes the first, generate_each() all.")
        return self._make(asked[0], cancel or CancelToken())

    def generate_each(
        self, prompt: str | None = None, *, cancel: CancelToken | None = None, skip: int = 0, **settings: Any
    ) -> Iterator[Video]:
        """Every video the settings ask for: each line of the prompt, `repeat_generation` times, but the first `skip`.

        Raises as above.
        """
        cancel = cancel or CancelToken()
        asked = self._asked(prompt, settings)
        for number, one in enumerate(asked[skip:], start=skip + 1):
            if len(asked) > 1:
                self._listener(Batch(number, len(asked)))
            yield self._make(one, cancel)

    def _asked(self, prompt: str | None, call: dict[str, Any]) -> list[dict[str, Any]]:
        call = {**call, "prompt": prompt} if prompt is not None else call
        settings, notices = complete_settings(self.definition, call)
        for notice in notices:
            self._say(notice)
        return videos_asked(settings)

    def _make(self, settings: Mapping[str, Any], cancel: CancelToken) -> Video:
        request, notices = build_request(self.definition.architecture, settings, self.definition.root)
        for notice in notices:
            self._say(notice)
        check_room(request, self._machine)
        with allocating(request):
            given = read(request, self._say)
            explanation = self._begin(cancel)
            check_positions(explanation, request)
            with arithmetic(explanation, request, self._models.config(explanation)):
                text = self._encode(request, given, cancel)
                latents = self._denoise(text, request, given, cancel)
                return self._finish(latents, request, self._keep(latents, request))

    def _begin(self, cancel: CancelToken | None) -> Explanation:
        """The plan of the next video. Files that changed since the one before are looked at again."""
        if self._explanation is not None and self._seen.changed():
            self._explanation = None
        explanation = self.prepare(cancel)
        found = self._seen.look(item.path for item in explanation.items)
        self._listener(Using(tuple(UsedFile(str(stamp.path), stamp.size) for stamp in found)))
        return explanation

    def prepare(self, cancel: CancelToken | None = None) -> Explanation:
        """Fetch what is missing and say which files are used and why; loads no weights."""
        if self._explanation is None:
            self._check_device()
        if self._saving:
            self._save_quantized(cancel)
        if self._explanation is None:
            explanation = pull(
                self.definition,
                self._preferences,
                listener=self._listener,
                cancel=cancel,
                machine=self._machine,
            )
            require(explanation)
            check_memory(explanation)
            for slot, choice in explanation.selection.choices.items():
                self._say(f"{slot}: {choice.version.file_name} ({choice.reason}).")
            for notice in (*map(str, self.definition.notices), *explanation.notices):
                self._say(notice)
            profile = pick(explanation)
            self._say(f"Memory profile {profile.name}: {profile.reason}.")
            self._explanation = explanation
            self._settle(profile)
        return self._explanation

    def _check_device(self) -> None:
        """Raise DeviceMissing for a preferred device that isn't there, before anything is downloaded."""
        preferences = self._preferences or load_preferences(self.definition.root)[0]
        if preferences.device not in ("auto", "cpu"):
            (self._machine or probe()).check_device(preferences.device)

    def _settle(self, profile: MemoryProfile) -> None:
        """Places for the models, those of the definition before where they suit this one too."""
        device = self._device()
        if self._places is not None and (self._places.wished, self._places.device) != (profile.name, device):
            self._places.clear()
            self._places = None
            self._vae.drop()
        self._places = self._places or Places(profile, device, self._say)

    def _save_quantized(self, cancel: CancelToken | None) -> None:
        """Make and list the int8 versions; with any made, the definition is read again."""
        root, id = self.definition.root, self.definition.id
        wish, notices = (self._preferences, []) if self._preferences else load_preferences(root)
        for notice in notices:
            self._say(notice)

        def listen(event: Event) -> None:
            self._say(event.message) if isinstance(event, Notice) else self._listener(event)

        if save_quantized(self.definition, wish, machine=self._machine, listener=listen, cancel=cancel):
            self.definition, self._preferences = load_catalog(root)[id], wish
        self._saving = False

    # --- stages -------------------------------------------------------------------------------------------

    def _encode(self, request: Request, given: Given, cancel: CancelToken) -> Tensors:
        explanation, architecture = self.prepare(), self.definition.architecture
        self._progress("encode", 0, 1)
        cancel.check()
        rows = [row for row in architecture.parts if row.name != "vae"]
        config = self._models.config(explanation)
        folders = {row.name: explanation.component(row.name) for row in rows}
        stamps = {name: self._seen.of(folder) for name, folder in folders.items()}
        key = key_of(request, given, config, stamps, self._dtype())
        encoded = self._memo.get(key)
        if encoded is None:
            self._make_room(explanation)
            parts = {row.name: load_component(row, folders[row.name], self._component_dtype(row)) for row in rows}
            models = [part for part in parts.values() if isinstance(part, nn.Module)]
            text = self._at().run(models, lambda: encode(architecture, parts, request, given, config, self._device()))
            notices = prompt_notices(architecture, parts, request, config)
            for model in models:
                self._at().forget(model, weights=False)
            parts.clear()
            models.clear()
            release()
            encoders = [folders[row.name] for row in rows if "encoder" in row.name]
            check_embeddings(text, encoders, self.definition.id, self._dtype_name())
            encoded = self._memo.keep(key, Encoded(text, notices))
        for notice in encoded.notices:
            self._say(notice)
        self._progress("encode", 1, 1)
        return encoded.tensors

    def _make_room(self, explanation: Explanation) -> None:
        """Let the weights of the video before make room, where the encoders don't fit beside them."""
        parts = [item.bytes or 0 for item in explanation.items if item.repository and item.subject != "vae"]
        if self._models and self._at().profile.name == "resident" and not fits(sum(parts), self._device()):
            if self._device().type == "cuda":
                self._at().clear()
                return
            self._say("The encoders don't fit beside the transformer, which is loaded again for each video.")
            self._models.drop(self._places)

    def _denoise(self, text: Tensors, request: Request, given: Given, cancel: CancelToken) -> torch.Tensor:
        architecture, vae = self.definition.architecture, self._loaded_vae()
        config = self._models.config(self.prepare())
        steered = steering(architecture, request, config, self._say)

        def on_step(done: int) -> None:
            steered.next_step(done)
            self._progress("denoise", done, request.steps)
            cancel.check()

        def on_latents(values: torch.Tensor, noise: float) -> None:
            if steered.step == 1:  # the first step shows damaged weights, before all others are made in vain
                self._check_latents(values, given)
            if previewer is not None:
                previewer(values, noise)

        vae.fit(architecture, request)
        try:
            parts = {"vae": vae.vae, **self._transformers(steered, cancel)}
            cancel.check()
            self._progress("denoise", 0, request.steps)
            previewer = self._previewer(vae.vae, request)
            latents = denoise(architecture, parts, text, request, given, on_step, self._device(), on_latents)
            self._check_latents(latents, given)
        finally:
            steered.close()
        if previewer is not None:
            self._vae.rgb = previewer.rgb
        self._at().rest()
        if steered.lengthened and not steered.stretched:
            self._say("RIFLEx changed nothing: the video is not long enough to repeat itself.")
        if steered.cache is not None:
            self._say(f"The step cache skipped most of {steered.cache.skipped} passes of {steered.cache.passes}.")
        return latents

    def _check_latents(self, latents: torch.Tensor, given: Given) -> None:
        """Raise NotFinite for latents that damaged weights have made: the transformer's, or the VAE's by an input."""
        explanation = self.prepare()
        files = self._models.files(explanation)
        if any(getattr(given, row.name) for row in fields(given)):
            files.append(explanation.component("vae"))
        check_finite(latents, "The latents", files, self.definition.id, self._dtype_name())

    def _previewer(self, vae: Any, request: Request) -> Previewer | None:
        """Shows the emerging video, where someone wants to see it."""
        if not self._previews:
            return None
        return Previewer(self._vae.rgb, vae, self.definition.architecture, request, self._listener)

    def _finish(self, latents: torch.Tensor, request: Request, kept: Path | None) -> Video:
        """The video of latents; `kept`: the file they are in until it is written."""
        self._progress("decode", 0, 1)
        vae = self._loaded_vae()
        try:
            vae.fit(self.definition.architecture, request)
            frames = vae.decode(self.definition.architecture, latents, request)
        except Exception as error:  # whatever it was, the denoising must not be lost
            vae_path = self.prepare().component("vae")
            raise decode_failed(error, kept, vae_path, self.definition.id) from error
        self._at().rest()
        self._progress("decode", 1, 1)
        if self._vae.rgb is not None:
            self._vae.rgb = refit(latents, frames, self._vae.rgb)
        return Video(frames, request.fps, outputs.origin(self.prepare(), request.settings), kept)

    def _keep(self, latents: torch.Tensor, request: Request) -> Path | None:
        """Write the latents down until the video is written; that they can't be is said, and stops nothing."""
        folder = outputs.folder(self.prepare()) / latents_files.FOLDER
        try:
            path = latents_files.keep(latents, request.settings, self.definition.id, folder)
        except MediaError as error:
            self._say(f"The latents are not kept, should decoding fail: {error}")
            return None
        self._listener(Kept(str(path)))
        return path

    def decode(self, latents: str | Path, *, cancel: CancelToken | None = None) -> Video:
        """The video of latents that an interrupted run or a failed decoding left. Raises MediaError, DecodeFailed."""
        path = Path(latents)
        kept = latents_files.read(path)
        request = request_of_latents(self.definition, kept.settings)
        explanation = self._begin(cancel)
        with arithmetic(explanation, request, self._models.config(explanation)):
            return self._finish(kept.latents, request, path)

    # --- what the stages share ----------------------------------------------------------------------------

    def _transformers(self, steered: Steering, cancel: CancelToken) -> dict[str, Denoiser]:
        """What stands for the transformer; where there are two, each is loaded when its part of the noise comes."""
        explanation, places = self.prepare(), self._at()

        def denoiser(slot: str) -> Denoiser:
            load = partial(self._models.load, explanation, slot, places, cancel)
            return Denoiser(self._models.config(explanation, slot), self._dtype(), load, places, steered, self._say)

        slots = [slot for slot in SLOTS if slot in explanation.selection.choices]
        if len(slots) == 1:
            if self.definition.settings.get("guidance_phases", 1) > 1:
                self._say("The definition lists no second transformer (URLs2): one does all the steps.")
            self._models.load(explanation, slots[0], places, cancel)
        return {slot: denoiser(slot) for slot in slots}

    def _at(self) -> Places:
        """Where models are put."""
        self.prepare()
        assert self._places is not None
        return self._places

    def _loaded_vae(self) -> VaeAtWork:
        return self._vae.get(self.definition.architecture, self.prepare().component("vae"), self._at())

    def _component_dtype(self, component: Component) -> torch.dtype:
        return torch.float32 if component.name == "image_encoder" else self._dtype()

    def _device(self) -> torch.device:
        explanation = self.prepare()
        return torch_device(explanation.machine.device(explanation.preferences.device))

    def _dtype_name(self) -> DType:
        return self.prepare().selection.choices["transformer"].dtype

    def _dtype(self) -> torch.dtype:
        return RUN_DTYPES[self._dtype_name()]

    def output_path(self, video: Video) -> Path:
        """A fresh name for a video in the outputs folder, from the time, the definition and the seed."""
        return outputs.free_path(self.prepare(), video)

    def _progress(self, stage: str, done: int, total: int) -> None:
        self._listener(Progress(stage, done, total))

    def _say(self, message: str) -> None:
        """Say a thing once in this engine's life."""
        if message not in self._said:
            self._said.add(message)
            self._listener(Notice(message))
