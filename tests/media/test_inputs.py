"""Images and videos that people give: upright, bounded, on white, at the rate and size asked for."""

import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reeltune.errors import MediaError
from reeltune.media.inputs import read_clip, read_image
from reeltune.media.mp4 import write_mp4


def test_a_phones_portrait_clip_stands_upright(tmp_path):
    frames = np.zeros((5, 64, 96, 3), np.uint8)
    frames[:, :32, :48] = (255, 0, 0)  # upper left
    path = write_mp4(tmp_path / "x.mp4", frames, 16, {})
    raw = bytearray(path.read_bytes())
    at = raw.index(b"tkhd") + 4 + 40
    assert struct.unpack(">9i", raw[at : at + 36])[0] == 0x10000
    raw[at : at + 36] = struct.pack(
        ">9i", 0, 0x10000, 0, -0x10000, 0, 0, 64 * 0x10000, 0, 0x40000000
    )  # a quarter turn right
    path.write_bytes(raw)
    clip = read_clip(path, 5, 16, (64, 96))
    assert clip.size == (64, 96)
    picture = np.asarray(clip.frames[0])
    assert picture[10, 50, 0] > 150  # the upper left has come to the upper right
    assert picture[10, 10].max() < 80


def test_transparency_turns_white_and_16_bits_of_gray_stay_gray(tmp_path):
    clear = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    clear.save(tmp_path / "clear.png")
    assert np.asarray(read_image(tmp_path / "clear.png")).min() == 255
    Image.fromarray(np.full((4, 4), 30000, np.uint16)).save(tmp_path / "depth.png")
    assert abs(int(np.asarray(read_image(tmp_path / "depth.png"))[0, 0, 0]) - 116) <= 1
    palette = Image.new("P", (4, 4), 3)
    palette.save(tmp_path / "p.gif")
    assert read_image(tmp_path / "p.gif").mode == "RGB"


@pytest.mark.parametrize(
    ("rate", "fps", "taken"), [(16, 16, [0, 1, 2, 3]), (32, 16, [0, 2, 4, 6]), (8, 16, [0, 0, 1, 1])]
)
def test_frames_are_taken_at_the_models_rate(tmp_path, rate, fps, taken):
    frames = np.repeat(np.arange(0, 240, 24, dtype=np.uint8)[:, None, None, None], 32, 1).repeat(32, 2).repeat(3, 3)
    path = write_mp4(tmp_path / "x.mp4", frames, rate, {})
    clip = read_clip(path, 4, fps, (32, 32))
    got = [round(float(np.asarray(frame).mean()) / 24) for frame in clip.frames]
    assert got == taken
    assert clip.more


def test_what_is_neither_is_named(tmp_path):
    text = tmp_path / "x.png"
    text.write_text("hello", "utf-8")
    with pytest.raises(MediaError, match="no image"):
        read_image(text)
    with pytest.raises(MediaError, match="no video"):
        read_clip(text, 5, 16, (32, 32))
    with pytest.raises(MediaError, match="no image"):
        read_image(Path(tmp_path))
    bomb = Image.new("1", (20000, 20000))
    bomb.save(tmp_path / "bomb.png")
    with pytest.raises(MediaError):
        read_image(tmp_path / "bomb.png")
