"""The steps of a video, and its LoRAs, as `explain` prints them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reeltune.cli.output import print_line, print_notice, print_table

if TYPE_CHECKING:
    from reeltune.checkpoints.loras import LoraReport
    from reeltune.planning.plan import Plan
    from reeltune.request.steps import StepRow
    from reeltune.request.values import Request
    from reeltune.untrusted import JsonObject


def steps_json(plan: Plan, request: Request) -> JsonObject:
    """The phases and the LoRAs of a request, and the scales of one that is made at two."""
    loras = []
    for planned, lora, report in zip(plan.loras, request.loras, _reports(plan), strict=True):
        loras.append(
            {
                "name": planned.name,
                "file": str(planned.item.path),
                "modules": report.modules if report else None,
                "total": report.total if report else None,
                "left": list(report.left) if report else None,
                "weights": list(lora.weights),
            }
        )
    phases = [
        {
            "first_step": phase.first_step,
            "transformer": phase.transformer,
            "guidance_scale": phase.guidance_scale,
        }
        for phase in request.phases
        if phase.steps
    ]
    scales = [
        {
            "first_step": scale.first_step,
            "steps": scale.steps,
            "width": scale.width,
            "height": scale.height,
            "timesteps": list(scale.timesteps),
            "guidance_scale": [guidance.scale for guidance in scale.guidance],
            "stg_scale": [guidance.perturbation for guidance in scale.guidance],
        }
        for scale in request.passes
    ]
    return {"loras": loras, "phases": phases, **({"scales": scales} if scales else {})}


def print_steps(plan: Plan, request: Request) -> None:
    """Print what each step does, if not all steps are alike, and what of each LoRA fits the model."""
    from reeltune.request.steps import step_table

    rows = step_table(request)
    if len(rows) > 1 or request.loras:
        columns = [f"LORA {number}" for number in range(1, len(plan.loras) + 1)]
        print_line("")
        sizes = ("SIZE", "STG") if request.passes else ()
        print_table(
            ("STEPS", "TRANSFORMER", "PHASE", *sizes[:1], "GUIDANCE", *sizes[1:], *columns),
            (_cells(row) for row in rows),
        )
        if request.computed_size != (request.width, request.height):
            print_line(f"The frames are scaled to {request.width}x{request.height}.")
    for number, (planned, report) in enumerate(zip(plan.loras, _reports(plan), strict=True), start=1):
        print_line(f"LORA {number}: {planned.name}" + ("" if report is None else f", {report}"))


def _cells(row: StepRow) -> tuple[str, ...]:
    """The cells of a row; those of the size and of spatiotemporal guidance only for videos made at two scales."""
    start = (row.steps, row.transformer, str(row.phase))
    scale = f"{row.guidance_scale:g}"
    guidance = (row.size, scale, f"{row.perturbation:g}") if row.size else (scale,)
    return (*start, *guidance, *map(_weight, row.weights))


def _weight(weight: float) -> str:
    return f"{weight:g}"


def _reports(plan: Plan) -> tuple[LoraReport | None, ...]:
    """What of each LoRA fits the model; None for files that are missing. LoRAs that can't be used are reported."""
    from reeltune.errors import CheckpointError
    from reeltune.planning.fit import reports_on_disk

    try:
        return reports_on_disk(plan)
    except CheckpointError as error:
        print_notice(str(error))
        return tuple(None for _ in plan.loras)
