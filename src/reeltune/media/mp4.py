"""MP4 files by PyAV: H.264, yuv420p, playable while it loads, with a JSON text in the `comment` tag."""

from __future__ import annotations

import contextlib
import json
import re
from itertools import count
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt

from reeltune.errors import MediaError

_QUALITY = "17"  # x264's constant rate factor: visually lossless
_MAX_METADATA = 1_000_000


def write_mp4(path: Path, frames: npt.NDArray[np.uint8], fps: int, metadata: dict[str, Any]) -> Path:
    """Write `frames` uint8 [frames, height, width, 3] (even height and width) and return the path.

    The file appears under its name only when complete. Raises MediaError.
    """
    if frames.ndim != 4 or frames.shape[0] < 1 or frames.shape[3] != 3 or frames.dtype != np.uint8:
        raise MediaError(f"Frames must be uint8 [frames, height, width, 3], not {frames.dtype} {list(frames.shape)}.")
    if frames.shape[1] % 2 or frames.shape[2] % 2:
        raise MediaError(f"H.264 needs even sizes, not {frames.shape[2]}x{frames.shape[1]}.")
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _encode(partial, frames, fps, json.dumps(metadata, ensure_ascii=False, default=str))
        partial.replace(path)
    except (OSError, av.FFmpegError) as error:
        _drop_reservation(path)
        raise MediaError(f"{path} can't be written: {error}.", hint="Check the folder and the disk.") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
    return path


def _drop_reservation(path: Path) -> None:
    """Remove the empty file that `free_name` left under the name."""
    with contextlib.suppress(OSError):
        if path.stat().st_size == 0:
            path.unlink()


def _encode(path: Path, frames: npt.NDArray[np.uint8], fps: int, comment: str) -> None:
    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        container.metadata["comment"] = comment
        stream = container.add_stream("libx264", rate=fps)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": _QUALITY, "preset": "medium"}
        for picture in frames:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def read_metadata(path: Path) -> dict[str, Any] | None:
    """The JSON a video carries in its comment; None where there is none. Raises MediaError for an unreadable file."""
    try:
        with av.open(str(path)) as container:
            comment = container.metadata.get("comment", "")
    except (OSError, av.FFmpegError) as error:
        raise MediaError(f"{path} is not a video that can be read: {error}.") from error
    if not comment or len(comment) > _MAX_METADATA:
        return None
    try:
        value = json.loads(comment)
    except (ValueError, RecursionError):  # another program's comment: text, not ours
        return None
    return value if isinstance(value, dict) else None


def read_frames(path: Path) -> npt.NDArray[np.uint8]:
    """All frames, uint8 [frames, height, width, 3]. Raises MediaError for an unreadable or empty file."""
    try:
        with av.open(str(path)) as container:
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    except (OSError, IndexError, av.FFmpegError) as error:
        raise MediaError(f"{path} is not a video that can be read: {error}.") from error
    if not frames:
        raise MediaError(f"{path} holds no picture.")
    return np.stack(frames)


def free_name(folder: Path, stem: str, suffix: str = ".mp4") -> Path:
    """A path in `folder` that nothing has yet, reserved by an empty file: names never collide, even across
    processes. `stem` is cut and cleaned so that every file system takes it. Raises MediaError.
    """
    clean = re.sub(r"[^\w\- ]+", "", stem, flags=re.ASCII).strip().replace(" ", "_")[:80] or "video"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for number in count(1):
            path = folder / (f"{clean}{suffix}" if number == 1 else f"{clean}_{number}{suffix}")
            with contextlib.suppress(FileExistsError):
                path.touch(exist_ok=False)
                return path
    except OSError as error:
        message = f"Nothing can be written to {folder}: {error.strerror or error}."
        raise MediaError(message, hint="Check the folder, or name another (`outputs` in reeltune.json).") from error
    raise AssertionError("unreachable")
