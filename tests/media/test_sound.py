"""Sound in MP4 files: what is written is heard at the right time, and is as long as the video."""

import av
import numpy as np
import pytest

from reeltune.errors import MediaError
from reeltune.media.mp4 import read_frames, write_mp4
from reeltune.media.sound import Sound

CLICK = 20  # the frame that is white and has the click


def clicking(rate=48_000, channels=2, fps=16, seconds=3.0):
    """A sound with a click that begins with the white frame."""
    samples = np.zeros((channels, int(rate * seconds)), np.float32)
    start = round(rate * CLICK / fps)
    samples[:, start : start + max(2, rate // 400)] = 0.9
    return Sound(samples, rate)


def frames(count=41):
    """Black frames and a white one."""
    pictures = np.zeros((count, 64, 64, 3), np.uint8)
    pictures[CLICK] = 255
    return pictures


def heard(path):
    """The decoded samples [channels, samples], their rate, and the time of the first one in seconds."""
    with av.open(str(path)) as container:
        parts = list(container.decode(audio=0))
        return np.concatenate([part.to_ndarray() for part in parts], 1), parts[0].sample_rate, parts[0].time


@pytest.mark.parametrize(
    "samples",
    [
        np.zeros(48_000, np.float32),
        np.zeros((3, 48_000), np.float32),
        np.zeros((48_000, 2), np.float32),
        np.zeros((2, 0), np.float32),
        np.zeros((2, 48_000), np.float64),
        np.zeros((2, 48_000), np.int16),
        np.full((2, 48_000), np.nan, np.float32),
        np.full((1, 48_000), np.inf, np.float32),
    ],
)
def test_what_is_no_sound(samples):
    with pytest.raises(MediaError, match="Sound must"):
        Sound(samples, 48_000)


def test_a_sound_knows_its_length():
    assert Sound(np.zeros((1, 24_000), np.float32), 48_000).seconds == 0.5
    with pytest.raises(MediaError, match="rate"):
        Sound(np.zeros((1, 24_000), np.float32), 0)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize(
    ("rate", "written"), [(48_000, 48_000), (24_000, 24_000), (44_100, 44_100), (47_999, 48_000), (192_000, 48_000)]
)
@pytest.mark.parametrize("fps", [16, 24])
def test_a_click_is_heard_with_its_frame(tmp_path, rate, written, channels, fps):
    path = write_mp4(tmp_path / "out.mp4", frames(), fps, {}, sound=clicking(rate, channels, fps))
    samples, decoded_rate, start = heard(path)
    assert (len(samples), decoded_rate, start) == (channels, written, 0)
    for channel in samples:
        click = np.argmax(np.abs(channel) > 0.5) / written
        assert click == pytest.approx(CLICK / fps, abs=0.002)
    assert read_frames(path)[:, 0, 0, 0].argmax() == CLICK
