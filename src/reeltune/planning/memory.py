"""Where the weights lie while a video is made: a memory profile, chosen from the machine and the estimate."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from reeltune.families import Architecture
from reeltune.families.base import VAE, Config, blocks_of, width_of
from reeltune.planning.estimate import Estimate, estimate
from reeltune.planning.plan import Plan
from reeltune.settings import frame_count, layer

_USABLE = 0.9  # of a card's memory: its driver, the desktop and fragments take the rest
_PINNED = 0.5  # of the machine's memory may be pinned: what is pinned can't be paged out
_ACTIVATION_BYTES = 30  # of one feature of one token while a block computes: 16-bit tensors, and the norms' in 32
_BLOCKS_AT_ONCE = 3  # the one that computes, the one that arrives, the one that leaves


class MemoryProfile(StrEnum):
    """How memory is used, from the fastest profile to the smallest."""

    RESIDENT = "resident"  # everything stays on the device, but the encoders: they leave once the prompt is encoded
    STAGES = "stages"  # one at a time is on the device: the encoders, a transformer, the VAE
    STREAMED = "streamed"  # the transformer's blocks come one by one, each while the one before computes
    MINIMUM = "minimum"  # single layers come when they are needed, from pageable memory


_PROFILES = tuple(MemoryProfile)


@dataclass(frozen=True)
class ChosenProfile:
    """A memory profile and why it is used. `pinned`: streamed weights lie in pinned memory, ready to be sent.

    `preload`: bytes of the transformer that stay on the device while the rest is sent to it.
    """

    profile: MemoryProfile
    reason: str
    pinned: bool = False
    preload: int = 0

    def smaller(self, reason: str) -> ChosenProfile | None:
        """The next smaller profile; None below the smallest."""
        if self.profile is _PROFILES[-1]:
            return None
        following = _PROFILES[_PROFILES.index(self.profile) + 1]
        preload = self.preload if following is MemoryProfile.STREAMED else 0
        return ChosenProfile(following, reason, self.pinned, preload)


def choose_profile(plan: Plan) -> ChosenProfile:
    """The memory profile for a plan on its machine: the preferred one, else the fastest that fits."""
    device, preferred = plan.device, plan.preferences.memory_profile
    sizes = estimate(plan)
    on_card = device.startswith("cuda")
    pinned = on_card and (sizes.transformer or 0) <= _PINNED * plan.machine.ram
    preload = plan.definition.preload_bytes
    if preferred != "auto":
        return ChosenProfile(MemoryProfile(preferred), "as you chose", pinned, preload)
    if not on_card:
        return ChosenProfile(MemoryProfile.RESIDENT, f"{device} computes in the machine's own memory")
    if sizes.transformer is None:
        return ChosenProfile(MemoryProfile.STAGES, "until the weights' headers are known", pinned)
    usable = round(_USABLE * plan.machine.memory_of(device))
    for profile, needed in _needs(plan, sizes):
        if needed <= usable:
            reason = f"it takes about {_gigabytes(needed)} of the {_gigabytes(usable)} that {device} can use"
            preload = min(preload, usable - needed) if profile is MemoryProfile.STREAMED else 0
            if preload:
                reason += f", and up to {_gigabytes(preload)} of the transformer stay there (preload_in_VRAM)"
            return ChosenProfile(profile, reason, pinned, preload)
    return ChosenProfile(MemoryProfile.MINIMUM, f"even single blocks are much for the {_gigabytes(usable)} of {device}")


def least_bytes(plan: Plan) -> int:
    """Memory in bytes that a device should have for a plan; 0 while the weights' headers are unknown.

    On a card this is what streaming takes, as smaller cards are very slow. Other devices hold all weights.
    """
    sizes = estimate(plan)
    if sizes.transformer is None:
        return 0
    if not plan.device.startswith("cuda"):
        return sizes.transformer
    profile = plan.preferences.memory_profile
    needed = dict(_needs(plan, sizes))
    return round(needed.get(MemoryProfile.STREAMED if profile == "auto" else MemoryProfile(profile), 0) / _USABLE)


def _needs(plan: Plan, sizes: Estimate) -> Iterator[tuple[MemoryProfile, int]]:
    """Bytes on the card at the peak of each profile but the smallest, the fastest profile first."""
    transformer, activation_bytes = sizes.transformer or 0, activations(plan)
    vae = sum(item.memory_bytes or 0 for item in plan.items if item.subject == VAE)
    encoders = (sizes.encoders or 0) - vae
    transformers = sizes.transformers or transformer
    beside = vae + (sizes.upsampler or 0)
    yield MemoryProfile.RESIDENT, max(transformers + beside + activation_bytes, encoders)
    yield MemoryProfile.STAGES, max(transformer + activation_bytes, encoders)
    yield MemoryProfile.STREAMED, round(_BLOCKS_AT_ONCE * transformer / _blocks(plan)) + activation_bytes


def activations(plan: Plan) -> int:
    """Bytes that one pass of the transformer holds besides weights, at the definition's own size and length.

    Of a video that is made in several windows, one window counts.
    """
    definition = plan.definition
    architecture = definition.architecture
    settings = layer(architecture, definition.settings)
    width, height = computed_size(architecture, *(int(side) for side in str(settings["resolution"]).split("x")))
    length = architecture.image_frames if architecture.image_outputs else frame_count(settings, architecture)
    if architecture.windows is not None:
        length = min(length, settings.get("sliding_window_size") or length)
    frames = (length - 1) // architecture.family.frame_step + 1
    tokens = (width // architecture.resolution_step) * (height // architecture.resolution_step) * frames
    masks = architecture.family.mask_bytes * (tokens + architecture.family.max_text_tokens) ** 2
    passes = architecture.family.passes_at_once
    return int(passes * tokens * width_of(_config(plan)) * _ACTIVATION_BYTES) + masks


def computed_size(architecture: Architecture, width: int, height: int) -> tuple[int, int]:
    """Width and height that a video is computed at: larger than its own, if it is made at two scales."""
    if architecture.scales is None:
        return width, height
    return round(2 * architecture.scales.shrink * width), round(2 * architecture.scales.shrink * height)


def _blocks(plan: Plan) -> int:
    return max(1, blocks_of(_config(plan)))


def _config(plan: Plan) -> dict[str, int]:
    """The whole numbers of the transformer's config, as far as its header is known."""
    identity = plan.transformer.facts.identity
    config: Config = (identity.config if identity else None) or {}
    return {key: value for key, value in config.items() if type(value) is int}


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB"
