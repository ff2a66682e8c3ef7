"""Two transformers that share one video (Wan 2.2): each is loaded when its part of the noise comes, not before."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch

from reeltune.engine.placement import Placed


class StandIn:
    """Answers for a transformer that isn't loaded until it is called. `load` gives it, the second time from memory."""

    def __init__(self, config: Any, dtype: torch.dtype, load: Callable[[], Placed]) -> None:
        self.config, self.dtype, self._load = config, dtype, load

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        """The transformer's own forward pass."""
        return self._load()(*inputs, **options)

    def cache_context(self, *names: Any, **state: Any) -> AbstractContextManager[None]:
        """The loaded model's own."""
        return self._load().cache_context(*names, **state)
