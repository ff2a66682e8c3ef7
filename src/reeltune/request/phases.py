"""The phases of a video: which steps each transformer makes, and with which guidance."""

from __future__ import annotations

from collections.abc import Sequence

from reeltune.definitions.slots import TRANSFORMER, TRANSFORMER_2
from reeltune.families.values import Settings
from reeltune.families.vocabulary import DEFAULTS
from reeltune.request.values import Phase

_SCALES = ("guidance_scale", "guidance2_scale", "guidance3_scale")
_THRESHOLDS = ("switch_threshold", "switch_threshold2")


def phases_of(settings: Settings, timesteps: Sequence[float], *, two_transformers: bool) -> tuple[Phase, ...]:
    """The phases that the settings ask for; phases without steps are included.

    The second phase begins at the first step whose timestep is at most `switch_threshold`, the third at the first one
    that is at most `switch_threshold2`. With `two_transformers`, the second one takes over after the phase
    `model_switch_phase`. A phase without its own guidance scale has that of the phase before. These are the rules of
    WanGP's settings.

    Args:
        settings: Complete settings.
        timesteps: The timestep of each step, 0 to 1000, descending.
        two_transformers: Whether the model has a second transformer.
    """
    count = phase_count(settings)
    last_of_first = settings.get("model_switch_phase") or 1
    firsts = [0]
    for key in _THRESHOLDS[: count - 1]:
        firsts.append(max(firsts[-1], _first_step(timesteps, settings.get(key, DEFAULTS.get(key, 0)))))
    ends = [*firsts[1:], len(timesteps)]
    phases = []
    scale = 1.0
    for number, (first, end) in enumerate(zip(firsts, ends, strict=True), start=1):
        scale = settings.get(_SCALES[number - 1], scale)
        slot = TRANSFORMER_2 if two_transformers and number > last_of_first else TRANSFORMER
        phases.append(Phase(first, end - first, slot, scale))
    return tuple(phases)


def phase_count(settings: Settings) -> int:
    """The number of phases, 1 to 3."""
    count: int = settings.get("guidance_phases", 1)
    return min(max(count, 1), len(_SCALES))


def _first_step(timesteps: Sequence[float], threshold: float) -> int:
    """The first step whose timestep is at most the threshold; the number of steps if there is none."""
    return next((step for step, timestep in enumerate(timesteps) if timestep <= threshold), len(timesteps))
