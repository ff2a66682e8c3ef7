"""The steps of a video, and its LoRAs, as `explain` prints them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reeltune.cli.output import print_line, print_notice, print_table

if TYPE_CHECKING:
    from reeltune.checkpoints.loras import LoraReport
    from reeltune.planning.plan import Plan
    from reeltune.request.values import Request
    from reeltune.untrusted import JsonObject


def steps_json(plan: Plan, request: Request) -> JsonObject:
    """The phases and the LoRAs of a request."""
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
    return {"loras": loras, "phases": phases}


def print_steps(plan: Plan, request: Request) -> None:
    """Print what each step does, if not all steps are alike, and what of each LoRA fits the model."""
    from reeltune.request.steps import step_table

    rows = step_table(request)
    if len(rows) > 1 or request.loras:
        columns = [f"LORA {number}" for number in range(1, len(plan.loras) + 1)]
        print_line("")
        print_table(
            ("STEPS", "TRANSFORMER", "PHASE", "GUIDANCE", *columns),
            (
                (row.steps, row.transformer, str(row.phase), f"{row.guidance_scale:g}", *map(_weight, row.weights))
                for row in rows
            ),
        )
    for number, (planned, report) in enumerate(zip(plan.loras, _reports(plan), strict=True), start=1):
        print_line(f"LORA {number}: {planned.name}" + ("" if report is None else f", {report}"))


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
