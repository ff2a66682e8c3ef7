"""Whether a model's table of positions covers a video; where it doesn't, the first step would fail."""

from __future__ import annotations

from reeltune.errors import SettingsError
from reeltune.families import Architecture
from reeltune.planning.plan import Plan
from reeltune.request.values import Request

_TABLE = "rope_max_seq_len"  # of a config: the length of the table along each axis


def check_positions(plan: Plan, request: Request) -> None:
    """Raise SettingsError for a video that is larger or longer than the model's tables of positions reach.

    What counts is the chosen checkpoint's header; as long as that isn't known, what is usual in the family.
    """
    architecture = plan.definition.architecture
    positions = _positions(plan)
    if not positions:
        return
    side, step = architecture.resolution_step, architecture.family.frame_step
    references = len(request.inputs.reference_images)  # each stands before or after the video as a frame of its own
    longest = (positions - 1 - references) * step + 1
    if max(request.width, request.height) <= positions * side and request.frames <= longest:
        return
    largest = f"{positions * side}x{positions * side} pixels and {longest} frames"
    asked = f"{request.width}x{request.height} pixels and {request.frames} frames"
    message = f"{plan.definition.id} makes videos of at most {largest}, and {asked} are asked for."
    hint = _hint(architecture, request, positions * side, longest)
    raise SettingsError(message, hint=hint)


def _positions(plan: Plan) -> int:
    """The length of the table; 0 where positions are computed, so that there is no limit."""
    family = plan.definition.architecture.family
    identity = plan.transformer.facts.identity
    length = (identity.config or {}).get(_TABLE) if identity else None
    if family.position_table and type(length) is int:
        return length
    return family.position_table


def _hint(architecture: Architecture, request: Request, side: int, longest: int) -> str:
    """Settings that fit, the nearest to those asked for."""
    fitting = []
    if max(request.width, request.height) > side:
        share = side / max(request.width, request.height)
        sizes = [max(1, int(part * share / architecture.resolution_step)) * architecture.resolution_step
                 for part in (request.width, request.height)]  # fmt: skip
        fitting.append(f"resolution={sizes[0]}x{sizes[1]}")
    if request.frames > longest:
        fitting.append(f"video_length={longest}")
    return f"Set {' and '.join(fitting)}, or less."
