"""Write MP4 files with PyAV: H.264, yuv420p, AAC, playable while loading, with JSON in the `comment` tag."""

from __future__ import annotations

import contextlib
import json
import re
import secrets
import unicodedata
import warnings
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import count
from pathlib import Path
from typing import Any, Protocol

import av
import numpy as np
import numpy.typing as npt

from reeltune.errors import MediaError
from reeltune.files import reason, sync
from reeltune.media.aac import aac_rate, audio_frames, set_up
from reeltune.media.container import FAILURES, open_container, video_stream
from reeltune.media.kinds import display
from reeltune.media.sound import Sound
from reeltune.media.tags import MAX_BYTES
from reeltune.media.tags import read_metadata as read_metadata
from reeltune.untrusted import JsonObject, clean_text

Report = Callable[[str], None]

_QUALITY = "17"  # x264's constant rate factor; visually lossless
_REPRODUCIBLE = "mbtree=0"  # with this part of its rate control, x264 writes small videos differently each time
_OPTIONS = {
    "movflags": "+faststart",
    "max_interleave_delta": "0",  # packets of sound wait for those of the video, however late x264 returns them
}
_MAX_NAME = 80  # characters
_MAX_NAME_BYTES = 160  # file systems allow 255, and a number and a suffix are added
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)  # device names on Windows


class FrameArray(Protocol):
    """Frames uint8 [frames, height, width, 3]: an array, or what makes them one after the other."""

    @property
    def ndim(self) -> int:
        """4."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The lengths of the dimensions."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """That of the values."""

    def __iter__(self) -> Iterator[npt.NDArray[np.uint8]]:
        """Each frame [height, width, 3]."""


def write_mp4(
    path: Path,
    frames: FrameArray,
    fps: int,
    metadata: JsonObject,
    report: Report = warnings.warn,
    *,
    sound: Sound | None = None,
) -> Path:
    """Write `frames` uint8 [frames, height, width, 3] (even height and width) and return the path.

    `sound`: is written as AAC at its own rate, or at 48 kHz if AAC doesn't have that rate. It is cut, or followed by
    silence, to be as long as the video.

    The file appears under its name only when it is complete. If nothing is written, the empty file that `free_name`
    has created is removed. If the metadata can't be embedded, the video is written without it, and `report` is called
    with the reason. Raises MediaError.
    """
    partial = path.absolute().with_name(f".{path.stem[:40]}.{secrets.token_hex(4)}.partial")
    written = False
    try:
        _check(frames)
        path.parent.mkdir(parents=True, exist_ok=True)
        problem = _write(partial, frames, fps, metadata, sound)
        sync(partial)  # its job is done from now on, also after a power cut
        partial.replace(path)
        written = True
    except (*FAILURES, TypeError, RuntimeError) as error:
        message = f"{display(path)} can't be written: {clean_text(reason(error))}."
        raise MediaError(message, hint="Check the folder and the disk.") from error
    finally:
        _remove(partial)
        if not written:
            remove_reservation(path)
    if problem:
        report(f"{display(path)} was written without its settings, which can't be embedded: {problem}.")
    return path


def _check(frames: FrameArray) -> None:
    if frames.ndim != 4 or frames.shape[0] < 1 or frames.shape[3] != 3 or frames.dtype != np.uint8:
        raise MediaError(f"Frames must be uint8 [frames, height, width, 3], not {frames.dtype} {list(frames.shape)}.")
    if frames.shape[1] % 2 or frames.shape[2] % 2:
        raise MediaError(f"H.264 needs even sizes, not {frames.shape[2]}x{frames.shape[1]}.")


def as_comment(metadata: JsonObject) -> tuple[str, str]:
    """Metadata as text to embed, and why it can't be embedded; one of both is empty."""
    try:
        comment = clean_text(json.dumps(metadata, ensure_ascii=False, default=str))
    except (TypeError, ValueError, RecursionError) as error:
        return "", clean_text(f"{type(error).__name__}: {error}")
    if len(comment) > MAX_BYTES:
        return "", f"it has {len(comment):,} characters"
    return comment, ""


def _write(path: Path, frames: FrameArray, fps: int, metadata: JsonObject, sound: Sound | None) -> str:
    """Write the video and return why the metadata is not embedded; empty if it is."""
    comment, problem = as_comment(metadata)
    if not problem:
        try:
            _encode(path, frames, fps, comment, sound)
            return ""
        except (*FAILURES, TypeError, RuntimeError) as error:
            problem = f"{type(error).__name__}: {error}"
    _encode(path, frames, fps, "", sound)  # raises again if the metadata was not the cause
    return clean_text(problem)


def _encode(path: Path, frames: FrameArray, fps: int, comment: str, sound: Sound | None) -> None:
    with av.open(str(path), "w", format="mp4", options=_OPTIONS) as container:
        if comment:
            container.metadata["comment"] = comment
        stream = container.add_stream("libx264", rate=fps)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": _QUALITY, "preset": "medium", "x264-params": _REPRODUCIBLE}
        if sound is not None:
            audio = container.add_stream("aac", rate=aac_rate(sound.rate))
            set_up(audio, sound)
            for part in audio_frames(sound, Fraction(frames.shape[0], fps)):
                container.mux(audio.encode(part))
            container.mux(audio.encode())
        for picture in frames:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)


def remove_reservation(path: Path) -> None:
    """Remove the empty file that `free_name` has created."""
    with contextlib.suppress(OSError, ValueError):
        if path.stat().st_size == 0:
            path.unlink()


def read_frames(path: Path) -> npt.NDArray[np.uint8]:
    """All frames of a video, uint8 [frames, height, width, 3]. Raises MediaError."""
    with open_container(path) as container:
        stream = video_stream(container, path)
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        if not frames:
            raise MediaError(f"{display(path)} contains no frame that can be decoded.")
        return np.stack(frames)


def free_name(folder: Path, stem: str, suffix: str = ".mp4") -> Path:
    """An unused path in `folder`, reserved with an empty file, so that names don't collide across processes.

    Characters that some file systems don't allow are removed from `stem`. Raises MediaError.
    """
    clean = _file_name(stem)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for number in count(1):
            path = folder / (f"{clean}{suffix}" if number == 1 else f"{clean}_{number}{suffix}")
            with contextlib.suppress(FileExistsError):
                path.touch(exist_ok=False)
                return path
    except (OSError, ValueError) as error:
        message = f"{display(folder)} can't be written to: {reason(error)}."
        raise MediaError(message, hint="Check the folder, or set another one (`outputs` in reeltune.json).") from error
    raise AssertionError("unreachable")


def _file_name(stem: str) -> str:
    text = unicodedata.normalize("NFC", clean_text(stem))
    text = re.sub(r"[^\w\-. ]+|\.{2,}", "", text)
    text = text.strip(". ").replace(" ", "_")
    text = text[:_MAX_NAME].encode("utf-8")[:_MAX_NAME_BYTES].decode("utf-8", "ignore").rstrip(".")
    if not text or _RESERVED.match(text):
        return f"video_{text}".rstrip("_")
    return text
