"""Images and videos as inputs of a model: read, bounded, fitted to its size and frame rate."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import av
from PIL import Image, ImageOps

from reeltune.errors import FileError, MediaError
from reeltune.files import open_regular
from reeltune.media.container import open_container, video_stream
from reeltune.media.kinds import HEAD_BYTES, FileKind, display, kind_of_bytes
from reeltune.media.pillow import FAILURES
from reeltune.media.timing import pace, stamped
from reeltune.untrusted import clean_text

_MOST_PIXELS = 36_000_000  # of an image that is decoded whole; 8K has 33 million
_MOST_JPEG_PIXELS = 160_000_000  # of a JPEG that decodes to an eighth of its size
_KEPT_PIXELS = 9_000_000  # a 4K frame has 8.3 million
_IMAGE_HINT = "Give a PNG, JPEG or WebP file."
_FASTEST, _SLOWEST = 1000.0, 0.01  # frame rates that a file may claim


@dataclass(frozen=True)
class Clip:
    """Frames of a video at the rate and size asked for; `rate`, `size`: its own; `more`: whether more follow."""

    frames: list[Image.Image]
    size: tuple[int, int]
    rate: float
    more: bool


def read_image(path: Path) -> Image.Image:
    """An image as RGB, turned upright; one of more than 9 million pixels is scaled down to as many.

    Raises MediaError for a file that isn't an image that can be read, or has too many pixels; those are counted
    before anything is decoded.
    """
    try:
        with open_regular(path) as file:
            kind = kind_of_bytes(file.read(HEAD_BYTES))
            if not kind.image:
                raise MediaError(f"{display(path)} is {kind.label}, not an image.", hint=_image_hint(kind))
            file.seek(0)
            return _decoded(file, path, kind.image)
    except FileError as error:
        raise MediaError(clean_text(error.message), hint=error.hint) from error
    except Image.DecompressionBombError as error:
        message = f"{display(path)} has more pixels than are read."
        raise MediaError(message, hint=_size_hint(_MOST_PIXELS)) from error
    except FAILURES as error:
        message = f"{display(path)} is damaged, or not an image ({type(error).__name__})."
        raise MediaError(message, hint=_IMAGE_HINT) from error


def _image_hint(kind: FileKind) -> str:
    if kind.label == "a HEIC image":
        return "Save it as JPEG or PNG first."
    return _IMAGE_HINT


def _size_hint(most: int) -> str:
    return f"Scale it to {most // 1_000_000} million pixels or less."


def _decoded(file: BinaryIO, path: Path, format: str) -> Image.Image:
    Image.init()  # else Pillow knows five formats only
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of sizes, which are checked below, and of odd metadata
        with Image.open(file, formats=(format,)) as image:
            pixels = image.width * image.height
            scaled = image.format in ("JPEG", "MPO") and not image.info.get("progressive")
            most = _MOST_JPEG_PIXELS if scaled else _MOST_PIXELS
            if pixels > most:
                message = f"{display(path)} has {image.width}x{image.height} pixels."
                raise MediaError(message, hint=_size_hint(most))
            shrink = math.sqrt(_KEPT_PIXELS / pixels)
            size = (max(1, round(image.width * shrink)), max(1, round(image.height * shrink)))
            if shrink < 1:
                image.draft("RGB", size)
                image.thumbnail(size, Image.Resampling.LANCZOS, reducing_gap=None)
            return _plain(ImageOps.exif_transpose(image))


def _plain(image: Image.Image) -> Image.Image:
    """Eight bits of red, green and blue; what is transparent becomes white."""
    if image.mode.startswith("I"):  # 16 bits of gray
        image = image.convert("I").point(lambda value: value * (1 / 257)).convert("L")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (255, 255, 255, 255)), image)
    return image.convert("RGB")


def read_clip(path: Path, count: int, fps: int, size: tuple[int, int]) -> Clip:
    """At most `count` frames of a video, each the one that shows at its moment at `fps` a second, cut to `size`.

    Moments are those of the time stamps, from the first frame on, so that a frame rate may vary. Raises MediaError.
    """
    with open_container(path) as container:
        stream = video_stream(container, path)
        rate = _plausible(stream.average_rate, fps)
        own: list[tuple[int, int]] = []

        def picture(frame: av.VideoFrame) -> Image.Image:
            upright = _upright(frame)
            own.append(upright.size)
            return cover(upright, *size)

        frames, more = pace(stamped(container.decode(stream), rate), count, fps, picture)
        if not frames:
            raise MediaError(f"{display(path)} holds no frame that can be decoded.", hint="Check that it plays.")
        return Clip(frames, own[-1], rate, more)


def video_rate(path: Path, usual: int) -> float:
    """Frames a second of a video; `usual` where what the file says can't be right. Raises MediaError."""
    with open_container(path) as container:
        return _plausible(video_stream(container, path).average_rate, usual)


def last_frame(path: Path) -> Image.Image:
    """The last frame of a video, upright and as RGB. Raises MediaError."""
    with open_container(path) as container:
        stream = video_stream(container, path)
        if stream.duration:
            container.seek(stream.duration + (stream.start_time or 0), stream=stream)  # to the key frame before
        frame = _last(container.decode(stream))
        if frame is None:  # the container's length is wrong
            container.seek(0, stream=stream)
            frame = _last(container.decode(stream))
        if frame is None:
            raise MediaError(f"{display(path)} holds no frame that can be decoded.", hint="Check that it plays.")
        return _upright(frame)


def _last(frames: Iterable[av.VideoFrame]) -> av.VideoFrame | None:
    last = None
    for frame in frames:
        last = frame
    return last


def _plausible(rate: object, fps: int) -> float:
    """A frame rate as a file gives it; `fps` where it can't be right."""
    found = float(rate) if rate else 0.0  # type: ignore[arg-type]
    return found if _SLOWEST < found < _FASTEST else float(fps)


def _upright(frame: av.VideoFrame) -> Image.Image:
    """A frame as RGB on white, turned as the camera was held."""
    if any(component.is_alpha for component in frame.format.components):
        picture = _plain(Image.fromarray(frame.to_ndarray(format="rgba"), "RGBA"))
    else:
        picture = frame.to_image()
    quarters = round((frame.rotation or 0) / 90) % 4
    return picture.rotate(90 * quarters, expand=True) if quarters else picture


def cover(image: Image.Image, width: int, height: int) -> Image.Image:
    """Scaled until it covers width x height, and cropped evenly to it."""
    return ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS)


def contain(image: Image.Image, width: int, height: int) -> Image.Image:
    """Scaled to fit within width x height as a whole, on white."""
    return ImageOps.pad(image, (width, height), Image.Resampling.LANCZOS, color=(255, 255, 255))
