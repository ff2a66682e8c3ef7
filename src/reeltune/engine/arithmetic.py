"""How a video is computed on a CPU: the precision of matrix products, and the number of threads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from reeltune.families import Architecture
from reeltune.families.base import Config, width_of
from reeltune.planning.plan import Plan
from reeltune.request.values import Request
from reeltune.weights.wide import products_in_fp32

_WORTH_SHARING = 200_000_000  # multiplications of one layer: a few milliseconds on one core


@contextmanager
def arithmetic(plan: Plan, request: Request, config: Config) -> Iterator[None]:
    """A context for all stages of a video: products in fp32 where 16-bit ones are slow, and a suitable number of
    threads. The number of threads is restored afterwards. `config`: the transformer's.
    """
    before = torch.get_num_threads()
    architecture = plan.definition.architecture
    torch.set_num_threads(plan.preferences.threads or threads_for(architecture, request, config, before))
    try:
        with products_in_fp32(plan.products_in_fp32):
            yield
    finally:
        torch.set_num_threads(before)


def threads_for(architecture: Architecture, request: Request, config: Config, most: int) -> int:
    """The number of threads: one where a layer is small, else `most`.

    More threads than the work can feed wait for each other at each layer; where the machine does something else too,
    the one waited for may not be running at all. A layer takes tokens x features x features multiplications.
    """
    frames = (request.frames - 1) // architecture.family.frame_step + 1
    side = architecture.resolution_step
    width, height = request.computed_size
    tokens = (width // side) * (height // side) * frames
    return most if tokens * width_of(config) ** 2 > _WORTH_SHARING else 1
