"""Latents on disk, from the end of denoising until the video is written: what hours of work come to."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from reeltune.errors import MediaError
from reeltune.media.mp4 import free_name

_KEY = "latents"


def keep(latents: torch.Tensor, folder: Path, definition: str, settings: Mapping[str, Any]) -> Path:
    """Write latents [1, channels, frames', height', width'] with what made them; the file is whole or not there.

    Raises MediaError.
    """
    try:
        path = free_name(folder, f"{definition} seed {settings['seed']}", ".safetensors")
        partial = path.with_name(path.name + ".partial")
        metadata = {"definition": definition, "settings": json.dumps(dict(settings), default=str)}
        safetensors.torch.save_file({_KEY: latents.contiguous().cpu()}, partial, metadata)
        return partial.replace(path)
    except OSError as error:
        message = f"The latents can't be kept in {folder}: {error.strerror or error}."
        raise MediaError(message, hint="Make room, or choose another outputs folder.") from error


def read(path: str | Path) -> tuple[torch.Tensor, str, dict[str, Any]]:
    """Latents, the id of the definition (empty where the file doesn't say), and the settings. Raises MediaError."""
    try:
        with safetensors.safe_open(str(path), framework="pt") as file:
            tensor, metadata = file.get_tensor(_KEY), file.metadata() or {}
        settings = json.loads(metadata["settings"])
        if not isinstance(settings, dict) or tensor.ndim != 5 or not tensor.is_floating_point():
            raise ValueError("other contents")
        return tensor, metadata.get("definition", ""), settings
    except (OSError, KeyError, ValueError, RecursionError, safetensors.SafetensorError) as error:
        raise MediaError(f"{path} holds no latents of this program: {error}.") from error
