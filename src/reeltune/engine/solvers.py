"""Solvers: the schedulers that the denoising loops of diffusers' pipelines use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import diffusers
import torch

from reeltune.families import Family
from reeltune.families.values import DISTILLED_STEPS
from reeltune.request.timesteps import timesteps
from reeltune.request.values import Request

_FLOW = {"prediction_type": "flow_prediction", "use_flow_sigmas": True}
_NOISE = 0x9E3779B9  # makes the seed of a solver's noise differ from the seed of the first latents


def scheduler(request: Request, family: Family | None = None) -> Any:
    """The scheduler of the request's solver, at the request's shift (flow matching, as the models were trained).

    `family`: of the model, where it may have timesteps of its own.
    """
    if family is not None and family.own_timesteps:
        return FixedScheduler(lambda steps: timesteps(request.solver, steps, request.shift, family.name))
    if request.solver in ("euler", DISTILLED_STEPS):
        return _from_first_step(diffusers.FlowMatchEulerDiscreteScheduler, shift=request.shift)
    if request.solver == "dpm++":
        return _from_first_step(diffusers.DPMSolverMultistepScheduler, flow_shift=request.shift, **_FLOW)
    if request.solver == "unipc":
        return _from_first_step(diffusers.UniPCMultistepScheduler, flow_shift=request.shift, **_FLOW)
    generator = None
    if request.solver == "lcm":
        generator = torch.Generator("cpu").manual_seed(request.seed ^ _NOISE)
    return FixedScheduler(lambda steps: timesteps(request.solver, steps, request.shift), generator)


class _FromFirstStep:
    """Has a scheduler begin with the first step.

    Many steps or a large shift lead to several steps with one timestep, as some are rounded to whole numbers. Of these,
    diffusers' schedulers begin with the second, so that the last step is missing.
    """

    timesteps: torch.Tensor

    def index_for_timestep(self, timestep: float | torch.Tensor, schedule_timesteps: torch.Tensor | None = None) -> int:
        """The number of the first step with a timestep, counted from 0."""
        schedule = self.timesteps if schedule_timesteps is None else schedule_timesteps
        steps = (schedule == timestep).nonzero()
        return int(steps[0]) if len(steps) else len(schedule) - 1


def _from_first_step(kind: Any, **options: Any) -> Any:
    """A scheduler of a class of diffusers that begins with the first step."""
    return type(kind.__name__, (_FromFirstStep, kind), {})(**options)


class FixedScheduler(_FromFirstStep, diffusers.FlowMatchEulerDiscreteScheduler):  # type: ignore[misc]
    """Flow matching on given timesteps, down to a noise level of 0.

    With x the latents, v the model's velocity, and s and s' the noise levels before and after a step, a step is
    Euler's, x + (s' - s) v. With a generator, it is that of latent consistency models: x0 = x - s v is mixed with new
    noise, (1 - s') x0 + s' noise.

    `visited`: the timesteps, 0 to 1000, for a number of steps. `generator`: on the CPU, so that the noise is the same
    on every device; diffusers' pipelines pass none to a scheduler.
    """

    def __init__(self, visited: Callable[[int], tuple[float, ...]], generator: torch.Generator | None = None) -> None:
        super().__init__(stochastic_sampling=generator is not None)
        self._visited = visited
        self._generator = generator

    def set_timesteps(self, num_inference_steps: int, device: torch.device | str | None = None) -> None:
        """Set `timesteps` [steps], and `sigmas` [steps + 1], their noise levels and 0."""
        visited = self._visited(num_inference_steps)
        levels = [timestep / self.config.num_train_timesteps for timestep in visited]
        super().set_timesteps(sigmas=levels, timesteps=list(visited), device=device)

    def step(self, model_output: torch.Tensor, timestep: torch.Tensor, sample: torch.Tensor, **options: Any) -> Any:
        """The latents after a step, in the data type of `sample`: a velocity in 16 bits doesn't round them."""
        velocity = model_output.to(sample.dtype)
        return super().step(velocity, timestep, sample, generator=self._generator, **options)
