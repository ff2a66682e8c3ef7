"""A generated video: its frames and sound, and how it was made."""

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
from reeltune.media.kinds import IMAGE_SUFFIX, VIDEO_SUFFIX, display
from reeltune.media.mp4 import Report, write_mp4
from reeltune.media.origin import Origin
from reeltune.media.png import write_png
from reeltune.media.sound import Sound
from reeltune.untrusted import JsonObject


@dataclass(frozen=True)
class Video:
    """A generated video that is not saved yet.

    `frames`: uint8 [frames, height, width, 3]. `fps`: frames per second. `latents`: the file with its latents, which is
    deleted when the video is saved or garbage collected, but not when the process ends before. `image`: whether it is a
    single image, of a definition with `image_outputs`. `sound`: None for a silent video.
    """

    frames: npt.NDArray[np.uint8] = field(repr=False)
    fps: int
    origin: Origin
    latents: Path | None = None
    image: bool = False
    sound: Sound | None = None
    _finalizer: weakref.finalize[..., Video] | None = field(init=False, repr=False, compare=False, default=None)

    def __post_init__(self) -> None:
        if self.latents is not None:
            finalizer = weakref.finalize(self, _remove, self.latents)
            finalizer.atexit = False
            object.__setattr__(self, "_finalizer", finalizer)

    @property
    def suffix(self) -> str:
        """The suffix of its file: `.mp4`, or `.png` for an image."""
        return IMAGE_SUFFIX if self.image else VIDEO_SUFFIX

    def save(self, path: str | Path, *, listener: Listener | None = None, metadata: JsonObject | None = None) -> Path:
        """Write an MP4 file with the settings embedded, and delete the latents.

        A path that ends in `.png` gets a PNG image, if there is only one frame; the image has no sound. `metadata`:
        what to embed besides the settings.

        The file appears only when it is complete. If the settings can't be embedded, the video is written without them,
        and `listener` gets a notice; without a listener it is a warning. Raises MediaError if the video can't be
        written. After any exception the latents are kept, for `reeltune decode`.
        """
        embedded = {**self.origin.as_metadata(), **(metadata or {})}
        try:
            written = self._write(Path(path), embedded, _report(listener))
        except MediaError as error:
            self.keep_latents()
            if self.latents is None:
                raise
            message = f"{error.message} The latents are stored in {display(self.latents)}."
            hint = f"{error.hint} `reeltune decode {display(self.latents)}` tries again."
            raise MediaError(message, hint=hint) from error
        except BaseException:
            self.keep_latents()
            raise
        if self.latents is not None:
            _remove(self.latents)
        return written

    def _write(self, path: Path, embedded: JsonObject, report: Report) -> Path:
        if path.suffix.lower() != IMAGE_SUFFIX:
            return write_mp4(path, self.frames, self.fps, embedded, report, sound=self.sound)
        if len(self.frames) != 1:
            message = f"{display(path)} can't be written: a PNG image has one frame, and the video {len(self.frames)}."
            raise MediaError(message, hint=f"Use a name that ends in {VIDEO_SUFFIX}.")
        written = write_png(path, self.frames[0], embedded, report)
        if self.sound is not None:
            report(f"{display(path)} is an image, which has no sound.")
        return written

    def keep_latents(self) -> None:
        """Keep the file with the latents after this object is garbage collected."""
        if self._finalizer is not None:
            self._finalizer.detach()


def _report(listener: Listener | None) -> Report:
    if listener is None:
        return warnings.warn
    return lambda text: listener(Notice(text))


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)
