"""Open a video with FFmpeg so that no other file is read; all failures are MediaErrors.

FFmpeg also accepts playlists, drawings, text and lists of files as videos, and opens the files that they refer to, on
the disk and on the network. Therefore the container is recognized here, by content, and FFmpeg gets a demuxer, an open
file, and no protocol to open other files with.
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

MAX_PIXELS = 40_000_000  # of one frame; 8K has 33 million
FAILURES = (av.FFmpegError, OSError, ValueError, LookupError, ArithmeticError, MemoryError)  # by PyAV on damaged files
_HINT = "Use an MP4, WebM or GIF file."
_BUFFER_SIZE = 1_000_000  # bytes


class _FileReader:
    """A file object for PyAV whose `seek` returns FFmpeg's error code for an invalid offset of a damaged container.

    PyAV would print and ignore an exception.
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
    """Open a video file for reading. Raises MediaError, also for failures inside the `with` block."""
    try:
        with open_regular(path) as file:
            kind = kind_of_bytes(file.read(HEAD_BYTES))
            if not kind.container:
                raise MediaError(f"{display(path)} is {kind.label}, not a video.", hint=_HINT)
            file.seek(0)
            options = {"protocol_whitelist": "", "max_pixels": str(MAX_PIXELS)}
            with av.open(
                _FileReader(file),
                format=kind.container,
                options=options,
                metadata_errors="replace",
                buffer_size=_BUFFER_SIZE,
            ) as container:
                yield container
    except FileError as error:
        raise MediaError(clean_text(error.message), hint=error.hint) from error
    except FAILURES as error:
        message = f"{display(path)} is damaged, or not a video ({type(error).__name__})."
        raise MediaError(message, hint=_HINT) from error


def video_stream(container: InputContainer, path: Path) -> VideoStream:
    """The first video stream, ready to decode. Raises MediaError if there is none, or if its frames are too large."""
    if not container.streams.video:
        raise MediaError(f"{display(path)} contains no video, only audio or data.", hint=_HINT)
    stream = container.streams.video[0]
    if getattr(stream, "codec_context", None) is None:  # FFmpeg doesn't know the codec
        message = f"{display(path)} uses a codec that is not supported."
        raise MediaError(message, hint="Convert it to an MP4 file with H.264.")
    if stream.width * stream.height > MAX_PIXELS:
        message = f"{display(path)} has frames of {stream.width}x{stream.height} pixels."
        raise MediaError(message, hint=f"Scale it to {MAX_PIXELS // 1_000_000} million pixels or less.")
    stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}  # the size of frames may change within a stream
    return stream
