"""Where the weights of models are while they compute: on the device, or in the machine's memory and sent in parts.

Every forward pass runs under `Placement.run`: where memory runs out, the weights are placed by the next smaller
profile and the same pass is made again from the same inputs, so the video stays the same.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TypeVar

import psutil
import torch
from torch import nn

from reeltune.engine.reporting import Reporter
from reeltune.engine.restoring import Restore, restorer, to_memory
from reeltune.errors import NotEnoughMemory
from reeltune.planning.memory import ChosenProfile, MemoryProfile
from reeltune.weights._libraries import keep_on_device, offload_in_groups, remove_offloading
from reeltune.weights.upload import upload

_WHOLE = (MemoryProfile.RESIDENT, MemoryProfile.STAGES)  # models are on the device as a whole
_ROOM = 0.8  # of the free memory: activations need some too
_SMALLER = "Make it smaller or shorter, or take an int8 version (`--quantization int8`)."
Result = TypeVar("Result")


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a device's memory ran out."""
    messages = (
        "MPS backend out of memory",
        "CUDA error: out of memory",  # of pinned memory, too
        "DefaultCPUAllocator: ",
        "Storage size calculation overflowed",
    )
    return isinstance(error, torch.OutOfMemoryError) or any(message in str(error) for message in messages)


def release() -> None:
    """Return freed memory to the system and the card."""
    gc.collect()
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # another C library than glibc
            ctypes.CDLL(None).malloc_trim(0)  # which keeps what it has freed in pieces
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


class Placement:
    """Places the models of one engine as its memory profile says, until they are forgotten."""

    def __init__(self, chosen: ChosenProfile, device: torch.device, reporter: Reporter) -> None:
        self.device, self._reporter = device, reporter
        self.preferred = chosen.profile  # before memory ran out
        self.preload = chosen.preload
        self._chosen = chosen
        self._restores: dict[nn.Module, Restore] = {}  # of the models that are placed

    @property
    def profile(self) -> MemoryProfile:
        """The memory profile now: a smaller one than the preferred, once memory ran out."""
        return self._chosen.profile

    def place(self, *models: nn.Module) -> None:
        """Place models for their next pass; where only one stage at a time fits, all others leave the device."""
        if self.profile is MemoryProfile.STAGES:
            self.rest(*models)
        for model in models:
            if model in self._restores:
                continue
            if self.profile in _WHOLE:
                self._restores[model] = restorer(model, copies=self.profile is MemoryProfile.RESIDENT)
                upload(model, self.device)
            else:
                self._restores[model] = partial(to_memory, model)
                offload(model, self._chosen, self.device)

    def rest(self, *but: nn.Module) -> None:
        """End a stage: where only one at a time fits, its weights leave the device."""
        if self.profile is MemoryProfile.STAGES:
            for model in set(self._restores) - set(but):
                self.forget(model)

    def forget(self, model: nn.Module, *, weights: bool = True) -> None:
        """Take a model off the device, as if it had never been placed.

        `weights`: False where the model isn't used any more, so that only its hooks need to go.
        """
        restore = self._restores.pop(model, None)
        if restore is None:
            return
        if weights:
            restore()
        else:
            remove_offloading(model)

    def alter(self, model: nn.Module, change: Callable[[], None]) -> None:
        """Change the layers of a model, which may be placed. Its weights stay on the device if it is there as a whole.

        Otherwise it is placed anew for the next pass, since its layers are what is sent to the device.
        """
        if self.profile not in _WHOLE:
            self.forget(model)
        change()
        if model not in self._restores:
            return
        try:
            upload(model, self.device)
            return
        except Exception as error:
            if not out_of_memory(error):
                raise
        self.forget(model)  # the next pass places it, by a smaller profile if necessary
        release()

    def clear(self) -> None:
        """Take everything off the device."""
        for model in list(self._restores):
            self.forget(model)

    @contextlib.contextmanager
    def visiting(self, model: nn.Module) -> Iterator[None]:
        """A small model as a whole on the device: to stay where all models do, else within this context."""
        if self.profile in _WHOLE:
            self.place(model)
            yield
            return
        restore = restorer(model)
        try:
            upload(model, self.device)
            yield
        finally:
            restore()

    def run(
        self, models: Sequence[nn.Module], call: Callable[[], Result], undo: Callable[[], None] = lambda: None
    ) -> Result:
        """The result of `call`, which runs the models. Raises NotEnoughMemory.

        Where memory runs out, `undo` reverts what the call has changed, and it is made again under a smaller profile.
        """
        while True:
            try:
                self.place(*models)
                return call()
            except Exception as error:
                if not out_of_memory(error):
                    raise
                message = str(error)
            undo()
            release()  # only here: the error held on to the tensors of the pass that failed
            self._step_down(message)

    def _step_down(self, error: str) -> None:
        smaller = self._chosen.smaller("memory ran out")
        if smaller is None:
            message = (
                f"{self.device} is out of memory even with the smallest memory profile ({error.partition('.')[0]})."
            )
            raise NotEnoughMemory(message, hint=_SMALLER, needed=0, available=free_memory(self.device))
        self._reporter.notice(
            f"Out of memory with memory profile {self.profile}: the same step again with {smaller.profile}."
        )
        self.clear()
        self._chosen = smaller
        release()


def offload(model: nn.Module, chosen: ChosenProfile, device: torch.device) -> None:
    """Keep the weights in the machine's memory and send them to the device as they are needed: by blocks, or by layers.

    Only blocks are kept in pinned memory: encoders are used once, and pinning takes longer than sending. The first
    blocks stay on the device, as far as the profile says.
    """
    streamed = chosen.profile is MemoryProfile.STREAMED
    streams = device.type == "cuda" and streamed  # diffusers pins memory for its streams
    blocks = streamed and any(isinstance(part, nn.ModuleList) for part in model.children())
    offload_in_groups(model, device, by_block=blocks, stream=streams, pinned=blocks and chosen.pinned)
    if chosen.preload:
        keep_on_device(model, chosen.preload)


def free_memory(device: torch.device) -> int:
    """Bytes free where a device computes."""
    if device.type == "cuda":
        idle = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + idle
    return int(psutil.virtual_memory().available)


def fits(size: int, device: torch.device) -> bool:
    """Whether weights of `size` bytes fit beside what is loaded."""
    return size < _ROOM * free_memory(device)
