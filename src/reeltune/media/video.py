"""A generated video as a value: its frames, and how it was made."""

from __future__ import annotations

import contextlib
import warnings
import weakref
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from reeltune.errors import MediaError
from reeltune.events import Listener, Notice
from reeltune.media.kinds import display
from reeltune.media.mp4 import Report, write_mp4
from reeltune.media.origin import Origin


@dataclass(frozen=True)
class Video:
    """`frames`: uint8 [frames, height, width, 3]; `fps`: frames a second.

    `latents`: the file of its latents, deleted once it is saved or garbage collected, and left where the process ends
    before.
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

    def save(self, path: str | Path, *, listener: Listener | None = None) -> Path:
        """Write an MP4 with the settings inside; the file appears only when complete, and then the latents go.

        `listener` gets a notice where the settings can't be embedded and the video is written without them; without
        one it is a warning. Raises MediaError when the video can't be written: the latents stay for `reeltune decode`,
        as they do after any other exception.
        """
        try:
            written = write_mp4(Path(path), self.frames, self.fps, self.origin.as_metadata(), _report(listener))
        except MediaError as error:
            self.keep_latents()
            if self.latents is None:
                raise
            message = f"{error.message} The latents are kept in {display(self.latents)}."
            hint = f"{error.hint} `reeltune decode {display(self.latents)}` tries again."
            raise MediaError(message, hint=hint) from error
        except BaseException:
            self.keep_latents()
            raise
        if self.latents is not None:
            _remove(self.latents)
        return written

    def keep_latents(self) -> None:
        """Leave the file of latents on the disk when this value goes."""
        if self._leaving is not None:
            self._leaving.detach()


def _report(listener: Listener | None) -> Report:
    if listener is None:
        return warnings.warn
    return lambda text: listener(Notice(text))


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)
