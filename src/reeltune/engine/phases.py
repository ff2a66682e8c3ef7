"""Two transformers that share one video (Wan 2.2): each is loaded when its part of the noise comes, not before."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import psutil
import torch
from torch import nn

_ROOM = 0.8  # of the free memory: activations need some too


class StandIn:
    """Answers for a transformer that isn't loaded until it is called. `load` gives it, the second time from memory."""

    def __init__(self, config: Any, dtype: torch.dtype, load: Callable[[], nn.Module]) -> None:
        self.config, self.dtype, self._load = config, dtype, load

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        """The transformer's own forward pass."""
        return self._load()(*inputs, **options)

    def cache_context(self, *names: Any, **state: Any) -> AbstractContextManager[None]:
        """The loaded model's own."""
        return self._load().cache_context(*names, **state)  # type: ignore[no-any-return,operator]


def fits(size: int, device: torch.device) -> bool:
    """Whether weights of `size` bytes have room beside what is loaded."""
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available
    return size < _ROOM * free
