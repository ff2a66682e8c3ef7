"""Read images and videos as inputs of a model: with limited sizes, and fitted to its size and frame rate."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import av
from PIL import Image, ImageOps

from reeltune.errors import FileError, MediaError
from reeltune.files import open_regular
from reeltune.media.container import open_container, video_stream
from reeltune.media.kinds import HEAD_BYTES, FileKind, display, kind_of_bytes
from reeltune.media.pillow import FAILURES
from reeltune.media.timing import sample_frames, timed_frames
from reeltune.untrusted import clean_text

_MAX_PIXELS = 36_000_000  # of an image that is decoded at full size; 8K has 33 million
_MAX_JPEG_PIXELS = 160_000_000  # of a JPEG image, which can be decoded at an eighth of its size
_RESULT_PIXELS = 9_000_000  # images are scaled down to it; a 4K frame has 8.3 million
_IMAGE_HINT = "Use a PNG, JPEG or WebP file."
_MIN_RATE = 0.01  # plausible frame rates
_MAX_RATE = 1000.0


@dataclass(frozen=True)
class Clip:
    """The first frames of a video, at a requested rate and size.

    `size`, `rate`: those of the video itself. `more`: whether the video has more frames.
    """

    frames: list[Image.Image]
    size: tuple[int, int]
    rate: float
    more: bool


def read_image(path: Path) -> Image.Image:
    """An image in RGB and upright; an image with more than 9 million pixels is scaled down to 9 million.

    Raises MediaError for a file that is not a readable image, or has too many pixels, which is checked before decoding.
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
        message = f"{display(path)} has too many pixels."
        raise MediaError(message, hint=_size_hint(_MAX_PIXELS)) from error
    except FAILURES as error:
        message = f"{display(path)} is damaged, or not an image ({type(error).__name__})."
        raise MediaError(message, hint=_IMAGE_HINT) from error


def _image_hint(kind: FileKind) -> str:
    if kind.label == "a HEIC image":
        return "Save it as JPEG or PNG first."
    return _IMAGE_HINT


def _size_hint(max_pixels: int) -> str:
    return f"Scale it to {max_pixels // 1_000_000} million pixels or less."


def _decoded(file: BinaryIO, path: Path, format: str) -> Image.Image:
    Image.init()  # otherwise Pillow supports only five formats
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about sizes, which are checked below, and invalid metadata
        with Image.open(file, formats=(format,)) as image:
            pixels = image.width * image.height
            decodes_scaled = image.format in ("JPEG", "MPO") and not image.info.get("progressive")
            max_pixels = _MAX_JPEG_PIXELS if decodes_scaled else _MAX_PIXELS
            if pixels > max_pixels:
                message = f"{display(path)} has {image.width}x{image.height} pixels."
                raise MediaError(message, hint=_size_hint(max_pixels))
            scale = math.sqrt(_RESULT_PIXELS / pixels)
            size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
            if scale < 1:
                image.draft("RGB", size)
                image.thumbnail(size, Image.Resampling.LANCZOS, reducing_gap=None)
            return _to_rgb(ImageOps.exif_transpose(image))


def _to_rgb(image: Image.Image) -> Image.Image:
    """The image in RGB with 8 bits per channel; transparent pixels become white."""
    if image.mode.startswith("I"):  # 16-bit grayscale
        image = image.convert("I").point(lambda value: value * (1 / 257)).convert("L")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (255, 255, 255, 255)), image)
    return image.convert("RGB")


def read_clip(path: Path, count: int, fps: int, size: tuple[int, int]) -> Clip:
    """The first `count` frames of a video at `fps` frames per second, scaled and cropped to `size`.

    Frames are selected by their timestamps, relative to the first frame, so that the video's frame rate may vary.
    Raises MediaError.
    """
    with open_container(path) as container:
        stream = video_stream(container, path)
        rate = _plausible_rate(stream.average_rate, fps)
        own_sizes: list[tuple[int, int]] = []

        def convert(frame: av.VideoFrame) -> Image.Image:
            image = upright(frame)
            own_sizes.append(image.size)
            return cover(image, *size)

        frames, more = sample_frames(timed_frames(container.decode(stream), rate), count, fps, convert)
        if not frames:
            raise no_frames(path)
        return Clip(frames, own_sizes[-1], rate, more)


def no_frames(path: Path) -> MediaError:
    """The error for a video without frames."""
    return MediaError(f"{display(path)} contains no frame that can be decoded.", hint="Check that it plays.")


def video_rate(path: Path, default: int) -> float:
    """The frame rate of a video, or `default` if the file's value is not plausible. Raises MediaError."""
    with open_container(path) as container:
        return _plausible_rate(video_stream(container, path).average_rate, default)


def last_frame(path: Path) -> Image.Image:
    """The last frame of a video in RGB and upright. Raises MediaError."""
    with open_container(path) as container:
        stream = video_stream(container, path)
        if stream.duration:
            container.seek(stream.duration + (stream.start_time or 0), stream=stream)  # to the last key frame
        frame = _last(container.decode(stream))
        if frame is None:  # the container's duration is wrong
            container.seek(0, stream=stream)
            frame = _last(container.decode(stream))
        if frame is None:
            raise no_frames(path)
        return upright(frame)


def _last(frames: Iterable[av.VideoFrame]) -> av.VideoFrame | None:
    last = None
    for frame in frames:
        last = frame
    return last


def _plausible_rate(rate: Fraction | None, default: int) -> float:
    """The frame rate in a file, or `default` if it is missing or not plausible."""
    if rate is None or not _MIN_RATE < rate < _MAX_RATE:
        return float(default)
    return float(rate)


def upright(frame: av.VideoFrame) -> Image.Image:
    """A frame in RGB, on white, rotated to be upright."""
    if any(component.is_alpha for component in frame.format.components):
        image = _to_rgb(Image.fromarray(frame.to_ndarray(format="rgba"), "RGBA"))
    else:
        image = frame.to_image()
    quarter_turns = round((frame.rotation or 0) / 90) % 4
    return image.rotate(90 * quarter_turns, expand=True) if quarter_turns else image


def cover(image: Image.Image, width: int, height: int) -> Image.Image:
    """The image scaled to cover width x height, with the excess cropped evenly."""
    return ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS)


def contain(image: Image.Image, width: int, height: int, border: int = 255) -> Image.Image:
    """The image scaled to fit into width x height, with a border of that brightness, 0 to 255."""
    return ImageOps.pad(image, (width, height), Image.Resampling.LANCZOS, color=(border, border, border))
