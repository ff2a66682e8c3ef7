"""The VAE at work: on the device while it is needed, in tiles where whole frames don't fit, at last on the CPU."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from reeltune.engine.families import runtime_of
from reeltune.engine.placing import Placement, Result, free_memory, out_of_memory, release
from reeltune.engine.preview import RgbMap
from reeltune.engine.reporting import Reporter
from reeltune.engine.stages import decode, find, load_component
from reeltune.engine.stamps import FilesInUse, Stamps
from reeltune.errors import NotEnoughMemory
from reeltune.families import Architecture
from reeltune.request.values import Request

_TILES = ((256, 192), (128, 96))  # side and stride in pixels: neighbours overlap by the rest
_ROOM = 0.8  # of the free memory may be planned with


class VaeSlot:
    """The VAE of an engine, loaded on first use, and again where its files are others."""

    def __init__(self, reporter: Reporter, files: FilesInUse) -> None:
        self._reporter, self._files = reporter, files
        self._loaded: tuple[Stamps, VaeAtWork] | None = None
        self.rgb: RgbMap | None = None  # what a preview shows latents by, fitted on first use

    def get(self, architecture: Architecture, path: Path, placement: Placement) -> VaeAtWork:
        """The VAE in a file or folder, loaded where it isn't yet. Raises CheckpointError, GenerationError."""
        stamps = self._files.stamps_of(path)
        if self._loaded is not None and self._loaded[0] == stamps:
            return self._loaded[1]
        self.drop()
        vae = load_component(find(architecture, "vae"), path, torch.float32)
        self._loaded = stamps, VaeAtWork(vae, placement, self._reporter)
        return self._loaded[1]

    def drop(self) -> None:
        """Release it."""
        if self._loaded is None:
            return
        self._loaded[1].forget()
        self._loaded = self.rgb = None
        release()


class VaeAtWork:
    """One VAE, placed as its engine's models are, which encodes and decodes as memory allows.

    What a pipeline reads of it comes from `vae`.
    """

    def __init__(self, vae: Any, placement: Placement, reporter: Reporter) -> None:
        self.vae, self._placement, self._reporter = vae, placement, reporter
        self._tiles = 0  # how many sizes of _TILES were tried so far

    def __getattr__(self, name: str) -> Any:
        return getattr(self.vae, name)

    def forget(self) -> None:
        """Take it off the device: it isn't used any more."""
        self._placement.forget(self.vae, weights=False)

    def encode(self, pixels: torch.Tensor, **options: Any) -> Any:
        """The VAE's own encoding, in its own data type, in smaller tiles each time memory runs out.

        `pixels`: [1, 3, frames, height, width]; some pipelines have rounded them to the transformer's data type. Raises
        NotEnoughMemory.
        """
        return self._surviving(lambda: self.vae.encode(pixels.to(self.vae.dtype), **options))

    def fit(self, architecture: Architecture, request: Request) -> None:
        """Choose whole frames where they fit, else tiles, by what the family's VAE takes for a pixel."""
        self._tiles, self.vae.use_tiling = 0, False
        runtime = runtime_of(architecture)
        frames = min(request.frames, runtime.frames_at_once or request.frames)
        width, height = request.computed_size
        needed = width * height * frames * runtime.pixel_bytes
        free = free_memory(self._placement.device)
        if needed > _ROOM * free and max(width, height) > _TILES[0][0]:
            self._smaller(f"Whole frames would take the VAE about {needed / 1e9:.1f} GB of {free / 1e9:.1f} GB free")

    def decode(self, architecture: Architecture, latents: torch.Tensor, request: Request) -> npt.NDArray[np.uint8]:
        """Frames of latents, as `stages.decode` gives them; out of memory, in smaller tiles, and then on the CPU."""
        try:
            return self._surviving(lambda: decode(architecture, self.vae, latents, request))
        except NotEnoughMemory as error:
            if self._placement.device.type == "cpu":
                raise
            self._reporter.notice(f"{error.message} It computes on the CPU.")
        self._placement.forget(self.vae)  # so that its next use takes it to the device again
        self.vae.to("cpu")
        return decode(architecture, self.vae, latents, request)

    @property
    def in_pipeline(self) -> VaeInPipeline:
        """What stands in a pipeline for the VAE."""
        return VaeInPipeline(self)

    def decode_latents(self, *inputs: Any, **options: Any) -> Any:
        """The VAE's own decoding, in smaller tiles each time memory runs out. Raises NotEnoughMemory."""
        return self._surviving(lambda: self.vae.decode(*inputs, **options))

    def _surviving(self, work: Callable[[], Result]) -> Result:
        """What `work` returns, in smaller tiles each time memory runs out. Raises NotEnoughMemory."""
        while True:
            try:
                with self._placement.visiting(self.vae):
                    return work()
            except Exception as error:
                if not out_of_memory(error):
                    raise
            if hasattr(self.vae, "clear_cache"):
                self.vae.clear_cache()  # features of the frames before
            release()
            if self._tiles == len(_TILES):
                message = "The VAE runs out of memory even in its smallest tiles."
                hint = "Make the video smaller or shorter."
                raise NotEnoughMemory(message, hint=hint, needed=0, available=free_memory(self._placement.device))
            self._smaller("Out of memory in the VAE")

    def _smaller(self, reason: str) -> None:
        side, stride = _TILES[self._tiles]
        self._tiles += 1
        self._reporter.notice(f"{reason}: it works in tiles of {side} pixels.")
        options = {"tile_sample_min": side, "tile_sample_stride": stride}
        if "tile_latent_min_height" in inspect.signature(self.vae.enable_tiling).parameters:
            options = {"tile_sample_min": side, "tile_latent_min": side // self.vae.spatial_compression_ratio}
        axes = ("height", "width")
        self.vae.enable_tiling(**{f"{name}_{axis}": size for name, size in options.items() for axis in axes})


class VaeInPipeline:
    """Stands in a pipeline for the VAE itself, which encodes and decodes as memory allows."""

    def __init__(self, at_work: VaeAtWork) -> None:
        self._at_work = at_work

    def __getattr__(self, name: str) -> Any:
        return getattr(self._at_work, name)

    def decode(self, *inputs: Any, **options: Any) -> Any:
        """Pixels of latents, with the arguments and the result of the VAE's own method. Raises NotEnoughMemory."""
        return self._at_work.decode_latents(*inputs, **options)
