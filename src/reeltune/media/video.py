"""A made video as a value: frames and everything that tells how it came to be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from reeltune.media.mp4 import write_mp4

METADATA_VERSION = 1


@dataclass(frozen=True)
class Origin:
    """How a video was made: `settings` complete, `files` by slot as (file name, sha256 or None)."""

    definition: str
    architecture: str
    program: str
    settings: Mapping[str, Any]
    files: Mapping[str, tuple[str, str | None]]

    def as_metadata(self) -> dict[str, Any]:
        """Plain values, embedded in the video file."""
        return {
            "schema_version": METADATA_VERSION,
            "program": self.program,
            "definition": self.definition,
            "architecture": self.architecture,
            "settings": dict(self.settings),
            "files": {slot: {"name": name, "sha256": sha256} for slot, (name, sha256) in self.files.items()},
        }


@dataclass(frozen=True)
class Video:
    """`frames`: uint8 [frames, height, width, 3]; `fps`: frames a second."""

    frames: npt.NDArray[np.uint8] = field(repr=False)
    fps: int
    origin: Origin

    def save(self, path: str | Path) -> Path:
        """Write an MP4 with the settings inside; the file appears only when complete.

        Raises MediaError when it can't be written.
        """
        return write_mp4(Path(path), self.frames, self.fps, self.origin.as_metadata())
