"""Images and videos that people give a model: read, bounded, cut to its size and frame rate."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
from PIL import Image, ImageOps, UnidentifiedImageError

from reeltune.errors import MediaError

_MOST_PIXELS = 100_000_000  # of one image or frame
_RATE_MATTERS = 0.02  # a difference of frame rates worth taking other frames for


@dataclass(frozen=True)
class Clip:
    """Frames of a video at the rate and size asked for; `rate`, `size`: its own; `more`: it goes on after them."""

    frames: list[Image.Image]
    size: tuple[int, int]
    rate: float
    more: bool


def read_image(path: Path) -> Image.Image:
    """An image as RGB, turned upright. Raises MediaError for what is no image, or one too large."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                if image.width * image.height > _MOST_PIXELS:
                    raise MediaError(f"{path} has {image.width}x{image.height} pixels, too many.", hint="Shrink it.")
                return _plain(ImageOps.exif_transpose(image))
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError,
            Image.DecompressionBombWarning) as error:  # fmt: skip
        kind = "It holds a video." if _is_video(path) else ""
        message = f"{path} is no image that can be read ({type(error).__name__}). {kind}".strip()
        raise MediaError(message, hint="Give a PNG, JPEG or WebP file.") from error


def _plain(image: Image.Image) -> Image.Image:
    """Eight bits of red, green and blue; what is transparent becomes white."""
    if image.mode.startswith("I"):  # 16 bits of gray
        image = image.convert("I").point(lambda value: value * (1 / 257)).convert("L")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (255, 255, 255, 255)), image)
    return image.convert("RGB")


def _is_video(path: Path) -> bool:
    try:
        with av.open(str(path)) as container:
            return bool(container.streams.video)
    except (av.FFmpegError, OSError, ValueError):
        return False


def read_clip(path: Path, count: int, fps: int, size: tuple[int, int]) -> Clip:
    """At most `count` frames of a video, taken `fps` a second where its own rate is another, cut to `size`.

    Raises MediaError.
    """
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise MediaError(f"{path} holds no video.", hint="Give an MP4, WebM or GIF file.")
            stream = container.streams.video[0]
            if stream.width * stream.height > _MOST_PIXELS:
                raise MediaError(f"{path} has {stream.width}x{stream.height} pixels, too many.", hint="Shrink it.")
            rate = float(stream.average_rate or Fraction(fps))
            return _taken(container, count, fps, rate, size)
    except (av.FFmpegError, OSError, ValueError) as error:
        message = f"{path} is no video that can be read ({type(error).__name__})."
        raise MediaError(message, hint="Give an MP4, WebM or GIF file.") from error


def _taken(container: av.container.InputContainer, count: int, fps: int, rate: float, size: tuple[int, int]) -> Clip:
    """Every frame where the rates agree; else of each moment the frame that shows then."""
    own = (0, 0)
    step = rate / fps if abs(rate / fps - 1) > _RATE_MATTERS else 1.0  # frames of the file from one taken to the next
    frames: list[Image.Image] = []
    for number, frame in enumerate(container.decode(video=0)):
        if len(frames) >= count:
            return Clip(frames, own, rate, True)
        if math.floor(len(frames) * step + 1e-6) != number:
            continue
        picture = frame.to_image()
        if turn := getattr(frame, "rotation", 0):  # a phone's camera was held upright
            picture = picture.rotate(turn, expand=True)
        own, picture = picture.size, cover(picture, *size)
        while len(frames) < count and math.floor(len(frames) * step + 1e-6) == number:
            frames.append(picture)
    if not frames:
        raise ValueError("no frames")
    return Clip(frames, own, rate, False)


def cover(image: Image.Image, width: int, height: int) -> Image.Image:
    """Scaled until it covers width x height, what stands out at either side cut off evenly."""
    return ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS)


def contain(image: Image.Image, width: int, height: int) -> Image.Image:
    """Scaled to lie within width x height whole, on white."""
    return ImageOps.pad(image, (width, height), Image.Resampling.LANCZOS, color=(255, 255, 255))
