"""Where the weights are while a video is made: a memory profile, chosen from the machine and the choice's estimate.

resident   everything stays on the device: fastest, from one video to the next too
stages     encoders, transformer and VAE take turns on the device
streamed   the transformer's blocks come from RAM one after the other, the next while one computes
minimum    single layers do, nothing is fetched ahead: the least memory, the slowest
"""

from __future__ import annotations

from dataclasses import dataclass

from reeltune.errors import NotEnoughMemory
from reeltune.fetch.estimate import advice, estimate
from reeltune.fetch.plan import Explanation
from reeltune.preferences import PROFILES

_ACTIVATIONS = 3_000_000_000  # bytes that a step and the VAE need beside the weights, of a short 480p video
_OF_RAM = 0.5  # share of the machine's own memory that weights may stay in from video to video
_PINNED = 1.2  # RAM that streaming takes, of the weights' size


@dataclass(frozen=True)
class Profile:
    """A profile's name, and why it was chosen."""

    name: str
    reason: str

    def __str__(self) -> str:
        return f"Memory profile {self.name}: {self.reason}."


def choose_profile(explanation: Explanation) -> Profile:
    """The profile the user wishes, or the fastest that this machine has the memory for."""
    wish = explanation.preferences.memory_profile
    if wish != "auto":
        return Profile(wish, "as asked")
    found, machine = estimate(explanation), explanation.machine
    device = machine.device(explanation.preferences.device)
    room, weights, encoders = machine.memory_of(device), found.transformer, found.encoders or 0
    if weights is None:
        return Profile("stages", "what the weights take isn't known yet")
    if not device.startswith("cuda"):
        everything = weights + encoders
        small = everything < _OF_RAM * room
        return Profile("resident" if small else "stages", f"all weights take {_gb(everything)} of {_gb(room)}")
    takes = f"the transformer's weights take {_gb(weights)}, {device} has {_gb(room)}"
    if weights + encoders + _ACTIVATIONS <= room:
        return Profile("resident", f"all weights take {_gb(weights + encoders)}, {device} has {_gb(room)}")
    if weights + _ACTIVATIONS <= room:
        return Profile("stages", takes)
    if _PINNED * weights <= machine.ram:
        return Profile("streamed", f"{takes}, the machine {_gb(machine.ram)}")
    return Profile("minimum", f"{takes}, the machine {_gb(machine.ram)}")


def lower(name: str) -> str | None:
    """The next profile that takes less of the device's memory; None after the last."""
    index = PROFILES.index(name) + 1
    return PROFILES[index] if index < len(PROFILES) else None


def check_memory(explanation: Explanation, profile: Profile) -> None:
    """Raise NotEnoughMemory where the weights alone are more than the memory they have to lie in."""
    need, machine = estimate(explanation).transformer, explanation.machine
    device = machine.device(explanation.preferences.device)
    if profile.name in ("streamed", "minimum"):
        device = "cpu"
    room = machine.memory_of(device)
    if need is None or need <= room:
        return
    message = f"The transformer's weights take {need:,} bytes, and {device} has {room:,} of memory."
    raise NotEnoughMemory(message, hint=advice(explanation), needed=need, available=room)


def _gb(count: int) -> str:
    return f"{count / 1e9:.1f} GB"
