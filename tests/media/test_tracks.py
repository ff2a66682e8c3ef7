"""Trajectories in NumPy files, which come from strangers."""

import io
import random

import numpy as np
import pytest

from reeltune.errors import MediaError
from reeltune.media import tracks
from reeltune.media.tracks import in_pixels, read_tracks


def content(array, **options):
    stream = io.BytesIO()
    np.save(stream, array, **options)
    return stream.getvalue()


@pytest.fixture
def read(tmp_path):
    def reading(data):
        path = tmp_path / "tracks.npy"
        path.write_bytes(data)
        return read_tracks(path)

    return reading


POINTS = np.array([[[1.5, 2], [3, 4]], [[5, 6], [7, 8]], [[9, 10], [-1, np.nan]]])


@pytest.mark.parametrize("dtype", ["<f8", ">f8", "<f4", "<f2", ">i4", "<i8", "|u1"])
@pytest.mark.parametrize("by_columns", [False, True])
def test_all_kinds_of_numbers(read, dtype, by_columns):
    points = POINTS if "f" in dtype else np.where(np.isfinite(POINTS) & (POINTS >= 0), POINTS, 0)
    stored = points.astype(dtype, order="F" if by_columns else "C")
    expected = np.where(np.isfinite(stored), stored, -1)
    for array in (stored, stored[None]):
        found = read(content(array))
        assert found.dtype == np.float32
        assert np.array_equal(found, expected)


def test_numbers_that_are_too_large_are_outside(read):
    assert (read(content(np.full((1, 1, 2), 1e300))) == -1).all()
    assert (read(content(np.full((1, 1, 2), -np.inf))) == -1).all()


WRONG = {
    "another shape": content(np.zeros((3, 2))),
    "three coordinates": content(np.zeros((3, 2, 3))),
    "two videos": content(np.zeros((2, 3, 2, 2))),
    "no points": content(np.zeros((3, 0, 2))),
    "texts": content(np.full((1, 1, 2), "x")),
    "complex numbers": content(np.zeros((1, 1, 2), complex)),
    "records": content(np.zeros((1, 1, 2), [("a", "f4")])),
    "objects": content(np.full((1, 1, 2), None), allow_pickle=True),
    "cut off": content(np.zeros((3, 2, 2)))[:-1],
    "longer": content(np.zeros((3, 2, 2))) + b"\0",
    "huge": content(np.zeros((1, 1, 2))).replace(b"(1, 1, 2)", b"(9**9, 9**9, 2)"),
    "huge numbers": content(np.zeros((1, 1, 2))).replace(b"(1, 1, 2), }   ", b"(99999999,1,2),"),
    "negative": content(np.zeros((1, 1, 2))).replace(b"(1, 1, 2)", b"(-1,-1,2)"),
    "code": content(np.zeros((1, 1, 2))).replace(b"False", b"print"),
    "unclosed": content(np.zeros((1, 1, 2))).replace(b"}", b"("),
    "only a head": b"\x93NUMPY\x01\x00",
    "version 3": b"\x93NUMPY\x03\x00" + content(np.zeros((1, 1, 2)))[8:],
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_used_is_refused(read, name):
    with pytest.raises(MediaError, match="can't be used as trajectories") as caught:
        read(WRONG[name])
    assert "[frames, points, 2]" in caught.value.hint


def test_other_files_are_named(read, tmp_path, monkeypatch):
    with pytest.raises(MediaError, match="is a ZIP archive, not a NumPy file"):
        read(b"PK\x03\x04" + bytes(100))
    with pytest.raises(MediaError, match="is an empty file"):
        read(b"")
    with pytest.raises(MediaError, match="doesn't exist"):
        read_tracks(tmp_path / "nothing.npy")
    with pytest.raises(MediaError, match="is a folder"):
        read_tracks(tmp_path)
    monkeypatch.setattr(tracks, "_MAX_POINTS", 1)
    with pytest.raises(MediaError, match="can't be used as trajectories"):
        read(content(POINTS))
    monkeypatch.setattr(tracks, "_MAX_BYTES", 100)
    with pytest.raises(MediaError, match="holds more than 100 bytes"):
        read(content(POINTS))


def test_damaged_files_are_read_or_refused(read):
    chance = random.Random(5)
    good = content(POINTS)
    for _ in range(300):
        data = bytearray(good)
        for _ in range(chance.choice((1, 2, 9))):
            data[chance.randrange(len(data))] = chance.randrange(256)
        try:
            found = read(bytes(data))
        except MediaError:
            continue
        assert found.ndim == 3
        assert np.isfinite(found).all()


def test_fractions_are_told_from_pixels():
    pixels = np.array([[[4, 8], [-1, -1]]], np.float32)
    assert np.array_equal(in_pixels(pixels, 32, 64), pixels)
    leaving = np.array([[[0.5, 0.25], [1.04, 0.5]]], np.float32)
    assert np.array_equal(in_pixels(leaving, 100, 64), [[[50, 16], [104, 32]]])
    fractions = np.array([[[0.5, 0.25], [1, -0.5]]], np.float32)
    assert np.array_equal(in_pixels(fractions, 32, 64), [[[16, 16], [32, -0.5]]])
