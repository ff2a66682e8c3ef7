"""The LoRAs of a video: those of the definition, followed by those of the settings, with their weights by step."""

from __future__ import annotations

from collections.abc import Sequence

from reeltune.definitions import Definition
from reeltune.definitions.ltx_config import makes_distilled
from reeltune.errors import SettingsError
from reeltune.families.base import LORA_SOURCES, LORA_WEIGHTS
from reeltune.families.values import DISTILLED_STEPS, Settings
from reeltune.request.values import Lora, Phase
from reeltune.request.windows import mode_of
from reeltune.settings.multipliers import StepWeights, add_items, parse_multipliers, weights_of


def loras_of(
    definition: Definition, settings: Settings, phases: Sequence[Phase], notices: list[str], solver: str = ""
) -> tuple[Lora, ...]:
    """The LoRAs that a video is made with. Adds notices about weights that no LoRA has.

    `settings`: complete settings. If they have fewer phases than the definition has weights for, its first ones count.
    `solver`: it may use the LoRA of the second pass in all steps. Raises SettingsError for invalid weights.
    """
    of_mode = mode_loras(definition, settings)
    users = list(settings.get(LORA_SOURCES) or ())
    scales = definition.architecture.scales
    lora = scales.lora if scales and not any(makes_distilled(source) for source in users) else ""
    own = [row.url for row in definition.loras if scales is None or row.url != scales.lora]
    text = _weights_of_second_pass(solver, len(phases)) if lora else ""
    second = [lora] if text else []
    weights = [
        *_weights("", of_mode, notices),
        *(weight.up_to(len(phases)) for weight in _weights(definition.lora_multipliers, own, notices)),
        *_weights(text, second, notices),
        *_weights(settings.get(LORA_WEIGHTS) or "", users, notices),
    ]
    phase_steps = [phase.steps for phase in phases]
    more_phases = "guidance_phases" in definition.architecture.settings and (scales is None or len(phases) == 1)
    switch_phase = settings.get("model_switch_phase") or 1
    return tuple(
        Lora(source, weight.by_step(phase_steps, switch_phase, more_phases=more_phases))
        for source, weight in zip((*of_mode, *own, *second, *users), weights, strict=True)
    )


def mode_loras(definition: Definition, settings: Settings) -> tuple[str, ...]:
    """The LoRA that `model_mode` chooses; none for architectures whose modes don't.

    Raises SettingsError for a mode without a LoRA.
    """
    architecture = definition.architecture
    if not architecture.mode_loras:
        return ()
    mode, loras = mode_of(settings, architecture), definition.preload
    if mode < len(loras):
        return (loras[mode].url,)
    message = f"model_mode is {mode}, and {definition.id} lists {len(loras)} LoRAs under preload_URLs."
    raise SettingsError(message, hint="List one for each mode, in their order.")


def _weights_of_second_pass(solver: str, passes: int) -> str:
    """The weights of the LoRA for a second pass, which a solver may use in all steps; empty if no step needs it."""
    if solver == DISTILLED_STEPS:
        return "0.5"
    return "0;1" if passes > 1 else ""


def _weights(text: str, loras: Sequence[str], notices: list[str]) -> tuple[StepWeights, ...]:
    weights, more_notices = weights_of(parse_multipliers(text), len(loras))
    notices += more_notices
    return weights


def add_loras(settings: Settings, loras: Sequence[tuple[str, str]]) -> Settings:
    """Settings with further LoRAs. Raises SettingsError for several `|` in the weights.

    `loras`: pairs of a source and its weights, such as ("style.safetensors", "0.8").
    """
    names = list(settings.get(LORA_SOURCES) or ())
    text = add_items(str(settings.get(LORA_WEIGHTS) or ""), len(names), [weights or "1" for _, weights in loras])
    return {**settings, LORA_SOURCES: [*names, *(source for source, _ in loras)], LORA_WEIGHTS: text}
