"""Images and videos that people give: upright, bounded, on white, at the rate and size asked for."""

import struct
import zlib

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


@pytest.mark.parametrize(
    ("content", "label"),
    [
        (b"hello", "a text file"), (b"", "an empty file"), (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "an SVG drawing"),
        (b"<?xml version='1.0'?>\n<!-- x -->\n<svg/>", "an SVG drawing"), (b"#EXTM3U\nx.mp4", "a playlist"),
        (b"<!DOCTYPE html>", "a web page"), (b'{"a": 1}', "a JSON file"), (b"%PDF-1.7", "a PDF file"),
        (b"ffconcat version 1.0\nfile a.mp4", "a text file"), (b"\x01\0\x02\xff" * 9, "a file of an unknown kind"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "a HEIC image"),
        (b"\x20\0\0\0\0\0\0\0{\"a\": {}}", "a safetensors file"),
    ],
)  # fmt: skip
def test_what_is_neither_is_named_by_its_content(tmp_path, content, label):
    for name in ("x.png", "x.mp4"):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(MediaError, match=f"is {label}, not an image"):
            read_image(path)
        with pytest.raises(MediaError, match=f"is {label}, not a video"):
            read_clip(path, 5, 16, (32, 32))


def test_images_and_videos_are_not_taken_for_each_other(tmp_path):
    Image.new("RGB", (32, 32)).save(tmp_path / "image.mp4", "PNG")
    with pytest.raises(MediaError, match="is a PNG image, not a video"):
        read_clip(tmp_path / "image.mp4", 5, 16, (32, 32))
    write_mp4(tmp_path / "video.mp4", np.zeros((5, 32, 32, 3), np.uint8), 16, {})
    (tmp_path / "video.mp4").rename(tmp_path / "video.png")
    with pytest.raises(MediaError, match="is an MP4 or MOV video, not an image"):
        read_image(tmp_path / "video.png")
    for read in (read_image, lambda path: read_clip(path, 5, 16, (32, 32))):
        with pytest.raises(MediaError, match="is a folder"):
            read(tmp_path)
        with pytest.raises(MediaError, match="doesn't exist"):
            read(tmp_path / "absent.png")


def test_no_playlist_opens_another_file(tmp_path):
    write_mp4(tmp_path / "a.mp4", np.zeros((5, 32, 32, 3), np.uint8), 16, {})
    for text in (
        "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\na.mp4\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile a.mp4\n",
    ):
        (tmp_path / "list.mp4").write_text(text, "utf-8")
        with pytest.raises(MediaError, match="not a video"):
            read_clip(tmp_path / "list.mp4", 5, 16, (32, 32))


def png_of_no_data(width, height):
    """A PNG that says how large it is, and then holds nothing of it."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return start + struct.pack(">I", 1000) + b"IDAT"


@pytest.mark.parametrize(("width", "height"), [(9900, 8990), (20_000, 20_000), (2**31 - 1, 2**31 - 1), (6001, 6000)])
def test_pixels_are_counted_before_anything_is_decoded(tmp_path, width, height):
    path = tmp_path / "x.png"
    path.write_bytes(png_of_no_data(width, height))
    with pytest.raises(MediaError, match="million pixels or less"):
        read_image(path)
    path.write_bytes(png_of_no_data(1000, 1000))
    with pytest.raises(MediaError, match="is damaged"):
        read_image(path)


def test_large_images_are_scaled_down_while_they_are_read(tmp_path):
    camera = Image.linear_gradient("L").resize((8000, 6000)).convert("RGB")  # 48 million pixels
    camera.save(tmp_path / "camera.jpg", quality=50)
    picture = read_image(tmp_path / "camera.jpg")
    assert picture.size == (3464, 2598)
    assert 120 < np.asarray(picture).mean() < 136
    camera.save(tmp_path / "progressive.jpg", quality=50, progressive=True)  # decodes as a whole
    with pytest.raises(MediaError, match="8000x6000"):
        read_image(tmp_path / "progressive.jpg")


@pytest.mark.parametrize("shape", [(20_000, 100), (100, 20_000)])
def test_long_images_keep_what_their_short_side_has(tmp_path, shape):
    Image.new("RGB", shape).save(tmp_path / "x.png")
    assert read_image(tmp_path / "x.png").size == shape


def test_every_format_is_read_and_no_program_is_run(tmp_path):
    for name in ("x.png", "x.jpg", "x.webp", "x.gif", "x.bmp", "x.tiff", "x.avif"):
        Image.new("RGB", (64, 48), (200, 30, 30)).save(tmp_path / name)
        picture = read_image(tmp_path / name)
        assert (picture.size, picture.mode) == ((64, 48), "RGB")
        assert np.asarray(picture)[20, 20, 0] > 150
    (tmp_path / "x.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    with pytest.raises(MediaError, match="not an image"):
        read_image(tmp_path / "x.png")


def test_an_animated_gif_keeps_its_timing_and_is_white_where_it_is_transparent(tmp_path):
    frames = []
    for number in range(4):
        picture = Image.new("P", (32, 32), 0)
        picture.putpalette([0, 0, 0, 250, 0, 0] + [0] * 750)
        picture.paste(1, (0, 0, 8 * (number + 1), 32))
        frames.append(picture)
    path = tmp_path / "x.gif"
    frames[0].save(
        path, save_all=True, append_images=frames[1:], duration=[100, 400, 100, 200], transparency=0, disposal=2
    )
    clip = read_clip(path, 50, 10, (32, 32))
    widths = [round(float((np.asarray(frame)[16, :, 1] < 128).sum()) / 8) for frame in clip.frames]
    assert widths == [1, 2, 2, 2, 2, 3, 4, 4]
    assert np.asarray(clip.frames[0])[16, 30].min() > 200
