"""What a plan takes in memory, known from headers before anything is loaded."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from reeltune.checkpoints.formats import format_of
from reeltune.errors import NotEnoughMemory
from reeltune.families.base import SMALL_COMPONENTS
from reeltune.planning.choose import Choice
from reeltune.planning.plan import Plan

_16_BIT_BYTES = 2
_8_BITS = ("f8_e4m3", "f8_e5m2", "int8")  # stored data types whose weights may stay as they are
_INT8_BYTES = 1.03  # of a parameter of an int8 model, with its scales and the layers that stay in 16 bits
_FP32_BYTES = 2  # of a parameter in fp32, for each byte in 16 bits


@dataclass(frozen=True)
class Estimate:
    """Bytes, None where a header isn't known yet. `parameters`: a count, modules and both transformers included.

    `transformer`: the weights that are in memory at once while denoising, the larger one where two take turns;
    `transformers`: both of them; `encoders`: all other components, which are loaded first and released, and the VAE;
    `upsampler`: the latent upsampler, which computes between two scales, and what makes sound; `disk`: every file of
    the plan.
    """

    parameters: int | None
    transformer: int | None
    transformers: int | None
    encoders: int | None
    disk: int | None
    upsampler: int | None = 0

    @property
    def peak(self) -> int | None:
        """The most weights that are in memory at once; activations come on top."""
        if self.transformer is None:
            return None
        return max(self.transformer, self.encoders or 0)


def estimate(plan: Plan) -> Estimate:
    """What the chosen versions take. Nothing is read: headers that are not known leave gaps."""
    choices = plan.selection.choices
    identities = [choice.facts.identity for choice in choices.values()]
    beside = [_in_memory(choice) for slot, choice in choices.items() if slot.is_module]
    beside.append(sum(lora.item.bytes or 0 for lora in plan.loras))  # they are small: unknown sizes count as 0
    transformers = [_in_memory(choice) for slot, choice in choices.items() if not slot.is_module]
    known = [size for size in transformers if size is not None]
    largest = max(known) if len(known) == len(transformers) else None
    return Estimate(
        parameters=_sum(identity.parameters if identity else None for identity in identities),
        transformer=_sum([largest, *beside]),
        transformers=_sum([*transformers, *beside]),
        encoders=_sum(
            item.memory_bytes for item in plan.items if item.component and item.subject not in SMALL_COMPONENTS
        ),
        disk=_sum(item.bytes for item in plan.items),
        upsampler=_upsampler(plan),
    )


def _upsampler(plan: Plan) -> int | None:
    """Bytes of the components that compute in fp32 and are stored in 16 bits."""
    sizes = [item.memory_bytes for item in plan.items if item.subject in SMALL_COMPONENTS]
    total = _sum(sizes)
    return None if total is None else _FP32_BYTES * total


def _in_memory(choice: Choice) -> int | None:
    """Bytes of a file's weights as they are kept in memory."""
    identity = choice.facts.identity
    if identity is None:
        return None
    if choice.quantize_on_load:
        return round(identity.parameters * _INT8_BYTES)
    if choice.keep:
        in_8_bits = sum(count for dtype, count in identity.dtypes.items() if dtype.startswith(_8_BITS))
        return round(identity.memory_bytes - identity.others_bytes - in_8_bits * (_16_BIT_BYTES - _INT8_BYTES))
    return identity.memory_bytes - identity.others_bytes


def _sum(counts: Iterable[int | None]) -> int | None:
    """The sum; None where one of them isn't known."""
    total = 0
    for count in counts:
        if count is None:
            return None
        total += count
    return total


def check_memory(plan: Plan) -> None:
    """Raise NotEnoughMemory where the weights alone are more than the machine's memory, or the card that holds them.

    Weights that a card can't hold are sent to it in parts, which come from the machine's memory.
    """
    needed, ram = estimate(plan).transformer, plan.machine.ram
    on_device = plan.machine.memory_of(plan.device)
    if needed is None or needed <= max(on_device, ram):
        return
    memory = f"{plan.device} has {on_device:,} of memory"
    if on_device != ram:
        memory += f", the machine {ram:,}"
    message = f"The transformer's weights take {needed:,} bytes, and {memory}."
    raise NotEnoughMemory(message, hint=_advice(plan), needed=needed, available=max(on_device, ram))


def _advice(plan: Plan) -> str:
    for choice in plan.selection.choices.values():
        stays = format_of(choice.quantization).stays_quantized or choice.keep
        if not stays and not choice.quantize_on_load:
            return "Take an int8 version (`--quantization int8`)."
    return "Take a smaller model, such as a 1.3B one."
