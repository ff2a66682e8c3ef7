"""Long videos of models that continue a window from the latents of the one before it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from reeltune.engine.families.base import Latents
from reeltune.engine.stages import Loop, generator_of
from reeltune.request.values import Request, Window


def denoise_in_windows(loop: Loop, request: Request, window: Window, on_window: Callable[[Request], None]) -> Latents:
    """From noise to the latents of all windows, one after the other, fp32.

    `on_window` is called before each window with the request of its frames.
    """
    generator = generator_of(request)
    part = replace(request, frames=window.size, window=None, later_prompts=())
    windows: list[torch.Tensor] = []
    for number in range(request.windows):
        on_window(part)
        before = windows[-1] if windows else None
        continued = replace(loop, embeddings=(loop.embeddings_of(number),), before=before)
        windows.append(continued.run(part, generator, first_step=number * request.steps).video)
    return Latents(torch.cat(windows, dim=2))
