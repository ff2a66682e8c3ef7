"""The VAE at work: on the device while it is needed, in tiles where whole frames don't fit, at last on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from reeltune.engine.kinds import KINDS
from reeltune.engine.placing import Places, Result, free_memory, out_of_memory, release
from reeltune.engine.preview import RgbMap
from reeltune.engine.stages import decode, find, load_component
from reeltune.engine.stamps import Seen, Stamps
from reeltune.errors import NotEnoughMemory
from reeltune.families import Architecture
from reeltune.request.parse import Request

_TILES = ((256, 192), (128, 96))  # side and stride in pixels: neighbours overlap by the rest
_ROOM = 0.8  # of the free memory may be planned with


class VaeSlot:
    """The VAE of an engine, loaded on first use, and again where its files are others."""

    def __init__(self, say: Callable[[str], None], seen: Seen) -> None:
        self._say, self._seen = say, seen
        self._loaded: tuple[Stamps, VaeAtWork] | None = None
        self._places: Places | None = None
        self.rgb: RgbMap | None = None  # what a preview shows latents by, fitted on first use

    def get(self, architecture: Architecture, path: Path, places: Places) -> VaeAtWork:
        """The VAE in a file or folder, in these places. Raises CheckpointError, GenerationError."""
        stamps = self._seen.of(path)
        if self._loaded is not None and self._loaded[0] == stamps:
            return self._loaded[1]
        self.drop()
        vae = load_component(find(architecture, "vae"), path, torch.float32)
        self._places = places
        self._loaded = stamps, VaeAtWork(vae, places, self._say)
        return self._loaded[1]

    def drop(self) -> None:
        """Release it."""
        if self._loaded is None:
            return
        loaded, self._loaded = self._loaded[1], None
        if self._places is not None:
            self._places.forget(loaded.vae, weights=False)
        loaded.detach()
        self._places = self.rgb = None
        del loaded
        release()


class VaeAtWork:
    """One VAE in its engine's places. While it is `attached`, a pipeline's encoding goes through here too."""

    def __init__(self, vae: Any, places: Places, say: Callable[[str], None]) -> None:
        self.vae, self._places, self._say = vae, places, say
        self._tiles = 0  # rows of _TILES tried so far
        whole = vae.encode
        vae.encode = lambda *inputs, **options: self._surviving(lambda: whole(*inputs, **options))

    def detach(self) -> None:
        """Let the VAE go: it and this hold on to each other."""
        del self.vae.encode

    def fit(self, architecture: Architecture, request: Request) -> None:
        """Whole frames where they fit, else tiles, by what the family's VAE takes for a pixel."""
        self._tiles, self.vae.use_tiling = 0, False
        kind = KINDS[architecture.family.name]
        frames = min(request.frames, kind.frames_at_once or request.frames)
        need = request.width * request.height * frames * kind.pixel_bytes
        free = free_memory(self._places.device)
        if need > _ROOM * free and max(request.width, request.height) > _TILES[0][0]:
            self._smaller(f"Whole frames would take the VAE about {need / 1e9:.1f} GB of {free / 1e9:.1f} GB free")

    def decode(self, architecture: Architecture, latents: torch.Tensor, request: Request) -> npt.NDArray[np.uint8]:
        """Frames of latents, as `stages.decode` gives them; out of memory, in smaller tiles, and then on the CPU."""
        try:
            return self._surviving(lambda: decode(architecture, self.vae, latents, request))
        except NotEnoughMemory as error:
            if self._places.device.type == "cpu":
                raise
            self._say(f"{error.message} It computes on the CPU.")
        self._places.forget(self.vae)  # so that its next use takes it to the device again
        self.vae.to("cpu")
        return decode(architecture, self.vae, latents, request)

    def _surviving(self, work: Callable[[], Result]) -> Result:
        """What `work` gives, in smaller tiles each time memory runs out. Raises NotEnoughMemory below the smallest."""
        while True:
            try:
                with self._places.visiting(self.vae):
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
                raise NotEnoughMemory(message, hint=hint, needed=0, available=free_memory(self._places.device))
            self._smaller("Out of memory in the VAE")

    def _smaller(self, why: str) -> None:
        side, stride = _TILES[self._tiles]
        self._tiles += 1
        self._say(f"{why}: it works in tiles of {side} pixels.")
        self.vae.enable_tiling(
            tile_sample_min_height=side, tile_sample_min_width=side,
            tile_sample_stride_height=stride, tile_sample_stride_width=stride,
        )  # fmt: skip
