"""The steps of a video as a table: which transformer makes them, with which guidance and which weights of LoRAs."""

from __future__ import annotations

from dataclasses import dataclass, replace

from reeltune.request.values import Phase, Request


@dataclass(frozen=True)
class StepRow:
    """Consecutive steps that are made alike. `first`, `last`: steps, counted from 1. `phase`: counted from 1.

    `weights`: the weight of each LoRA. `perturbation`: the weight of spatiotemporal guidance, 0 where it is off.
    `size`: width and height of the frames, of videos that are made at two scales; else empty. `sound_scale`,
    `modality_scale`: further guidance of models that make sound; 1 where it is off.
    """

    first: int
    last: int
    phase: int
    transformer: str
    guidance_scale: float
    weights: tuple[float, ...]
    perturbation: float = 0.0
    size: str = ""
    sound_scale: float = 1.0
    modality_scale: float = 1.0

    @property
    def steps(self) -> str:
        """The steps as text, such as "1-4"."""
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"


def step_table(request: Request) -> list[StepRow]:
    """The steps of a request, with equal ones combined."""
    rows: list[StepRow] = []
    for number, phase in enumerate(request.phases, start=1):
        for step in range(phase.first_step, phase.first_step + phase.steps):
            _add(rows, _row(request, step, number, phase))
    return rows


def _row(request: Request, step: int, number: int, phase: Phase) -> StepRow:
    """The row of one step. `step`: counted from 0; `number`: of the phase."""
    guidance = request.guidance_of_step(step)
    scale = request.passes[number - 1] if request.passes else None
    return StepRow(
        first=step + 1,
        last=step + 1,
        phase=number,
        transformer=phase.transformer,
        guidance_scale=guidance.scale,
        weights=tuple(lora.weights[step] for lora in request.loras),
        perturbation=guidance.perturbation,
        size=f"{scale.width}x{scale.height}" if scale else "",
        sound_scale=guidance.sound_scale,
        modality_scale=guidance.modality_scale,
    )


def _add(rows: list[StepRow], row: StepRow) -> None:
    """Add a step, or extend the last row if it is equal."""
    if rows and replace(rows[-1], last=row.last) == replace(row, first=rows[-1].first):
        row = replace(row, first=rows.pop().first)
    rows.append(row)
