"""Latents on disk from the end of denoising until their video is written, so that no failure between loses the work."""

from __future__ import annotations

import contextlib
import json
import secrets
import stat
import time
from dataclasses import dataclass
from pathlib import Path

import safetensors
import safetensors.torch
import torch

from reeltune.errors import InvalidJSON, MediaError
from reeltune.families.values import Settings
from reeltune.files import reason, sync
from reeltune.media.kinds import display
from reeltune.media.mp4 import free_name
from reeltune.settings import read_settings
from reeltune.untrusted import clean_text, parse_json

FOLDER = "latents"  # below the folder of videos
SCHEMA_VERSION = 1
_VIDEO, _SOUND = "latents", "audio_latents"
_UNREADABLE = (OSError, KeyError, ValueError, TypeError, RuntimeError, MemoryError)


@dataclass(frozen=True)
class StoredLatents:
    """Latents [1, channels, frames', height', width'] fp32, the settings they were made with, the definition's id.

    `sound`: the latents of the sound; None for silent videos.
    """

    latents: torch.Tensor
    settings: Settings
    definition: str
    sound: torch.Tensor | None = None


def store(
    latents: torch.Tensor, settings: Settings, definition: str, folder: Path, sound: torch.Tensor | None = None
) -> Path:
    """Write latents, and those of the sound, under a name that is never used again. Raises MediaError."""
    stem = f"{definition[:40]} seed {settings['seed']} {time.time_ns()}"
    path = free_name(folder, stem, ".safetensors")
    partial = path.with_name(f".{path.stem[:40]}.{secrets.token_hex(4)}.partial")
    written = False
    try:
        metadata = _metadata(settings, definition)
        tensors = {_VIDEO: latents, **({} if sound is None else {_SOUND: sound})}
        stored = {name: values.contiguous().cpu() for name, values in tensors.items()}
        safetensors.torch.save_file(stored, partial, metadata=metadata)
        partial.chmod(stat.S_IMODE(path.stat().st_mode))  # safetensors makes files that nobody else may read
        sync(partial)
        partial.replace(path)
        written = True
    except (OSError, ValueError, TypeError, MemoryError, safetensors.SafetensorError) as error:
        message = f"{display(path)} can't be written: {reason(error)}."
        raise MediaError(message, hint="Check the folder and the disk.") from error
    finally:
        for leftover in () if written else (partial, path):
            with contextlib.suppress(OSError):
                leftover.unlink(missing_ok=True)
    return path


def _metadata(settings: Settings, definition: str) -> dict[str, str]:
    """What a file of latents stores beside them: texts that any writer takes."""
    return {
        "schema_version": str(SCHEMA_VERSION),
        "definition": clean_text(definition),
        "settings": json.dumps(dict(settings), default=str),  # escapes what isn't ASCII
    }


def read(path: Path) -> StoredLatents:
    """Latents that `store` wrote. Raises MediaError."""
    try:
        with safetensors.safe_open(str(path), framework="pt") as file:
            tensor, metadata, names = file.get_tensor(_VIDEO), file.metadata() or {}, set(file.keys())
            sound = file.get_tensor(_SOUND) if _SOUND in names else None
        settings = parse_json(metadata["settings"], f"The settings in {display(path)}")
        if not isinstance(settings, dict):
            raise ValueError("its settings are not a JSON object")
    except (*_UNREADABLE, safetensors.SafetensorError, InvalidJSON) as error:
        message = f"{display(path)} holds no latents of this program: {reason(error)}."
        raise MediaError(message, hint="`reeltune ls` lists those that can be decoded.") from error
    if not all(torch.isfinite(values).all() for values in (tensor, sound) if values is not None):
        raise MediaError(f"{display(path)} is damaged: some values are not finite.", hint="Generate the video again.")
    return StoredLatents(tensor, read_settings(settings).settings, metadata.get("definition", ""), sound)
