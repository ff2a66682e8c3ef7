import os
from pathlib import Path

import av
import numpy as np
import pytest

from reeltune.errors import MediaError
from reeltune.media import mp4
from reeltune.media.inputs import read_clip, read_image
from reeltune.media.mp4 import free_name, read_frames, read_metadata, write_mp4
from reeltune.media.origin import read_origin
from reeltune.untrusted import clean_text

FRAMES = np.zeros((9, 32, 48, 3), np.uint8)
FRAMES[:, :, :24] = (200, 40, 40)
METADATA = {"schema_version": 1, "settings": {"prompt": 'ein "Fuchs" läuft; 狐\n#=\\', "seed": 7}}


def test_a_round_trip_through_a_real_file(tmp_path):
    path = write_mp4(tmp_path / "new" / "out.mp4", FRAMES, 16, METADATA)
    assert read_metadata(path) == METADATA
    frames = read_frames(path)
    assert frames.shape == FRAMES.shape
    assert np.abs(frames[:, 8:24, 4:20].astype(int) - (200, 40, 40)).mean() < 12
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.pix_fmt, int(stream.average_rate)) == ("h264", "yuv420p", 16)
    content = path.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")  # playable while it loads
    assert [entry.name for entry in path.parent.iterdir()] == ["out.mp4"]


def test_the_same_frames_are_written_alike_each_time(tmp_path):
    wave = np.linspace(0, 3, 64)[:, None] + np.linspace(0, 5, 64)[None]
    colors = [np.stack([100 + 90 * np.sin(wave + k * 0.3 + c) for c in range(3)], -1) for k in range(17)]
    frames = np.stack(colors).astype(np.uint8)
    frames[:, 20:40, 20:40] = (220, 30, 30)
    written = {write_mp4(tmp_path / f"{number}.mp4", frames, 16, METADATA).read_bytes() for number in range(6)}
    assert len(written) == 1


@pytest.mark.parametrize(
    "frames", [FRAMES[0], FRAMES[:0], FRAMES.astype(np.float32), FRAMES[:, :31], FRAMES[:, :, :47], FRAMES[..., :1]]
)
def test_frames_that_cannot_be_written(tmp_path, frames):
    with pytest.raises(MediaError):
        write_mp4(tmp_path / "out.mp4", frames, 16, {})
    assert not list(tmp_path.iterdir())


def test_unreadable_files(tmp_path):
    path = tmp_path / "x.mp4"
    path.write_bytes(b"no video")
    for read in (read_frames, read_metadata):
        with pytest.raises(MediaError, match=r"x\.mp4"):
            read(path)
    with pytest.raises(MediaError):
        read_metadata(tmp_path / "none.mp4")
    with pytest.raises(MediaError, match="written"):
        write_mp4(path / "below" / "out.mp4", FRAMES, 16, {})


class Stop(BaseException):
    """What no `except Exception` sees, as Ctrl-C."""


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (OSError(28, "No space left on device"), MediaError),
        (av.FFmpegError(28, "No space left on device"), MediaError),
        (MemoryError(), MediaError),
        (RuntimeError("a codec that fails"), MediaError),
        (KeyboardInterrupt(), KeyboardInterrupt),
        (Stop(), Stop),
    ],
)
def test_nothing_is_left_of_a_video_that_cannot_be_written(tmp_path, monkeypatch, error, raised):
    reserved = free_name(tmp_path, "reserved")

    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr("reeltune.media.mp4.av.open", fail)
    with pytest.raises(raised):
        write_mp4(reserved, FRAMES, 16, {})
    assert not list(tmp_path.iterdir())


def test_frames_that_cannot_be_written_leave_no_reserved_name(tmp_path):
    with pytest.raises(MediaError):
        write_mp4(free_name(tmp_path, "reserved"), FRAMES[:, :31], 16, {})
    assert not list(tmp_path.iterdir())


def test_a_video_of_the_same_name_stays_when_the_new_one_fails(tmp_path, monkeypatch):
    path = write_mp4(tmp_path / "x.mp4", FRAMES, 16, {"a": 1})
    with pytest.raises(MediaError):
        write_mp4(path, FRAMES[:, :31], 16, {})
    assert read_metadata(path) == {"a": 1}


@pytest.mark.parametrize(
    "prompt",
    [
        "a \ud800 fox",
        "\udcff",
        "\udfff\ud800",
        os.fsdecode(b"a \xff\xfe fox"),
        "\0 \x1b[31m \u2028 \U0001f98a \uffff",
        "x" * 500_000,
    ],
)
def test_no_text_costs_a_video_its_metadata(tmp_path, prompt):
    metadata = {"settings": {"prompt": prompt, prompt[:9]: [prompt[:9]]}}
    reports = []
    path = write_mp4(tmp_path / "x.mp4", FRAMES, 16, metadata, reports.append)
    assert not reports
    stored = read_metadata(path)["settings"]
    assert stored["prompt"] == clean_text(prompt)
    assert stored[clean_text(prompt[:9])] == [clean_text(prompt[:9])]


class Odd:
    def __str__(self):
        raise ValueError("it has no text")


@pytest.mark.parametrize(
    "metadata", [{("a", "b"): 1}, {"odd": Odd()}, {"prompt": "x" * 5_000_000}], ids=["key", "value", "size"]
)
def test_metadata_that_cannot_be_embedded_costs_no_video(tmp_path, metadata):
    reports = []
    path = write_mp4(tmp_path / "x.mp4", FRAMES, 16, metadata, reports.append)
    assert len(read_frames(path)) == 9
    assert read_metadata(path) is None
    assert len(reports) == 1
    assert "x.mp4 was written without its settings" in reports[0]
    with pytest.warns(UserWarning, match="without its settings"):
        write_mp4(tmp_path / "y.mp4", FRAMES, 16, metadata)


def test_metadata_that_goes_round_in_circles_costs_no_video(tmp_path):
    circle: dict = {}
    circle["self"] = circle
    reports = []
    write_mp4(tmp_path / "x.mp4", FRAMES, 16, circle, reports.append)
    assert len(reports) == 1


def test_a_writer_that_refuses_the_metadata_costs_no_video(tmp_path, monkeypatch):
    whole = mp4._encode

    def refuse(path, frames, fps, comment, sound):
        if comment:
            raise UnicodeEncodeError("utf-8", "x", 0, 1, "refused")
        whole(path, frames, fps, comment, sound)

    monkeypatch.setattr(mp4, "_encode", refuse)
    reports = []
    path = write_mp4(tmp_path / "x.mp4", FRAMES, 16, {"a": 1}, reports.append)
    assert len(read_frames(path)) == 9
    assert "UnicodeEncodeError" in reports[0]


def test_names_that_are_not_utf_8_or_look_like_protocols_are_written_and_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in (
        "a:b.mp4",
        "concat:x|y.mp4",
        os.fsdecode(b"\xff\xfe.mp4"),
        "%03d.mp4",
        "x" * 250 + ".mp4",
        "狐" * 80 + ".mp4",
    ):
        path = write_mp4(Path(name), FRAMES, 16, {"name": name})
        assert read_metadata(path) == {"name": clean_text(name)}
        assert len(read_frames(path)) == 9
        with pytest.raises(MediaError) as caught:
            read_image(path)
        caught.value.message.encode("utf-8")


@pytest.mark.parametrize("tag", [b"fo\xffx", b"\xff\xfe\xfd\xfc", b"\0\0\0\0", b"[[[["])
def test_a_tag_that_is_not_utf_8_costs_nothing_else(tmp_path, tag):
    path = write_mp4(tmp_path / "x.mp4", FRAMES, 16, {"a": "MARK"})
    path.write_bytes(path.read_bytes().replace(b"MARK", tag))
    read_metadata(path)
    assert len(read_frames(path)) == 9
    assert len(read_clip(path, 5, 16, (48, 32)).frames) == 5


def test_deep_nesting_and_endless_numbers_in_a_tag_are_harmless(tmp_path):
    for text, value in (
        ("[" * 100_000, None),
        ('{"a": ' * 500 + "1" + "}" * 500, None),
        ('{"a": 1%s}' % ("0" * 310), {"a": "1" + "0" * 310}),
    ):
        assert read_metadata(tagged(tmp_path / "x.mp4", {"comment": text})) == value


def tagged(path, tags, **options):
    """A short video with tags as another program writes them."""
    with av.open(str(path), "w", **options) as container:
        container.metadata.update(tags)
        stream = container.add_stream("mpeg4", rate=8)
        stream.width = stream.height = 32
        container.mux(stream.encode(av.VideoFrame(32, 32, "yuv420p")))
        container.mux(stream.encode())
    return path


def test_other_programs_comments_are_not_ours(tmp_path):
    for comment in ("made with love", "[1]", "", "{", "{'a': 1}", "\ufeff"):
        path = tagged(tmp_path / "o.mp4", {"comment": comment})
        assert read_metadata(path) is None
        assert read_origin(path) is None


def test_names_never_collide_and_suit_every_file_system(tmp_path):
    names = [free_name(tmp_path, "a: b/../c?").name for _ in range(3)]
    assert names == ["a_bc.mp4", "a_bc_2.mp4", "a_bc_3.mp4"]
    assert free_name(tmp_path, "///").name == "video.mp4"
    assert free_name(tmp_path, "2026 t2v_1.3B seed 7").name == "2026_t2v_1.3B_seed_7.mp4"
    assert free_name(tmp_path, "..hidden. ").name == "hidden.mp4"
    assert free_name(tmp_path, "küche 狐").name == "küche_狐.mp4"
    assert free_name(tmp_path, "con").name == "video_con.mp4"
    assert free_name(tmp_path, "NUL.x").name == "video_NUL.x.mp4"
    assert free_name(tmp_path, "console").name == "console.mp4"
    assert free_name(tmp_path, "狐" * 500).name.encode()
    assert free_name(tmp_path, "a\ud800\udcffb\0").name == "ab.mp4"
    assert len(free_name(tmp_path, "x" * 500).name) < 100
