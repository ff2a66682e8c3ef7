"""A test sheet: a grid of videos with labels, as one MP4, animated WebP or PNG.

Columns are what is compared, rows are prompts and seeds. All videos of a sheet play at the same time; shorter ones stop
at their last frame. A PNG shows the first, the middle and the last frame of each video.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from reeltune.errors import MediaError
from reeltune.files import write_atomic
from reeltune.media.mp4 import Report, write_mp4
from reeltune.media.sheet_text import LINE_HEIGHT, draw_lines, wrap
from reeltune.untrusted import JsonObject

ENDINGS = (".mp4", ".webp", ".png")
MOST_CELLS = 400
_BACKGROUND, _INK, _FAINT, _FAILED = (24, 24, 27), (244, 244, 245), (161, 161, 170), (127, 29, 29)
_GAP = 8  # pixels
_SMALLEST = 160  # pixels of a cell's width, so that labels can be read
_LARGEST_SIDE = 8192  # pixels of the sheet, which decoders of H.264 can still show
_MOST_BYTES = 1_000_000_000  # of the frames of a WebP, which is encoded in memory
_HEADER_LINES, _PROMPT_LINES, _CAPTION_LINES, _ERROR_LINES = 4, 3, 2, 8
_QUALITY = 85
Frames = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Cell:
    """One video of a sheet. `frames`: uint8 [frames, height, width, 3], as `fitted` returns them; None if it failed.

    `caption`: what is written below it, or why it failed.
    """

    caption: str
    frames: Frames | None = field(default=None, repr=False)
    fps: int = 1


@dataclass(frozen=True)
class Sheet:
    """A grid: `cells[row][column]`. `title`: about all of it; `columns`, `rows`: their labels."""

    title: str
    columns: Sequence[str]
    rows: Sequence[str]
    cells: Sequence[Sequence[Cell]]


def check_sheet_path(path: Path, *, overwrite: bool) -> None:
    """Raise MediaError, before any video is made, for a file that can't become a sheet, or exists already."""
    if path.suffix.lower() not in ENDINGS:
        message = f"{path} is not the name of a sheet."
        raise MediaError(message, hint=f"Use a name that ends in {', '.join(ENDINGS)}.")
    if path.exists() and not (overwrite and path.is_file()):
        raise MediaError(f"{path} exists already.", hint="Use another name, or --force to replace it.")


def fitted(frames: Frames, width: int, kind: str) -> Frames:
    """The frames of a video as they are shown in a cell of `width` pixels.

    Large videos are scaled down; small ones are enlarged by a whole number, so that each pixel can be seen. `kind`: the
    ending of the sheet; for ".png", three frames side by side.
    """
    count, height, own_width = frames.shape[:3]
    if kind.lower() == ".png":
        frames = np.concatenate([frames[index] for index in (0, count // 2, count - 1)], 1)[None]
        own_width *= 3
    size = (width, max(1, round(height * width / own_width)))
    if own_width <= width:
        factor = max(1, width // own_width)
        return np.ascontiguousarray(frames.repeat(factor, 1).repeat(factor, 2))
    scaled = [np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.LANCZOS)) for frame in frames]
    return np.stack(scaled)


def write_sheet(path: Path, sheet: Sheet, metadata: JsonObject, report: Report) -> Path:
    """Write a sheet in the format of the path's ending. The file appears only when it is complete. Raises MediaError.

    `metadata`: embedded in an MP4. `report`: called with what the user should know.
    """
    drawing = _Drawing(sheet)
    kind = path.suffix.lower()
    if kind == ".mp4":
        return write_mp4(path, drawing, drawing.fps, metadata, report)
    buffer = io.BytesIO()
    if kind == ".png":
        next(drawing.images()).save(buffer, "PNG", optimize=True)
    else:
        every = math.ceil(math.prod(drawing.shape) / _MOST_BYTES)
        if every > 1:
            report(f"The sheet shows one of {every} frames: as a WebP it would be too large. An MP4 shows all.")
        first, *others = [image for number, image in enumerate(drawing.images()) if number % every == 0]
        duration = round(1000 * every / drawing.fps)
        first.save(buffer, "WEBP", save_all=True, append_images=others, duration=duration, loop=0, quality=_QUALITY)
    write_atomic(path, buffer.getvalue())
    return path


class _Drawing:
    """A sheet with everything at its place. As an array of frames: `shape`, `dtype`, and iteration over the frames."""

    ndim = 4
    dtype = np.dtype(np.uint8)

    def __init__(self, sheet: Sheet) -> None:
        self._sheet = sheet
        videos = [cell for row in sheet.cells for cell in row if cell.frames is not None]
        self.fps = max((cell.fps for cell in videos), default=1)
        self._count = max((math.ceil(_length(cell) * self.fps) for cell in videos), default=1)
        width, height = _cell_size(videos)
        shrink = min(1.0, _room_for(width, len(sheet.columns), 0), _room_for(height, len(sheet.rows), _row_labels()))
        self._width, self._height = max(1, int(width * shrink)), max(1, int(height * shrink))
        self._places: dict[tuple[int, int], tuple[int, int]] = {}
        self._labels = self._draw_labels()
        self.shape = (self._count, self._labels.height, self._labels.width, 3)

    def __iter__(self) -> Iterator[Frames]:
        for image in self.images():
            yield np.asarray(image)

    def images(self) -> Iterator[Image.Image]:
        """Every frame of the sheet."""
        for number in range(self._count):
            image = self._labels.copy()
            for (row, column), (left, top) in self._places.items():
                cell = self._sheet.cells[row][column]
                if cell.frames is not None:
                    index = min(len(cell.frames) - 1, int(number * cell.fps / self.fps + 1e-6))
                    frame = Image.fromarray(cell.frames[index])
                    frame.thumbnail((self._width, self._height), Image.Resampling.LANCZOS)
                    image.paste(frame, (left, top))
            yield image

    def _draw_labels(self) -> Image.Image:
        """The sheet without its videos; notes the place of each video."""
        sheet, step = self._sheet, self._width + _GAP
        total_width = _even(len(sheet.columns) * step + _GAP)
        inner = total_width - 2 * _GAP
        title = wrap(sheet.title, inner, _PROMPT_LINES)
        headers = [wrap(label, self._width, _HEADER_LINES) for label in sheet.columns]
        prompts = [wrap(label, inner, _PROMPT_LINES) for label in sheet.rows]
        tallest = max(len(header) for header in headers)
        row_height = self._height + (_CAPTION_LINES * LINE_HEIGHT) + 2 * _GAP
        total = _GAP + (len(title) + tallest) * LINE_HEIGHT + _GAP
        total += sum(len(prompt) * LINE_HEIGHT + row_height for prompt in prompts)
        image = Image.new("RGB", (total_width, _even(total)), _BACKGROUND)
        draw = ImageDraw.Draw(image)
        draw_lines(draw, _GAP, _GAP, title, _FAINT)
        top = _GAP + len(title) * LINE_HEIGHT
        for column, header in enumerate(headers):
            draw_lines(draw, _GAP + column * step, top, header, _INK)
        top += tallest * LINE_HEIGHT + _GAP
        for row, prompt in enumerate(prompts):
            draw_lines(draw, _GAP, top, prompt, _INK)
            top += len(prompt) * LINE_HEIGHT
            for column in range(len(sheet.columns)):
                self._draw_cell(draw, row, column, (_GAP + column * step, top))
            top += row_height
        return image

    def _draw_cell(self, draw: ImageDraw.ImageDraw, row: int, column: int, place: tuple[int, int]) -> None:
        """The caption of a video, or the reason why there is none."""
        cell, (left, top) = self._sheet.cells[row][column], place
        self._places[row, column] = place
        if cell.frames is not None:
            below = top + min(self._height, round(cell.frames.shape[1] * self._scale(cell.frames))) + _GAP // 2
            draw_lines(draw, left, below, wrap(cell.caption, self._width, _CAPTION_LINES), _FAINT)
            return
        draw.rectangle((left, top, left + self._width - 1, top + self._height - 1), fill=_FAILED)
        fitting = max(1, min(_ERROR_LINES, (self._height - _GAP) // LINE_HEIGHT))
        lines = wrap(f"Failed: {cell.caption}", self._width - _GAP, fitting)
        draw_lines(draw, left + _GAP // 2, top + _GAP // 2, lines, _INK)

    def _scale(self, frames: Frames) -> float:
        """By how much frames are scaled down to fit into a cell."""
        height, width = frames.shape[1:3]
        return min(1.0, self._width / int(width), self._height / int(height))


def _length(cell: Cell) -> float:
    """Seconds of a video."""
    return 0.0 if cell.frames is None else len(cell.frames) / cell.fps


def _cell_size(videos: Sequence[Cell]) -> tuple[int, int]:
    """Width and height that hold every video."""
    sizes = [cell.frames.shape[1:3] for cell in videos if cell.frames is not None]
    width = max([_SMALLEST, *(size[1] for size in sizes)])
    height = max((size[0] for size in sizes), default=_SMALLEST)
    return width, height


def _row_labels() -> int:
    """Pixels of the labels of a row, at most."""
    return (_PROMPT_LINES + _CAPTION_LINES) * LINE_HEIGHT + _GAP


def _room_for(side: int, count: int, labels: int) -> float:
    """By how much cells of that side must be scaled, so that so many of them fit on the largest sheet."""
    frame = (_PROMPT_LINES + _HEADER_LINES) * LINE_HEIGHT + 4 * _GAP
    room = (_LARGEST_SIDE - frame) / count - labels - _GAP
    return max(0.01, room / side)


def _even(side: int) -> int:
    return side + side % 2
