"""Pictures of a video: its first frame, or a sheet of frames in order, as lists and players show them."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from reeltune.media.container import open_container, video_stream
from reeltune.media.inputs import no_frames, read_image, upright
from reeltune.media.kinds import IMAGE_SUFFIX

_SIDE = 640  # pixels of a thumbnail, at most
_SHEET_SIDE = 240  # pixels of a frame in a sheet, at most
_SHEET_FRAMES = 16  # at most; 8 at least where the video has so many
_COLUMNS = 4
_QUALITY = 85


def thumbnail(path: Path) -> bytes:
    """The first frame of a video as WebP, with at most 640 pixels a side. Raises MediaError."""
    return _encoded(next(_small_frames(path, _SIDE)), "WEBP")


def sprite_sheet(path: Path) -> bytes:
    """Up to 16 frames at equal distances as one JPEG, four in a row, from left to right and down.

    A frame has at most 240 pixels a side. Raises MediaError.
    """
    frames = _spread(_small_frames(path, _SHEET_SIDE))
    width, height = frames[0].size
    columns = min(_COLUMNS, len(frames))
    sheet = Image.new("RGB", (columns * width, math.ceil(len(frames) / columns) * height))
    for number, frame in enumerate(frames):
        row, column = divmod(number, columns)
        sheet.paste(frame, (column * width, row * height))
    return _encoded(sheet, "JPEG")


def _small_frames(path: Path, side: int) -> Iterator[Image.Image]:
    """All frames, scaled down; of an image, the image itself. Raises MediaError where there is none."""
    if path.suffix == IMAGE_SUFFIX:
        still = read_image(path)
        still.thumbnail((side, side), Image.Resampling.LANCZOS)
        yield still
        return
    with open_container(path) as container:
        empty = True
        for frame in container.decode(video_stream(container, path)):
            image = upright(frame)
            image.thumbnail((side, side), Image.Resampling.LANCZOS)
            empty = False
            yield image
        if empty:
            raise no_frames(path)


def _spread(frames: Iterator[Image.Image]) -> list[Image.Image]:
    """At most 16 of the frames at equal distances. Only so many are held, however long the video is."""
    kept: list[Image.Image] = []
    distance = 1
    for number, frame in enumerate(frames):
        if number % distance:
            continue
        if len(kept) == _SHEET_FRAMES:
            kept = kept[::2]
            distance *= 2
            if number % distance:
                continue
        kept.append(frame)
    return kept


def _encoded(image: Image.Image, format: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, quality=_QUALITY)
    return buffer.getvalue()
