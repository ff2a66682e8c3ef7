"""The steps of a video as a table: which transformer makes them, with which guidance and which weights of LoRAs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from reeltune.request.values import Phase, Request


@dataclass(frozen=True)
class StepRow:
    """Consecutive steps that are made alike. `first`, `last`: steps, counted from 1. `phase`: counted from 1.

    `weights`: the weight of each LoRA.
    """

    first: int
    last: int
    phase: int
    transformer: str
    guidance_scale: float
    weights: tuple[float, ...]

    @property
    def steps(self) -> str:
        """The steps as text, such as "1-4"."""
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"


def step_table(request: Request) -> list[StepRow]:
    """The steps of a request, with equal ones combined."""
    rows: list[StepRow] = []
    for number, phase in enumerate(request.phases, start=1):
        for step in range(phase.first_step, phase.first_step + phase.steps):
            weights = tuple(lora.weights[step] for lora in request.loras)
            _add(rows, step + 1, number, phase, weights)
    return rows


def _add(rows: list[StepRow], step: int, number: int, phase: Phase, weights: Sequence[float]) -> None:
    first = step
    if rows and (rows[-1].phase, rows[-1].weights) == (number, tuple(weights)):
        first = rows.pop().first
    rows.append(StepRow(first, step, number, phase.transformer, phase.guidance_scale, tuple(weights)))
