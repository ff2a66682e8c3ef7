"""A made video as a value: frames and everything that tells how it came to be."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from reeltune.errors import MediaError
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
    """`frames`: uint8 [frames, height, width, 3]; `fps`: frames a second.

    `latents`: the file that keeps its latents until it is saved, or let go of: a process that ends before leaves it.
    """

    frames: npt.NDArray[np.uint8] = field(repr=False)
    fps: int
    origin: Origin
    latents: Path | None = None
    _leaving: weakref.finalize[..., Video] | None = field(init=False, repr=False, compare=False, default=None)

    def __post_init__(self) -> None:
        if self.latents is not None:
            leaving = weakref.finalize(self, _remove, self.latents)
            leaving.atexit = False
            object.__setattr__(self, "_leaving", leaving)

    def save(self, path: str | Path) -> Path:
        """Write an MP4 with the settings inside; the file appears only when complete, and then the latents go.

        Raises MediaError when it can't be written: the latents stay for `reeltune decode`.
        """
        try:
            written = write_mp4(Path(path), self.frames, self.fps, self.origin.as_metadata())
        except MediaError as error:
            if self.latents is None or self._leaving is None:
                raise
            self._leaving.detach()
            message = f"{error.message} The latents are kept in {self.latents}."
            raise MediaError(message, hint=f"{error.hint} `reeltune decode {self.latents}` tries again.") from error
        if self.latents is not None:
            _remove(self.latents)
        return written


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)
