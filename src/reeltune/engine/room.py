"""Videos that don't fit into this machine's memory are refused before anything is allocated for them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import psutil
import torch

from reeltune.engine.placing import free_memory, out_of_memory
from reeltune.errors import NotEnoughMemory
from reeltune.machine import Machine
from reeltune.request.values import Request

_BYTES_A_PIXEL = 3 * (4 + 1)  # decoded in fp32, and as the frames that are written
_CPU = torch.device("cpu")
_SMALLER = "Make it smaller or shorter."


def check_room(request: Request, machine: Machine | None) -> None:
    """Raise NotEnoughMemory where the frames alone are more than a machine's memory (this one's by default)."""
    ram = machine.ram if machine is not None else psutil.virtual_memory().total
    width, height = request.computed_size
    needed = width * height * request.frames * _BYTES_A_PIXEL
    if needed > ram:
        size = f"{request.frames} frames of {width}x{height}"
        message = f"{size} take {needed / 1e9:.1f} GB once decoded; this machine has {ram / 1e9:.1f} GB."
        raise NotEnoughMemory(message, hint=_SMALLER, needed=needed, available=ram)


@contextlib.contextmanager
def allocating(request: Request) -> Iterator[None]:
    """Within this context, raise NotEnoughMemory where an allocation fails."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not out_of_memory(error):
            raise
        size = f"{request.frames} frames of {request.width}x{request.height}"
        message = f"There is not enough memory for {size}."
        raise NotEnoughMemory(message, hint=_SMALLER, needed=0, available=free_memory(_CPU)) from error
