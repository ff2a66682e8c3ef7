"""Where the weights lie while a video is made: a memory profile, picked from the machine and the estimate."""

from __future__ import annotations

from dataclasses import dataclass

from reeltune.planning.estimate import Estimate, estimate
from reeltune.planning.plan import Explanation
from reeltune.settings import frame_count, layer

PROFILES = ("resident", "stages", "streamed", "minimum")  # from fastest to smallest
_USABLE = 0.9  # of a card's memory: its driver, the desktop and fragments take the rest
_PINNED = 0.5  # of the machine's memory may be pinned: what is pinned can't be paged out
_LIVE = 30  # bytes of one token's feature while a block computes: 16-bit tensors, and the norms' in 32
_BLOCKS_AT_ONCE = 3  # the one that computes, the one that arrives, the one that leaves


@dataclass(frozen=True)
class MemoryProfile:
    """How memory is used. `reason`: why, in words. `pinned`: streamed weights lie in pinned memory, ready to go.

    resident: everything stays on the device, but the encoders, which go once the prompt is read. stages: one at a time:
    encoders, a transformer, the VAE. streamed: the transformer's blocks come one by one, each while the one before
    computes. minimum: single layers come when they are needed, from pageable memory.
    """

    name: str
    reason: str
    pinned: bool = False

    def lower(self, reason: str) -> MemoryProfile | None:
        """The next smaller profile; None below the smallest."""
        index = PROFILES.index(self.name) + 1
        return MemoryProfile(PROFILES[index], reason, self.pinned) if index < len(PROFILES) else None


def pick(explanation: Explanation) -> MemoryProfile:
    """The profile for a choice on its machine: the one wished for, else the fastest that fits."""
    machine, wish = explanation.machine, explanation.preferences.memory_profile
    device = machine.device(explanation.preferences.device)
    sizes = estimate(explanation)
    pinned = device.startswith("cuda") and (sizes.transformer or 0) <= _PINNED * machine.ram
    if wish != "auto":
        return MemoryProfile(wish, "as you chose", pinned)
    if not device.startswith("cuda"):
        return MemoryProfile("resident", f"{device} computes in the machine's own memory")
    if sizes.transformer is None:
        return MemoryProfile("stages", "until the weights' headers are known", pinned)
    room = round(_USABLE * machine.memory_of(device))
    for name, need in _needs(explanation, sizes).items():
        if need <= room:
            reason = f"it takes about {_gigabytes(need)} of the {_gigabytes(room)} that {device} can use"
            return MemoryProfile(name, reason, pinned)
    return MemoryProfile("minimum", f"even single blocks are much for the {_gigabytes(room)} of {device}")


def _needs(explanation: Explanation, sizes: Estimate) -> dict[str, int]:
    """Bytes on the card at the profile's peak, for those that are told apart by them."""
    transformer, live = sizes.transformer or 0, activations(explanation)
    vae = sum(item.bytes or 0 for item in explanation.items if item.subject == "vae")
    encoders = (sizes.encoders or 0) - vae
    return {
        "resident": max((sizes.transformers or transformer) + vae + live, encoders),
        "stages": max(transformer + live, encoders),
        "streamed": round(_BLOCKS_AT_ONCE * transformer / _blocks(explanation)) + live,
    }


def activations(explanation: Explanation) -> int:
    """Bytes that one pass of the transformer holds besides weights, at the definition's own size and length."""
    definition = explanation.definition
    architecture = definition.architecture
    settings = layer(architecture, definition.settings)
    width, height = (int(part) for part in str(settings["resolution"]).split("x"))
    frames = (frame_count(settings, architecture) - 1) // architecture.family.frame_step + 1
    tokens = (width // architecture.side_step) * (height // architecture.side_step) * frames
    config = _config(explanation)
    features = config.get("num_attention_heads", 0) * config.get("attention_head_dim", 0)
    return int(tokens * features * _LIVE)


def _blocks(explanation: Explanation) -> int:
    config = _config(explanation)
    return max(1, config.get("num_layers", 0) + config.get("num_single_layers", 0))


def _config(explanation: Explanation) -> dict[str, int]:
    choice = explanation.selection.choices.get("transformer")
    identity = choice.facts.identity if choice else None
    found = dict(identity.config or {}) if identity else {}
    return {key: value for key, value in found.items() if type(value) is int}


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB"
