"""Pictures of videos: their first frame, and sheets of frames at equal distances."""

import io

import numpy as np
import pytest
from PIL import Image

from reeltune.errors import MediaError
from reeltune.media.mp4 import write_mp4
from reeltune.media.stills import sprite_sheet, thumbnail


def film(path, count, width=64, height=32):
    """A video that grows brighter from frame to frame."""
    levels = np.linspace(20, 230, count).astype(np.uint8)
    frames = np.broadcast_to(levels[:, None, None, None], (count, height, width, 3)).copy()
    write_mp4(path, frames, 16, {})
    return path


def opened(content):
    return Image.open(io.BytesIO(content))


def test_the_thumbnail_is_the_first_frame(tmp_path):
    image = opened(thumbnail(film(tmp_path / "a.mp4", 9, 1280, 704)))
    assert (image.format, image.size) == ("WEBP", (640, 352))
    assert abs(np.asarray(image.convert("RGB")).mean() - 20) < 8


@pytest.mark.parametrize(
    ("count", "columns", "rows"), [(1, 1, 1), (3, 3, 1), (5, 4, 2), (16, 4, 4), (17, 4, 3), (33, 4, 3), (100, 4, 4)]
)
def test_a_sheet_has_up_to_sixteen_frames_in_their_order(tmp_path, count, columns, rows):
    image = opened(sprite_sheet(film(tmp_path / "a.mp4", count)))
    assert (image.format, image.size) == ("JPEG", (64 * columns, 32 * rows))
    cells = [
        np.asarray(image.crop((64 * column, 32 * row, 64 * column + 64, 32 * row + 32))).mean()
        for row in range(rows)
        for column in range(columns)
    ]
    shown = [level for level in cells if level > 10]  # the last row may have empty places
    assert shown == sorted(shown)
    assert abs(shown[0] - 20) < 8


def test_what_is_no_video_is_an_error(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"nothing")
    for make in (thumbnail, sprite_sheet):
        with pytest.raises(MediaError):
            make(path)
