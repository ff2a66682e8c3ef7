"""Frames of a control video are those of their moments, however the video's frame rate varies."""

from fractions import Fraction
from itertools import pairwise
from random import Random

import av
import numpy as np
import pytest

from reeltune.media.inputs import read_clip
from reeltune.media.timing import TimedFrame, sample_frames, timed_frames

BITS, SIDE = 8, 16


def barcode(number):
    """A picture that shows a number in a way that survives any codec."""
    bars = [255 * (number >> bit & 1) for bit in range(BITS)]
    return np.repeat(np.array(bars, np.uint8), SIDE)[None, :, None].repeat(32, 0).repeat(3, 2)


def number_of(picture):
    row = np.asarray(picture)[16, :, 1].reshape(BITS, SIDE)[:, SIDE // 4 : -SIDE // 4].mean(1)
    return sum(1 << bit for bit, value in enumerate(row) if value > 127)


def write(path, stamps, *, codec="libx264", rate=30, options=None, container=None):
    """A video whose n-th frame shows n and has the n-th stamp, in milliseconds."""
    with av.open(str(path), "w", options=container or {}) as file:
        stream = file.add_stream(codec, rate=rate)
        stream.width, stream.height = BITS * SIDE, 32
        stream.pix_fmt = {"gif": "rgb8"}.get(codec, "yuv420p")
        stream.codec_context.time_base = Fraction(1, 100 if codec == "gif" else 1000)
        stream.options = options or {}
        for number, stamp in enumerate(stamps):
            frame = av.VideoFrame.from_ndarray(barcode(number), format="rgb24")
            frame.time_base = Fraction(1, 100 if codec == "gif" else 1000)
            frame.pts = stamp // 10 if codec == "gif" else stamp
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return path


def distances(clip, stamps, fps):
    """Seconds between each frame that was taken and its moment."""
    numbers = [number_of(picture) for picture in clip.frames]
    return [abs((stamps[number] - stamps[0]) / 1000 - moment / fps) for moment, number in enumerate(numbers)]


def varying(seed, count, shortest, longest, start=0):
    random = Random(seed)
    stamps = [start]
    for _ in range(count - 1):
        stamps.append(stamps[-1] + random.randint(shortest, longest) // 10 * 10)
    return stamps


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("plain.mp4", "libx264", {"bf": "0"}),
        ("b-frames.mp4", "libx264", {"bf": "3", "b_strategy": "0"}),
        ("phone.mov", "mpeg4", {}),
        ("web.webm", "libvpx-vp9", {"deadline": "realtime", "cpu-used": "8"}),
        ("any.mkv", "libx264", {}),
        ("animated.gif", "gif", {}),
        ("camera.ts", "libx264", {}),
    ],
)
@pytest.mark.parametrize("start", [0, 5000])
def test_frames_of_a_variable_rate_are_at_most_half_an_interval_from_their_moment(
    tmp_path, name, codec, options, start
):
    stamps = varying(name, 120, 10, 60, start)
    path = write(tmp_path / name, stamps, codec=codec, options=options)
    clip = read_clip(path, 50, 16, (BITS * SIDE, 32))
    assert len(clip.frames) == 50
    assert max(distances(clip, stamps, 16)) <= 0.5 / 16 + 0.001
    assert clip.more


def test_a_picture_that_shows_for_long_is_repeated_for_as_long(tmp_path):
    stamps = [0, 40, 80, 1680, 1720, 3320, 3360]  # a recording of a screen on which little moves
    clip = read_clip(write(tmp_path / "x.mp4", stamps), 200, 16, (BITS * SIDE, 32))
    numbers = [number_of(picture) for picture in clip.frames]
    shown = [max(n for n, stamp in enumerate(stamps) if stamp < 62.5 * k + 31.25) for k in range(len(numbers))]
    assert numbers == shown
    assert len(numbers) == pytest.approx(54, abs=1)
    assert not clip.more


def test_the_average_rate_of_the_whole_decides_nothing(tmp_path):
    stamps = [*range(0, 1000, 20), *range(1000, 9000, 100)]  # 50 frames a second, then 10: 14 on average
    clip = read_clip(write(tmp_path / "x.mp4", stamps), 32, 16, (BITS * SIDE, 32))
    assert max(distances(clip, stamps, 16)[:16]) <= 0.5 / 16


@pytest.mark.parametrize("name", ["x.mp4", "x.mkv", "x.avi"])
@pytest.mark.parametrize(
    ("rate", "fps", "taken"),
    [
        (16, 16, range(9)),
        (32, 16, range(0, 18, 2)),
        (8, 16, [k // 2 for k in range(9)]),
        (24, 16, [0, 2, 3, 5, 6, 8, 9, 11, 12]),
    ],
)
def test_a_constant_rate_gives_even_steps(tmp_path, name, rate, fps, taken):
    stamps = [round(1000 * number / rate) for number in range(20)]
    clip = read_clip(write(tmp_path / name, stamps, rate=rate, codec="mpeg4"), 9, fps, (BITS * SIDE, 32))
    assert [number_of(picture) for picture in clip.frames] == list(taken)


def test_frames_before_the_start_of_a_video_are_not_shown(tmp_path):
    stamps = list(range(-200, 800, 40))  # an edit list leaves the first ones out
    path = write(
        tmp_path / "x.mp4", stamps, container={"avoid_negative_ts": "disabled"}, options={"bf": "0", "g": "100"}
    )
    clip = read_clip(path, 10, 25, (BITS * SIDE, 32))
    numbers = [number_of(picture) for picture in clip.frames]
    assert numbers == list(range(numbers[0], numbers[0] + 10))


class Frame:
    def __init__(self, pts, duration=None):
        self.pts, self.duration, self.time_base = pts, duration, Fraction(1, 1000)


@pytest.mark.parametrize(
    ("stamps", "starts"),
    [
        ([None] * 4, [0, 0.1, 0.2, 0.3]),
        ([None, None, 500, 600], [0, 0.1, 0.2, 0.3]),
        ([500, None, 700, 710], [0, 0.1, 0.2, 0.21]),
        ([7, 7, 7], [0, 0.1, 0.2]),
        ([-300, -200, 0], [0, 0.1, 0.3]),
        ([0, 100, 90, 300], [0, 0.1, 0.2, 0.3]),
        ([9000, 9100, 0, 100], [0, 0.1, 0.2, 0.3]),  # joined, or wrapped around
        ([2**62, 2**62 + 100], [0, 0.1]),
    ],
)
def test_frames_without_a_useful_stamp_follow_at_the_average_rate(stamps, starts):
    found = [row.start for row in timed_frames([Frame(stamp) for stamp in stamps], 10)]
    assert found == pytest.approx(starts, abs=1 if max(map(abs, filter(None, stamps)), default=0) > 2**60 else 1e-9)
    assert all(earlier < later for earlier, later in pairwise(found))


def test_pictures_are_made_once_and_only_of_frames_that_are_taken():
    made = []

    def picture(frame):
        made.append(frame)
        return frame

    frames = [TimedFrame(n, n / 100, (n + 1) / 100) for n in range(100)]
    assert sample_frames(iter(frames), 4, 10, picture) == ([4, 14, 24, 34], True)
    assert made == [4, 14, 24, 34]
    assert sample_frames(iter(frames[:1]), 4, 10, picture) == ([0], False)
    assert sample_frames(iter([]), 4, 10, picture) == ([], False)
    still = [TimedFrame("still", 0.0, 1e300)]
    assert sample_frames(iter(still), 4, 10, picture) == (["still"] * 4, False)
