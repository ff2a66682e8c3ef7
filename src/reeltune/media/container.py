"""Opening a video with FFmpeg: nothing but the one file is read, and whatever goes wrong is a MediaError.

FFmpeg's own detection also takes playlists, drawings, text and lists of other files for videos, and follows what they
name, on the disk and on the network. So the container is recognized here, by content, and FFmpeg is given that one
demuxer, an open file and no protocol to open another with.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from reeltune.errors import FileError, MediaError
from reeltune.files import open_regular
from reeltune.media.kinds import HEAD_BYTES, display, kind_of_bytes
from reeltune.untrusted import clean_text

MOST_PIXELS = 40_000_000  # of one frame; 8K has 33 million
FAILURES = (av.FFmpegError, OSError, ValueError, LookupError, ArithmeticError, MemoryError)  # of PyAV, on damaged files
_HINT = "Give an MP4, WebM or GIF file."
_BUFFER = 1_000_000  # bytes of a read


class _Source:
    """A file as PyAV reads it. A damaged container asks for places that don't exist: the answer is FFmpeg's error
    number, where an exception would be printed and dropped.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def read(self, size: int) -> bytes:
        return self._file.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        try:
            return self._file.seek(offset, whence)
        except (OSError, ValueError, OverflowError):
            return -1

    def tell(self) -> int:
        return self._file.tell()


@contextlib.contextmanager
def open_container(path: Path) -> Iterator[InputContainer]:
    """A video file, open for reading. Raises MediaError, also for what goes wrong in the block."""
    try:
        with open_regular(path) as file:
            kind = kind_of_bytes(file.read(HEAD_BYTES))
            if not kind.container:
                raise MediaError(f"{display(path)} is {kind.label}, not a video.", hint=_HINT)
            file.seek(0)
            options = {"protocol_whitelist": "", "max_pixels": str(MOST_PIXELS)}
            with av.open(
                _Source(file), format=kind.container, options=options, metadata_errors="replace", buffer_size=_BUFFER
            ) as container:
                yield container
    except FileError as error:
        raise MediaError(clean_text(error.message), hint=error.hint) from error
    except FAILURES as error:
        message = f"{display(path)} is damaged, or not a video ({type(error).__name__})."
        raise MediaError(message, hint=_HINT) from error


def video_stream(container: InputContainer, path: Path) -> VideoStream:
    """The first video stream, ready to decode. Raises MediaError where there is none, or its frames are too large."""
    if not container.streams.video:
        raise MediaError(f"{display(path)} holds no pictures, only sound or data.", hint=_HINT)
    stream = container.streams.video[0]
    if getattr(stream, "codec_context", None) is None:  # of a codec FFmpeg doesn't know
        message = f"{display(path)} holds a video of a codec that can't be decoded here."
        raise MediaError(message, hint="Convert it to an MP4 file with H.264.")
    if stream.width * stream.height > MOST_PIXELS:
        message = f"{display(path)} has frames of {stream.width}x{stream.height} pixels."
        raise MediaError(message, hint=f"Scale it to {MOST_PIXELS // 1_000_000} million pixels or less.")
    stream.codec_context.options = {"max_pixels": str(MOST_PIXELS)}  # also for frames that grow later on
    return stream
