"""Latents on disk from the end of denoising until their video is written: the work survives whatever comes between."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from reeltune.errors import MediaError
from reeltune.media.mp4 import free_name

FOLDER = "latents"  # below the folder of videos
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Kept:
    """Latents [1, channels, frames', height', width'] fp32, the settings they were made with, the definition's id."""

    latents: torch.Tensor
    settings: Mapping[str, Any]
    definition: str


def keep(latents: torch.Tensor, settings: Mapping[str, Any], definition: str, folder: Path) -> Path:
    """Write latents under a name that is never used again. Raises MediaError."""
    stem = f"{definition[:40]} seed {settings['seed']} {time.time_ns()}"
    path = free_name(folder, stem, ".safetensors")
    metadata = {
        "schema_version": str(SCHEMA_VERSION),
        "definition": definition,
        "settings": json.dumps(dict(settings), default=str),
    }
    partial = path.with_name(f".{path.name}.partial")
    try:
        safetensors.torch.save_file({"latents": latents.contiguous().cpu()}, partial, metadata=metadata)
        partial.replace(path)
    except (OSError, safetensors.SafetensorError) as error:
        for leftover in (partial, path):
            leftover.unlink(missing_ok=True)
        raise MediaError(f"{path} can't be written: {error}.", hint="Check the folder and the disk.") from error
    return path


def read(path: Path) -> Kept:
    """Latents that `keep` wrote. Raises MediaError."""
    try:
        with safetensors.safe_open(str(path), framework="pt") as file:
            tensor, metadata = file.get_tensor("latents"), file.metadata() or {}
        settings = json.loads(metadata["settings"])
        if not isinstance(settings, dict):
            raise ValueError("its settings are no object")
    except (OSError, KeyError, ValueError, RecursionError, safetensors.SafetensorError) as error:
        raise MediaError(f"{path} holds no latents of this program: {error}.") from error
    return Kept(tensor, settings, metadata.get("definition", ""))
