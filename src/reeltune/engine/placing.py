"""Where models lie while they compute: on the device, or in the machine's memory and sent over in parts.

Every forward pass runs under `Places.run`: out of memory, the weights are placed anew by the next smaller profile and
the same pass is made again, from the same inputs. Nothing else of the run is touched, so the video is the same one.
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
from reeltune.errors import NotEnoughMemory
from reeltune.planning.memory import ChosenProfile, MemoryProfile
from reeltune.weights._libraries import int8_parts, is_int8, offload_in_groups, remove_offloading
from reeltune.weights.upload import upload

_CPU = torch.device("cpu")
_WHOLE = (MemoryProfile.RESIDENT, MemoryProfile.STAGES)  # models are on the device as a whole
_ROOM = 0.8  # of the free memory: activations need some too
_SMALLER = "Make it smaller or shorter, or take an int8 version (`--quantization int8`)."
Result = TypeVar("Result")


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a device's memory ran out."""
    words = (
        "MPS backend out of memory",
        "CUDA error: out of memory",  # of pinned memory, too
        "DefaultCPUAllocator: ",
        "Storage size calculation overflowed",
    )
    return isinstance(error, torch.OutOfMemoryError) or any(row in str(error) for row in words)


def release() -> None:
    """Return freed memory to the system and the card."""
    gc.collect()
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # another C library than glibc
            ctypes.CDLL(None).malloc_trim(0)  # which keeps what it has freed in pieces
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


class Places:
    """Keeps the models of one engine where its memory profile wants them, until it is told to forget them."""

    def __init__(self, chosen: ChosenProfile, device: torch.device, reporter: Reporter) -> None:
        self.device, self._reporter = device, reporter
        self.preferred = chosen.profile  # before memory ran out
        self._chosen = chosen
        self._placed: dict[nn.Module, Callable[[], None]] = {}  # how each is taken back

    @property
    def profile(self) -> MemoryProfile:
        """The memory profile now: a smaller one than the preferred, once memory ran out."""
        return self._chosen.profile

    def place(self, *models: nn.Module) -> None:
        """Put models where their next pass needs them; with one stage at a time, all others make room."""
        if self.profile is MemoryProfile.STAGES:
            self.rest(*models)
        for model in models:
            if model in self._placed:
                continue
            if self.profile in _WHOLE:
                self._placed[model] = at_home(model, copies=self.profile is MemoryProfile.RESIDENT)
                upload(model, self.device)
            else:
                self._placed[model] = partial(lift, model)
                offload(model, self._chosen, self.device)

    def rest(self, *but: nn.Module) -> None:
        """A stage is over: where only one at a time has room, its weights leave the device."""
        if self.profile is MemoryProfile.STAGES:
            for model in set(self._placed) - set(but):
                self.forget(model)

    def forget(self, model: nn.Module, *, weights: bool = True) -> None:
        """Take a model off the device, as if it had never been placed; or only its hooks, where its weights go too."""
        take_back = self._placed.pop(model, None)
        if take_back is not None and weights:
            take_back()
        elif take_back is not None:
            remove_offloading(model)

    def clear(self) -> None:
        """Take everything off the device."""
        for model in list(self._placed):
            self.forget(model)

    @contextlib.contextmanager
    def visiting(self, model: nn.Module) -> Iterator[None]:
        """A small model as a whole on the device: to stay where all do, else for as long as this takes."""
        if self.profile in _WHOLE:
            self.place(model)
            yield
            return
        take_back = at_home(model)
        try:
            upload(model, self.device)
            yield
        finally:
            take_back()

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
        smaller = self._chosen.smaller("memory ran out")
        if smaller is None:
            message = (
                f"{self.device} is out of memory even with the smallest memory profile ({told.partition('.')[0]})."
            )
            raise NotEnoughMemory(message, hint=_SMALLER, needed=0, available=free_memory(self.device))
        self._reporter.notice(
            f"Out of memory with memory profile {self.profile}: the same step again with {smaller.profile}."
        )
        self.clear()
        self._chosen = smaller
        release()


def offload(model: nn.Module, chosen: ChosenProfile, device: torch.device) -> None:
    """Keep the weights in the machine's memory and send them over as they are needed: by blocks, or by layers.

    Only blocks lie in pinned memory: what encodes a prompt is used once, and pinning takes longer than sending.
    """
    streamed = chosen.profile is MemoryProfile.STREAMED
    streams = device.type == "cuda" and streamed  # diffusers pins memory for its streams
    blocks = streamed and any(isinstance(part, nn.ModuleList) for part in model.children())
    offload_in_groups(model, device, by_block=blocks, stream=streams, pinned=blocks and chosen.pinned)


def at_home(model: nn.Module, *, copies: bool = False) -> Callable[[], None]:
    """What puts a model's weights back where they are now: the mapped file, as a rule, so that nothing is copied.

    `copies`: weights that are not in a mapped file are copied back instead, so that no second copy of them stays in
    memory while they are on the device.
    """
    restore = [_way_back(module, name, weight, copies) for module, name, weight in _weights(model)]
    restore += [_way_back(module, name, buffer, copies) for module, name, buffer in _buffers(model)]

    def take_back() -> None:
        for put_back in restore:
            put_back()

    return take_back


def _weights(model: nn.Module) -> Iterator[tuple[nn.Module, str, torch.Tensor]]:
    for module in model.modules():
        for name, weight in module.named_parameters(recurse=False):
            yield module, name, weight


def _buffers(model: nn.Module) -> Iterator[tuple[nn.Module, str, torch.Tensor]]:
    for module in model.modules():
        for name, buffer in module.named_buffers(recurse=False):
            yield module, name, buffer


def _way_back(module: nn.Module, name: str, tensor: torch.Tensor, copies: bool) -> Callable[[], None]:
    """What puts one parameter or buffer of a module back."""
    if copies and not in_mapped_file(tensor):
        return partial(_copy_back, module, name)
    if is_int8(tensor):
        return partial(setattr, module, name, tensor)
    return partial(_point_back, tensor, tensor.data)


def _copy_back(module: nn.Module, name: str) -> None:
    tensor = getattr(module, name)
    if isinstance(tensor, nn.Parameter):
        setattr(module, name, nn.Parameter(tensor.data.to(_CPU), requires_grad=False))
    else:
        tensor.data = tensor.data.to(_CPU)


def _point_back(tensor: torch.Tensor, data: torch.Tensor) -> None:
    tensor.data = data


def in_mapped_file(tensor: torch.Tensor) -> bool:
    """Whether a tensor is a view on a mapped checkpoint: the mapping is one storage, larger than the tensor itself."""
    part = tensor.data
    if is_int8(part):
        part, _ = int8_parts(part)
    return part.device.type == "cpu" and part.untyped_storage().nbytes() > part.numel() * part.element_size()


def lift(model: nn.Module) -> None:
    """Undo any placing: no hooks, all weights in the machine's memory."""
    remove_offloading(model)
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
