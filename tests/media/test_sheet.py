"""Test sheets: what is drawn where, in each format."""

import io

import numpy as np
import pytest
from PIL import Image, ImageFont

from reeltune.errors import MediaError
from reeltune.media import sheet as sheet_module
from reeltune.media import sheet_text
from reeltune.media.mp4 import read_frames, read_metadata
from reeltune.media.sheet import Cell, Sheet, check_sheet_path, fitted, write_sheet
from reeltune.media.sheet_text import font, wrap


def video(color, count=6, size=(40, 60)):
    """A video of one color, whose brightness grows from frame to frame."""
    frames = np.zeros((count, *size, 3), np.uint8)
    for index in range(count):
        frames[index] = np.array(color) * (index + 1) // count
    return frames


def sheet(kind, **changes):
    red, blue = (fitted(video(color, count), 180, kind) for color, count in (((250, 0, 0), 6), ((0, 0, 250), 3)))
    cells = [[Cell("1.5 s", red, 8), Cell("2 s", blue, 8)], [Cell("no memory " * 40), Cell("3 s", red, 4)]]
    values = {
        "title": "steps=6",
        "columns": ["one", "two"],
        "rows": ["a fox (seed 1)", "a cat (seed 2)"],
        "cells": cells,
    }
    return Sheet(**{**values, **changes})


def shares(image):
    """How much of an image is red, blue, and the red of a failure."""
    pixels = np.asarray(image.convert("RGB")).reshape(-1, 3).astype(int)
    red = ((pixels[:, 0] > 200) & (pixels[:, 1] < 60) & (pixels[:, 2] < 60)).mean()
    blue = ((pixels[:, 2] > 200) & (pixels[:, 0] < 60)).mean()
    failed = (np.abs(pixels - (127, 29, 29)).max(1) < 12).mean()
    return red, blue, failed


def test_an_mp4_plays_all_videos_at_the_same_time(tmp_path):
    notices = []
    path = write_sheet(tmp_path / "s.mp4", sheet(".mp4"), {"sheet": {"rows": ["a"]}}, notices.append)
    frames = read_frames(path)
    assert len(frames) == 12  # 1.5 seconds of the video with 4 frames a second, at 8
    first, middle, last = (shares(Image.fromarray(frames[index])) for index in (0, 5, 11))
    assert first[0] == first[1] == 0
    assert middle[0] == pytest.approx(last[0] / 2, rel=0.1)  # the slower video has not ended
    assert last[1] == pytest.approx(last[0] / 2, rel=0.1)  # the short video stopped at its last frame
    assert first[2] > 0.05
    assert read_metadata(path)["sheet"] == {"rows": ["a"]}
    assert not notices
    assert [file.name for file in tmp_path.iterdir()] == ["s.mp4"]


def test_a_webp_is_animated_and_a_png_shows_three_frames(tmp_path, monkeypatch):
    path = write_sheet(tmp_path / "s.webp", sheet(".webp"), {}, pytest.fail)
    with Image.open(path) as image:
        assert image.format == "WEBP"
        assert 6 <= image.n_frames <= 12  # frames that are equal are stored once
    monkeypatch.setattr(sheet_module, "_MOST_BYTES", 1_500_000)
    notices = []
    with Image.open(write_sheet(tmp_path / "t.webp", sheet(".webp"), {}, notices.append)) as image:
        assert image.n_frames < 6
    assert "one of" in notices[0]
    path = write_sheet(tmp_path / "s.png", sheet(".png"), {}, pytest.fail)
    with Image.open(path) as image:
        red, blue, failed = shares(image)
        assert red > blue > 0
        assert failed > 0.05


def test_videos_are_scaled_to_the_width():
    assert fitted(video((1, 1, 1), size=(64, 64)), 320, ".mp4").shape == (6, 320, 320, 3)
    assert fitted(video((1, 1, 1), size=(480, 832)), 320, ".mp4").shape == (6, 185, 320, 3)
    assert fitted(video((1, 1, 1), size=(64, 64)), 200, ".png").shape == (1, 64, 192, 3)
    assert fitted(video((1, 1, 1), size=(480, 832)), 320, ".png").shape == (1, 62, 320, 3)


def test_large_sheets_are_shrunk_and_odd_sizes_are_made_even(tmp_path, monkeypatch):
    monkeypatch.setattr(sheet_module, "_LARGEST_SIDE", 900)
    tall = fitted(video((250, 0, 0), size=(333, 111)), 333, ".mp4")
    cells = [[Cell("x", tall, 8)] * 3 for _ in range(3)]
    path = write_sheet(tmp_path / "s.mp4", Sheet("t", ["a", "b", "c"], ["r"] * 3, cells), {}, pytest.fail)
    height, width = read_frames(path).shape[1:3]
    assert 500 < height <= 900
    assert 100 < width <= 900


def test_a_sheet_of_failures_is_written(tmp_path):
    cells = [[Cell("no"), Cell("no")]]
    path = write_sheet(tmp_path / "s.mp4", Sheet("t", ["a", "b"], ["r"], cells), {}, pytest.fail)
    assert len(read_frames(path)) == 1


def test_text_is_wrapped_and_cut(monkeypatch):
    lines = wrap("a red circle moves right " * 20, 150, 3)
    assert len(lines) == 3
    assert lines[-1].endswith("...")
    assert all(font().getlength(line) <= 150 for line in lines)
    assert "".join(wrap("x" * 100, 100, 50)) == "x" * 100
    assert wrap("", 100, 2) == []
    assert wrap("чайка \x00 狐", 200, 2)
    monkeypatch.setattr(sheet_text, "font", ImageFont.load_default_imagefont)
    assert wrap("狐 fox", 200, 2) == ["? fox"]


def test_names_of_sheets_are_checked_first(tmp_path):
    with pytest.raises(MediaError, match=r"s\.gif is not the name of a sheet"):
        check_sheet_path(tmp_path / "s.gif", overwrite=False)
    path = tmp_path / "s.png"
    check_sheet_path(path, overwrite=False)
    Image.new("RGB", (2, 2)).save(io.BytesIO(), "PNG")
    path.write_bytes(b"x")
    with pytest.raises(MediaError, match="exists already"):
        check_sheet_path(path, overwrite=False)
    check_sheet_path(path, overwrite=True)
