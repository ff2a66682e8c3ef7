"""Where models lie while they compute: on the device, or in the machine's memory and sent over in parts.

Every forward pass runs under `Places.run`: out of memory, the weights are placed anew by the next smaller profile and
the same pass is made again, from the same inputs. Nothing else of the run is touched, so the video is the same one.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import sys
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import psutil
import torch
from diffusers.hooks import apply_group_offloading
from torch import nn

from reeltune.errors import NotEnoughMemory
from reeltune.fetch.profiles import MemoryProfile
from reeltune.weights.upload import upload

_CPU = torch.device("cpu")
_HOOKS = ("lazy_prefetch_group_offloading", "layer_execution_tracker", "group_offloading")  # the last set goes first
_ROOM = 0.8  # of the free memory: activations need some too
_SMALLER = "Make it smaller or shorter, or take an int8 version (`--quantization int8`)."
Result = TypeVar("Result")


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a device's memory ran out."""
    return isinstance(error, torch.OutOfMemoryError) or "MPS backend out of memory" in str(error)


def release() -> None:
    """Return freed memory to the system and the card."""
    gc.collect()
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # another C library than glibc
            ctypes.CDLL(None).malloc_trim(0)  # which keeps what it has freed in pieces
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


class Places:
    """Keeps the models of one engine where its memory profile wants them."""

    def __init__(self, profile: MemoryProfile, device: torch.device, say: Callable[[str], None]) -> None:
        self.profile, self.device, self._say = profile, device, say
        self.wished = profile.name  # before memory ran out
        self._placed: weakref.WeakKeyDictionary[nn.Module, str] = weakref.WeakKeyDictionary()

    def place(self, *models: nn.Module) -> None:
        """Put models where their next pass needs them; with one stage at a time, all others make room."""
        if self.profile.name == "stages":
            self.rest(*models)
        for model in models:
            if self._placed.get(model) == self.profile.name:
                continue
            self.forget(model)
            self._placed[model] = self.profile.name  # before it is: what fails halfway is taken back
            if self.profile.name in ("resident", "stages"):
                upload(model, self.device)
            else:
                offload(model, self.profile, self.device)

    def rest(self, *but: nn.Module) -> None:
        """A stage is over: where only one at a time has room, its weights leave the device."""
        if self.profile.name == "stages":
            for model in set(self._placed) - set(but):
                self.forget(model)

    def forget(self, model: nn.Module, *, weights: bool = True) -> None:
        """Take a model off the device, as if it had never been placed; or only its hooks, where its weights go too."""
        if self._placed.pop(model, None):
            lift(model, weights=weights)

    def clear(self) -> None:
        """Take everything off the device."""
        for model in list(self._placed):
            self.forget(model)

    @contextlib.contextmanager
    def visiting(self, model: nn.Module) -> Iterator[None]:
        """A small model as a whole on the device: to stay where all do, else for as long as this takes."""
        if self.profile.name in ("resident", "stages"):
            self.place(model)
            yield
            return
        try:
            upload(model, self.device)
            yield
        finally:
            lift(model)

    def run(
        self, models: Sequence[nn.Module], call: Callable[[], Result], undo: Callable[[], None] = lambda: None
    ) -> Result:
        """`call`, which runs the models, under the profile, or under a smaller one. Raises NotEnoughMemory.

        `undo` takes back what a call that failed has changed, before the next one.
        """
        while True:
            try:
                self.place(*models)
                return call()
            except Exception as error:
                if not out_of_memory(error):
                    raise
                told = str(error)
            undo()
            release()  # only here: the error held on to the tensors of the pass that failed
            self._step_down(told)

    def _step_down(self, told: str) -> None:
        lower = self.profile.lower("memory ran out")
        if lower is None:
            message = (
                f"{self.device} is out of memory even with the smallest memory profile ({told.partition('.')[0]})."
            )
            raise NotEnoughMemory(message, hint=_SMALLER, needed=0, available=free_memory(self.device))
        self._say(f"Out of memory with memory profile {self.profile.name}: the same step again with {lower.name}.")
        self.clear()
        self.profile = lower
        release()


def offload(model: nn.Module, profile: MemoryProfile, device: torch.device) -> None:
    """Keep the weights in the machine's memory and send them over as they are needed: by blocks, or by layers."""
    streams = device.type == "cuda" and profile.name == "streamed"
    blocks = profile.name == "streamed" and any(isinstance(part, nn.ModuleList) for part in model.children())
    apply_group_offloading(
        model,
        onload_device=device,
        offload_device=_CPU,
        offload_type="block_level" if blocks else "leaf_level",
        num_blocks_per_group=1 if blocks else None,
        non_blocking=streams,
        use_stream=streams,
        record_stream=streams,
        low_cpu_mem_usage=not profile.pinned,
    )


def lift(model: nn.Module, *, weights: bool = True) -> None:
    """Undo any placing: no hooks, all weights in the machine's memory (or left where they are)."""
    for module in model.modules():
        registry: Any = getattr(module, "_diffusers_hook", None)
        for name in _HOOKS if registry is not None else ():
            registry.remove_hook(name, recurse=False)
    if weights:
        model.to(_CPU)


def free_memory(device: torch.device) -> int:
    """Bytes free where a device computes."""
    if device.type == "cuda":
        idle = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + idle
    return int(psutil.virtual_memory().available)


def fits(size: int, device: torch.device) -> bool:
    """Whether weights of `size` bytes have room beside what is loaded."""
    return size < _ROOM * free_memory(device)
