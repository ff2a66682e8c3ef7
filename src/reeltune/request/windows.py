"""The windows of a long video, the number of frames that they allow, and the mode in which they are made."""

from __future__ import annotations

from collections.abc import Callable

from reeltune.errors import SettingsError
from reeltune.families import Architecture
from reeltune.families.base import Windows
from reeltune.families.values import WINDOW_MODES, Settings
from reeltune.families.vocabulary import shown
from reeltune.request.values import Window
from reeltune.settings import split_prompts
from reeltune.untrusted import clean_text

_SIZE, _OVERLAP, _NOISE = "sliding_window_size", "sliding_window_overlap", "sliding_window_overlap_noise"
_MAX_NOISE = 1000  # timestep of pure noise


def mode_of(settings: Settings, architecture: Architecture) -> int:
    """The value of `model_mode`; 0 for architectures without modes. Raises SettingsError for an unknown one."""
    if not architecture.modes:
        return 0
    mode = settings.get("model_mode") or 0
    for _, value in architecture.modes:
        if mode in (value, str(value)):  # other programs store some numbers as text
            return value
    choices = ", ".join(f"{value} ({label.lower()})" for label, value in architecture.modes)
    raise SettingsError(f"Invalid value {shown(mode)} for model_mode.", hint=f"It must be one of {choices}.")


def windows_of(
    settings: Settings, architecture: Architecture, frames: int, mode: int, notify: Callable[[str], None]
) -> tuple[int, Window | None]:
    """The number of frames of a video, and its windows; None for a video that is made in one.

    `frames`: the number in the settings. `notify` is called with a notice if another number is used. Raises
    SettingsError for windows that can't be made.
    """
    windows = architecture.windows
    if windows is None:
        return frames, None
    block = windows.block if mode else 1
    fitted = _fitted(frames, architecture, block)
    if fitted != frames:
        step = architecture.family.frame_step * block
        first = _fitted(1, architecture, block)
        notify(f"{frames} frames become {fitted}: in this mode, the number must be {first} plus a multiple of {step}.")
    if windows.overlaps and not windows.anchor and fitted <= 2 * min(windows.overlaps):
        least = 2 * min(windows.overlaps) * architecture.family.frame_step // 2 + 1
        raise SettingsError(
            f"{architecture.id} makes at least {least} frames, and video_length is {fitted}.",
            hint=f"Set video_length={least} or more.",
        )
    wanted = settings.get(_SIZE) or fitted
    size = _fitted(wanted, architecture, block)
    if fitted <= size:
        return fitted, None
    shared = settings.get(_OVERLAP, 1)
    overlap = _overlap(shared, windows, architecture, block)
    for key, value, used in ((_SIZE, wanted, size), (_OVERLAP, shared, overlap)):
        if value != used:
            notify(f"{key} is {value}: {used} is used, since windows have whole {_unit(block)}.")
    if 2 * (overlap + windows.anchor) >= size:
        message = f"Windows of {size} frames can't share {overlap} frames."
        raise SettingsError(message, hint=f"{_SIZE} must be more than {2 * (overlap + windows.anchor)}.")
    return fitted, Window(size, overlap + windows.anchor, _noise(settings))


def prompts_of(settings: Settings, architecture: Architecture) -> tuple[str, ...]:
    """The prompts of a video: one, or that of each window where the settings have them. Raises SettingsError."""
    mode = settings.get("multi_prompts_gen_type") or ""
    if architecture.windows is None or mode not in WINDOW_MODES:
        return (clean_text(settings["prompt"]),)
    return tuple(clean_text(prompt) for prompt in split_prompts(settings["prompt"], mode))


def _unit(block: int) -> str:
    return "latent frames" if block == 1 else f"blocks of {block} latent frames"


def _fitted(frames: int, architecture: Architecture, block: int) -> int:
    """The largest number of frames up to `frames` that whole blocks of latent frames stand for; at least one block."""
    step = architecture.family.frame_step
    latent_frames = (frames - 1) // step + 1
    blocks = max(1, latent_frames // block)
    return (blocks * block - 1) * step + 1


def _overlap(frames: int, windows: Windows, architecture: Architecture, block: int) -> int:
    if not windows.overlaps:
        return _fitted(max(1, frames), architecture, block)
    if frames in windows.overlaps:
        return frames
    choices = " or ".join(str(overlap) for overlap in windows.overlaps)
    message = f"{_OVERLAP} is {frames}, which {architecture.id} does not support."
    raise SettingsError(message, hint=f"It must be {choices}.")


def _noise(settings: Settings) -> int:
    noise = settings.get(_NOISE) or 0
    if 0 <= noise <= _MAX_NOISE:
        return round(noise)
    raise SettingsError(f"{_NOISE} is {noise}.", hint=f"It must be a number from 0 to {_MAX_NOISE}.")
