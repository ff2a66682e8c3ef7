"""A transformer where its memory profile puts it, and what is done when a card runs out of memory all the same.

Running out is caught around one forward pass: the weights are placed one profile lower, and the very same pass is
made again. No step is lost and nothing need be resumed, so the video is the one that more memory would have made.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import psutil
import torch
from diffusers.hooks import HookRegistry
from torch import nn

from reeltune.errors import NotEnoughMemory
from reeltune.fetch.profiles import lower

_ROOM = 0.8  # of the free memory: activations need some too
_PINNED_SHARE = 0.5  # of the free RAM that pinned copies of the weights may take
_HOOKS = ("group_offloading", "layer_execution_tracker", "lazy_prefetch_group_offloading")
_T = TypeVar("_T")
Say = Callable[[str], None]


def fits(size: int, device: torch.device) -> bool:
    """Whether weights of `size` bytes have room beside what is loaded."""
    return size < _ROOM * free_memory(device)


def free_memory(device: torch.device) -> int:
    """Bytes free on a device."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)


def release() -> None:
    """Return freed memory to the system and the card."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


class Placed(nn.Module):
    """Stands for a transformer wherever its profile puts it. `say` hears what is done when memory runs out."""

    def __init__(self, model: nn.Module, device: torch.device, profile: str, say: Say) -> None:
        super().__init__()
        self.model, self._target, self._say = model, device, say
        self.profile = ""
        self.place(profile)

    @property
    def config(self) -> Any:
        """The transformer's."""
        return self.model.config

    @property
    def dtype(self) -> torch.dtype:
        """What it computes in."""
        return self.model.dtype  # type: ignore[return-value]

    @property
    def device(self) -> torch.device:
        """What it computes on, wherever the weights are meanwhile."""
        return self._target

    def cache_context(self, *names: Any, **state: Any) -> AbstractContextManager[None]:
        """The transformer's own."""
        return self.model.cache_context(*names, **state)  # type: ignore[no-any-return,operator]

    def forward(self, *inputs: Any, **options: Any) -> Any:
        """The transformer's forward pass, made again one profile lower where memory runs out."""
        while True:
            try:
                return self.model(*inputs, **options)
            except torch.OutOfMemoryError:
                pass  # below, where nothing of the pass is held any more
            self._step_down()

    @torch.inference_mode(False)  # tensors that are moved must stay plain ones, whoever asks for it
    def place(self, profile: str) -> None:
        """Put the weights where a profile wants them."""
        if profile == self.profile:
            return
        registry = HookRegistry.check_if_exists_or_initialize(self.model)
        for name in _HOOKS:
            registry.remove_hook(name, recurse=True)
        self.profile = profile
        if profile in ("resident", "stages"):
            self.model.to(self._target)
            return
        self.model.to("cpu")
        release()
        cuda = self._target.type == "cuda"
        options: dict[str, Any] = {"offload_type": "leaf_level"}
        if profile == "streamed":
            options = {"offload_type": "block_level", "num_blocks_per_group": 1, "use_stream": cuda}
            options |= {"non_blocking": cuda, "record_stream": cuda, "low_cpu_mem_usage": not self._pinnable()}
        self.model.enable_group_offload(self._target, torch.device("cpu"), **options)  # type: ignore[operator]

    @torch.inference_mode(False)
    def leave(self) -> None:
        """Make room on the card for another stage; `place` brings the weights back."""
        if self._target.type != "cpu" and self.profile in ("resident", "stages"):
            self.model.to("cpu")
            self.profile = ""
            release()

    def _pinnable(self) -> bool:
        size = sum(row.numel() * row.element_size() for row in self.model.parameters())
        return size < _PINNED_SHARE * psutil.virtual_memory().available

    def _step_down(self) -> None:
        below = lower(self.profile)
        if below is None:
            raise NotEnoughMemory(
                f"{self._target} has too little memory for a single layer at this size.",
                hint="Make a smaller or shorter video, or use an int8 version.",
                needed=0,
                available=free_memory(self._target),
            )
        self._say(f"{self._target} ran out of memory: going on with the memory profile {below}.")
        release()
        self.place(below)


def decode_as_it_fits(vae: Any, work: Callable[[], _T], say: Say) -> _T:
    """Decode; in tiles where memory runs out, then on the CPU. Raises what else `work` raises."""
    for remedy in ("tiles", "the CPU", ""):
        try:
            return work()
        except torch.OutOfMemoryError:
            if not remedy:
                raise
        say(f"Decoding ran out of memory: trying again {'in' if remedy == 'tiles' else 'on'} {remedy}.")
        release()
        if remedy == "tiles":
            vae.enable_tiling()
        else:
            vae.to("cpu")
    raise AssertionError("unreachable")
