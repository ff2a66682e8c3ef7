"""From a definition to videos: one warm engine per definition, stage by stage.

with Engine(catalog["nano_t2v"]) as engine:
    video = engine.generate(prompt="a red circle moves right on a black background", seed=7)
video.save("out.mp4")
"""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import safetensors
import safetensors.torch
import torch
from torch import nn

from reeltune._version import __version__
from reeltune.checkpoints.names import expand
from reeltune.definitions import Definition
from reeltune.engine.inputs import Given, read
from reeltune.engine.kinds import Tensors
from reeltune.engine.phases import StandIn, fits
from reeltune.engine.preview import Previewer, RgbMap, refit
from reeltune.engine.request import Request, build_request, complete_settings
from reeltune.engine.stages import decode, denoise, encode, find, load_component, torch_device
from reeltune.errors import DecodeFailed, MediaError, NotRunnable
from reeltune.events import CancelToken, Listener, Notice, Progress, ignore
from reeltune.families import Component
from reeltune.fetch import Explanation, pull
from reeltune.fetch.estimate import check_memory
from reeltune.inventory.index import Index
from reeltune.machine import Machine
from reeltune.media.mp4 import free_name
from reeltune.media.video import Origin, Video
from reeltune.preferences import Preferences
from reeltune.settings import videos_asked
from reeltune.weights.load import load_transformer, peek_config
from reeltune.weights.tensors import RUN_DTYPES


class Engine:
    """Makes videos with one definition; loads on first use and stays warm until closed.

    `listener` hears progress and notices, with `previews` also the emerging video (`events.Preview`). Missing files are
    fetched first. Raises NotRunnable at once for a definition this program can't run.
    """

    def __init__(
        self,
        definition: Definition,
        *,
        preferences: Preferences | None = None,
        listener: Listener = ignore,
        machine: Machine | None = None,
        previews: bool = False,
    ) -> None:
        if not definition.runnable:
            raise NotRunnable(
                f"{definition.id} can't run here: {definition.reason}.",
                hint="`reeltune list` shows which do.",
            )
        self.definition = definition
        self._preferences = preferences
        self._listener = listener
        self._machine = machine
        self._explanation: Explanation | None = None
        self._models: dict[str, nn.Module] = {}
        self._vae: nn.Module | None = None
        self._said: set[str] = set()
        self._previews = previews
        self._rgb: RgbMap | None = None  # of the VAE, fitted on first use

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of all weights."""
        self._models.clear()
        self._vae = self._rgb = None
        _release()

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
        self, prompt: str | None = None, *, cancel: CancelToken | None = None, **settings: Any
    ) -> Iterator[Video]:
        """Every video the settings ask for: each line of the prompt, `repeat_generation` times. Raises as above."""
        cancel = cancel or CancelToken()
        for one in self._asked(prompt, settings):
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
        size = (request.width, request.height)
        whole = "U" in str(request.settings.get("video_prompt_type") or "")
        given = read(request.inputs, size, request.frames, request.fps, self._say, keep_masked=whole)
        self.prepare(cancel)
        text = self._encode(request, given, cancel)
        latents = self._denoise(text, request, given, cancel)
        return self._finish(latents, request)

    def prepare(self, cancel: CancelToken | None = None) -> Explanation:
        """Fetch what is missing and say which files are used and why; loads no weights."""
        if self._explanation is None:
            explanation = pull(
                self.definition,
                self._preferences,
                listener=self._listener,
                cancel=cancel,
                machine=self._machine,
            )
            check_memory(explanation)
            for slot, choice in explanation.selection.choices.items():
                self._say(f"{slot}: {choice.version.file_name} ({choice.reason}).")
            for notice in (*map(str, self.definition.notices), *explanation.notices):
                self._say(notice)
            self._explanation = explanation
        return self._explanation

    # --- stages -------------------------------------------------------------------------------------------

    def _encode(self, request: Request, given: Given, cancel: CancelToken) -> Tensors:
        explanation, architecture = self.prepare(), self.definition.architecture
        self._progress("encode", 0, 1)
        cancel.check()
        self._make_room(explanation)
        parts = {
            row.name: load_component(row, explanation.component(row.name), self._component_dtype(row))
            for row in architecture.parts
            if row.name != "vae"
        }
        config = peek_config(*self._weights("transformer"), architecture.config)
        text = encode(architecture, parts, request, given, config, self._device())
        parts.clear()
        _release()
        self._progress("encode", 1, 1)
        return text

    def _make_room(self, explanation: Explanation) -> None:
        """Let go of the weights of the video before, where the encoders don't fit beside them."""
        parts = [item.bytes or 0 for item in explanation.items if item.repository and item.subject != "vae"]
        if self._models and not fits(sum(parts), self._device()):
            self._say("The encoders don't fit beside the transformer, which is loaded again for each video.")
            self.close()

    def _denoise(self, text: Tensors, request: Request, given: Given, cancel: CancelToken) -> torch.Tensor:
        parts = {"vae": self._loaded_vae(), **self._transformers(cancel)}

        def on_step(done: int) -> None:
            self._progress("denoise", done, request.steps)
            cancel.check()

        cancel.check()
        self._progress("denoise", 0, request.steps)
        if not self._previews:
            return denoise(self.definition.architecture, parts, text, request, given, on_step)
        previewer = Previewer(self._rgb, parts["vae"], self.definition.architecture, request, self._listener)
        latents = denoise(self.definition.architecture, parts, text, request, given, on_step, previewer)
        self._rgb = previewer.rgb
        return latents

    def _finish(self, latents: torch.Tensor, request: Request) -> Video:
        self._progress("decode", 0, 1)
        try:
            frames = decode(self.definition.architecture, self._loaded_vae(), latents, request)
        except Exception as error:  # whatever it was, the denoising must not be lost
            kept = self._keep(latents, request)
            message = f"Decoding failed ({type(error).__name__}: {error}); the latents are kept in {kept}."
            raise DecodeFailed(message, latents=kept, hint="`engine.decode(path)` tries again.") from error
        self._progress("decode", 1, 1)
        if self._rgb is not None:
            self._rgb = refit(latents, frames, self._rgb)
        return Video(frames, request.fps, self._origin(request.settings))

    def _keep(self, latents: torch.Tensor, request: Request) -> Path:
        folder = self._outputs() / "latents"
        path = free_name(folder, f"{self.definition.id} seed {request.seed}", ".safetensors")
        settings = json.dumps(dict(request.settings), default=str)
        safetensors.torch.save_file({"latents": latents.contiguous().cpu()}, path, metadata={"settings": settings})
        return path

    def decode(self, latents: str | Path) -> Video:
        """The video of latents that an earlier, failed decoding kept. Raises MediaError, DecodeFailed."""
        try:
            with safetensors.safe_open(str(latents), framework="pt") as file:
                tensor, metadata = file.get_tensor("latents"), file.metadata() or {}
            settings = json.loads(metadata["settings"])
        except (OSError, KeyError, ValueError, safetensors.SafetensorError) as error:
            raise MediaError(f"{latents} holds no latents of this program: {error}.") from error
        architecture, root = self.definition.architecture, self.definition.root
        request, _ = build_request(architecture, settings, root, inputs_needed=False)
        return self._finish(tensor, request)

    # --- what the stages share ----------------------------------------------------------------------------

    def _transformers(self, cancel: CancelToken) -> dict[str, Any]:
        """The transformer, loaded; or where there are two, stand-ins that load theirs when it comes to it."""
        slots = [slot for slot in ("transformer", "transformer_2") if slot in self.prepare().selection.choices]
        if len(slots) == 1:
            if self.definition.settings.get("guidance_phases", 1) > 1:
                self._say("The definition lists no second transformer (URLs2): one does all the steps.")
            return {slots[0]: self._loaded(slots[0], cancel)}
        return {slot: self._stand_in(slot, cancel) for slot in slots}

    def _stand_in(self, slot: str, cancel: CancelToken) -> StandIn:
        config = peek_config(*self._weights(slot), self.definition.architecture.config)
        return StandIn(config, self._dtype(), lambda: self._loaded(slot, cancel))

    def _loaded(self, slot: str, cancel: CancelToken) -> nn.Module:
        if slot not in self._models:
            path, modules = self._weights(slot)
            if self._models and not fits(sum(file.stat().st_size for file in (path, *modules)), self._device()):
                self._say(f"{', '.join(self._models)} makes room for {slot}: both don't fit.")
                self._models.clear()
                _release()
            choices = self.prepare().selection.choices
            parts = [choice for other, choice in choices.items() if other == slot or other.startswith("modules")]
            model = load_transformer(
                path, choices[slot].dtype, modules=modules, config=self.definition.architecture.config,
                quantize=any(choice.quantize_on_load for choice in parts), listener=self._listener, cancel=cancel,
            )  # fmt: skip
            self._models[slot] = model.to(self._device())
        return self._models[slot]

    def _weights(self, slot: str) -> tuple[Path, list[Path]]:
        """File of a transformer, and those of the modules merged into it."""
        places = {item.subject: item.path for item in self.prepare().items}
        return places[slot], [path for subject, path in places.items() if subject.startswith("modules")]

    def _loaded_vae(self) -> Any:
        if self._vae is None:
            component, folder = find(self.definition.architecture, "vae"), self.prepare().component("vae")
            self._vae = load_component(component, folder, torch.float32).to(self._device())
        return self._vae

    def _component_dtype(self, component: Component) -> torch.dtype:
        return torch.float32 if component.name == "image_encoder" else self._dtype()

    def _device(self) -> torch.device:
        explanation = self.prepare()
        return torch_device(explanation.machine.device(explanation.preferences.device))

    def _dtype(self) -> torch.dtype:
        return RUN_DTYPES[self.prepare().selection.choices["transformer"].dtype]

    def _outputs(self) -> Path:
        return self.definition.root / expand(self.prepare().preferences.outputs)

    def _origin(self, settings: Mapping[str, Any]) -> Origin:
        sums, index = self.definition.sha256, Index(self.definition.root / "ckpts")
        files = {
            item.subject: (item.path.name, index.sha256(item.path) or sums.get(item.path.name))
            for item in self.prepare().items
            if not item.repository
        }
        program = f"reeltune {__version__}"
        return Origin(self.definition.id, self.definition.architecture.id, program, settings, files)

    def output_path(self, video: Video) -> Path:
        """A fresh name for a video in the outputs folder, from the time, the definition and the seed."""
        stamp = time.strftime("%Y-%m-%d %H%M%S")
        return free_name(self._outputs(), f"{stamp} {video.origin.definition} seed {video.origin.settings['seed']}")

    def _progress(self, stage: str, done: int, total: int) -> None:
        self._listener(Progress(stage, done, total))

    def _say(self, message: str) -> None:
        """Say a thing once in this engine's life."""
        if message not in self._said:
            self._said.add(message)
            self._listener(Notice(message))


def _release() -> None:
    """Return freed memory to the system and the card."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
