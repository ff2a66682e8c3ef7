"""Follows the loops of a pipeline over the steps of a video's windows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

import torch

from reeltune.engine.families.base import Arguments, Tensors
from reeltune.request.values import Request

_PROMPT = "prompt_embeds"
OnLatents = Callable[[torch.Tensor, float], None]


class AllStepsMade(Exception):
    """Ends a pipeline that would decode its latents after the last step, which is done later, from what is stored."""


class StepEnds:
    """Called by a pipeline after each step: counts the steps of all windows, and keeps the latents of each window.

    `on_step` is called with the number of steps done, `on_latents` with the latents, as the pipeline holds them, and
    the share of noise (0 to 1) that is left in them. `first_step`: the number of steps that were made before. With
    `stop`, AllStepsMade is raised after the last step. `embeddings_of`: the embeddings of a window, counted from 0.
    """

    def __init__(
        self,
        request: Request,
        on_step: Callable[[int], None],
        on_latents: OnLatents | None,
        first_step: int = 0,
        *,
        stop: bool,
        embeddings_of: Callable[[int], Tensors],
    ) -> None:
        self._request, self._on_step, self._on_latents, self._stop = request, on_step, on_latents, stop
        self._first_step, self._embeddings_of = first_step, embeddings_of
        self.windows: list[torch.Tensor] = []

    def __call__(self, pipeline: Any, index: int, timestep: object, values: Arguments) -> Arguments:
        """After step `index`, from 0, of the current window. Returns what the pipeline goes on with."""
        latents, steps = values["latents"], self._request.steps
        if index == 0:
            self.windows.append(latents)
        self.windows[-1] = latents
        iterations = pipeline.num_timesteps  # more than steps if blocks of frames are at different noise levels
        done = steps * (len(self.windows) - 1) + steps * (index + 1) // iterations
        self._on_step(self._first_step + done)
        if self._on_latents is not None:
            self._on_latents(latents, _noise(pipeline.scheduler, index, iterations) if iterations == steps else 0.0)
        if self._stop and done == steps * self._request.windows:
            raise AllStepsMade
        if index + 1 == iterations and self._request.later_prompts:
            embeddings = self._embeddings_of(len(self.windows))[_PROMPT]
            assert embeddings is not None
            return {**values, _PROMPT: embeddings.to(pipeline.transformer.dtype)}
        return values


def call_after_steps(pipeline: Any, step_end: StepEnds) -> None:
    """Call `step_end` after each step of a pipeline that doesn't take it as an argument of its call."""
    inner, steps = pipeline.scheduler.step, count()

    def step(velocity: torch.Tensor, timestep: Any, sample: torch.Tensor, **options: Any) -> Any:
        result = inner(velocity, timestep, sample, **options)
        step_end(pipeline, next(steps), timestep, {"latents": result[0]})
        return result

    pipeline.scheduler.step = step


def _noise(scheduler: Any, index: int, iterations: int) -> float:
    """The share of noise after step `index` of `iterations`, which are the last ones of the scheduler's steps."""
    left_out = len(scheduler.timesteps) - iterations
    return float(scheduler.sigmas[left_out + index + 1])


@contextmanager
def seeded(seed: int, device: torch.device | None) -> Iterator[None]:
    """Seed torch's own generators within the context: some noise in pipelines comes from them."""
    cards = [device] if device is not None and device.type == "cuda" else []
    with torch.random.fork_rng(cards):
        torch.manual_seed(seed)
        yield
