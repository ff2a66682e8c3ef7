"""What a choice takes in memory, told from headers before anything is loaded."""

from __future__ import annotations

from dataclasses import dataclass

from reeltune.checkpoints.formats import format_of
from reeltune.errors import NotEnoughMemory
from reeltune.planning.choose import Choice
from reeltune.planning.plan import Explanation

_KEPT = 1.03  # share of an int8 model with its scales, and the layers that stay in 16 bits


@dataclass(frozen=True)
class Estimate:
    """Bytes, None where a header isn't known yet. `parameters`: a count, modules and both transformers included.

    `transformer`: the weights that are in memory at once while denoising, the larger one where two take turns;
    `transformers`: both of them; `encoders`: all components beside them, which are loaded first and let go; `disk`:
    every file of the plan.
    """

    parameters: int | None
    transformer: int | None
    transformers: int | None
    encoders: int | None
    disk: int | None

    @property
    def peak(self) -> int | None:
        """Weights in memory at once, at most: activations come on top."""
        known = [row for row in (self.transformer, self.encoders) if row is not None]
        return max(known) if self.transformer is not None else None


def estimate(explanation: Explanation) -> Estimate:
    """What the chosen versions take. Nothing is read: headers that are not known leave gaps."""
    choices = explanation.selection.choices
    parameters = [choice.facts.identity.parameters if choice.facts.identity else None for choice in choices.values()]
    modules = [_in_memory(choice) for slot, choice in choices.items() if slot.startswith("modules")]
    bodies = [_in_memory(choice) for slot, choice in choices.items() if not slot.startswith("modules")]
    parts = [item.bytes for item in explanation.items if item.repository]
    return Estimate(
        parameters=_sum(parameters),
        transformer=_sum([max((row or 0) for row in bodies), *modules]) if None not in bodies else None,
        transformers=_sum([*bodies, *modules]),
        encoders=_sum(parts),
        disk=_sum([item.bytes for item in explanation.items]),
    )


def _in_memory(choice: Choice) -> int | None:
    """Bytes of a file's weights in the form they are run in."""
    identity = choice.facts.identity
    if identity is None:
        return None
    if choice.quantize_on_load:
        return round(identity.parameters * _KEPT)
    return identity.memory_bytes


def _sum(counts: list[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None


def check_memory(explanation: Explanation) -> None:
    """Raise NotEnoughMemory where the weights alone are more than the machine's memory, or the card that holds them.

    Weights that a card can't hold are sent to it in parts, which come from the machine's memory.
    """
    need, machine = estimate(explanation).transformer, explanation.machine
    device = machine.device(explanation.preferences.device)
    room = machine.memory_of(device)
    if need is None or need <= max(room, machine.ram):
        return
    has = f"{device} has {room:,} of memory"
    has = has if room == machine.ram else f"{has}, the machine {machine.ram:,}"
    message = f"The transformer's weights take {need:,} bytes, and {has}."
    raise NotEnoughMemory(message, hint=_advice(explanation), needed=need, available=max(room, machine.ram))


def _advice(explanation: Explanation) -> str:
    choices = explanation.selection.choices.values()
    kept = [choice for choice in choices if not choice.quantize_on_load]
    wide = any(not format_of(choice.quantization).stays_quantized for choice in kept)
    return "Take an int8 version (`--quantization int8`)." if wide else "Take a smaller model, such as a 1.3B one."
