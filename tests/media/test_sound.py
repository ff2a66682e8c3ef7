"""Sound in MP4 files: what is written is heard at the right time, and is as long as the video."""

import av
import numpy as np
import pytest

from reeltune.errors import MediaError
from reeltune.events import Notice
from reeltune.media.mp4 import read_frames, read_metadata, write_mp4
from reeltune.media.origin import Origin, read_origin
from reeltune.media.png import write_png
from reeltune.media.remuxing import copy_video
from reeltune.media.sound import Sound
from reeltune.media.soundtrack import sound_track
from reeltune.media.stills import sprite_sheet, thumbnail
from reeltune.media.video import Video

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
    pictures[CLICK : CLICK + 1] = 255
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


@pytest.mark.parametrize("seconds", [0.00001, 0.5, 2.5625, 3.0, 9.0])
def test_sound_is_as_long_as_the_video(tmp_path, seconds):
    """Shorter sound is followed by silence; longer sound is cut; the video's own length never changes."""
    loud = Sound(np.full((1, max(1, int(48_000 * seconds))), 0.5, np.float32), 48_000)
    path = write_mp4(tmp_path / "out.mp4", frames(), 16, {}, sound=loud)
    length = 41 / 16
    with av.open(str(path)) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        assert video.frames == 41
        assert (video.start_time, float(video.duration * video.time_base)) == (0, length)
        assert (audio.start_time, float(audio.duration * audio.time_base)) == (0, pytest.approx(length, abs=0.001))
        assert container.duration / av.time_base == pytest.approx(length, abs=0.001)
    samples, rate, _ = heard(path)
    assert samples.shape[1] / rate == pytest.approx(length, abs=1 / 16)
    silent = np.abs(samples[0, round(min(seconds, length) * rate) + 2048 :])
    assert silent.size == 0 or silent.max() < 0.05
    assert sound_track(path).seconds == pytest.approx(length, abs=0.001)


@pytest.mark.parametrize("rate", [8, 1_000, 192_000, 383_999])
def test_a_sample_of_any_rate_can_be_written(tmp_path, rate):
    path = write_mp4(tmp_path / "out.mp4", frames(3), 16, {}, sound=Sound(np.ones((2, 1), np.float32), rate))
    assert sound_track(path).rate == 48_000


def test_values_beyond_full_scale_are_limited(tmp_path):
    tone = 4 * np.sin(np.arange(48_000) / 30)[None].astype(np.float32)
    samples, _, _ = heard(write_mp4(tmp_path / "out.mp4", frames(16), 16, {}, sound=Sound(tone, 48_000)))
    assert np.abs(samples).max() < 1.5


def test_a_tone_is_kept_and_the_channels_stay_apart(tmp_path):
    time = np.arange(48_000) / 48_000
    samples = np.stack([0.5 * np.sin(2 * np.pi * 440 * time), np.zeros(48_000)]).astype(np.float32)
    decoded, rate, _ = heard(write_mp4(tmp_path / "out.mp4", frames(24), 24, {}, sound=Sound(samples, 48_000)))
    left, right = decoded[:, rate // 4 : rate * 3 // 4]
    assert np.argmax(np.abs(np.fft.rfft(left))) * rate / left.size == pytest.approx(440, abs=2)
    assert np.sqrt((left**2).mean()) == pytest.approx(0.5 / np.sqrt(2), rel=0.05)
    assert np.abs(right).max() < 0.02


def test_files_with_sound_have_all_that_silent_ones_have(tmp_path):
    written = {
        write_mp4(tmp_path / f"{number}.mp4", frames(), 16, {"a": "b"}, sound=clicking()).read_bytes()
        for number in range(4)
    }
    assert len(written) == 1  # the same bytes each time
    path = tmp_path / "0.mp4"
    content = path.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")
    assert read_metadata(path) == {"a": "b"}
    assert thumbnail(path)
    assert sprite_sheet(path)


@pytest.mark.parametrize("fps", [1, 2, 16])
def test_sound_and_frames_are_interleaved(tmp_path, fps):
    """No packet of sound is more than a second before or behind the frames beside it, so that players can stream."""
    count = 60 if fps < 16 else 200
    path = write_mp4(tmp_path / "out.mp4", frames(count), fps, {}, sound=clicking(fps=fps, seconds=60))
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux() if packet.dts is not None]
        packets.sort(key=lambda packet: packet.pos)  # as they lie in the file
        latest = {"video": 0.0, "audio": 0.0}
        for packet in packets:
            latest[packet.stream.type] = float(packet.dts * packet.time_base)
            assert abs(latest["video"] - latest["audio"]) < 1 + 3 / fps


def test_what_a_file_tells_about_its_sound(tmp_path):
    assert (
        str(sound_track(write_mp4(tmp_path / "a.mp4", frames(40), 8, {}, sound=clicking())))
        == "AAC, 48 kHz, stereo, 5.0 s"
    )
    mono = write_mp4(tmp_path / "b.mp4", frames(24), 24, {}, sound=clicking(22_050, 1))
    assert str(sound_track(mono)) == "AAC, 22.05 kHz, mono, 1.0 s"
    assert sound_track(write_mp4(tmp_path / "c.mp4", frames(24), 24, {})) is None
    assert sound_track(write_png(tmp_path / "d.png", frames(1)[0], {}, pytest.fail)) is None
    (tmp_path / "e.mp4").write_bytes(mono.read_bytes()[:-100])
    assert sound_track(tmp_path / "e.mp4").channels == 1
    (tmp_path / "f.mp4").write_text("nothing")
    with pytest.raises(MediaError, match="text file"):
        sound_track(tmp_path / "f.mp4")


# --- videos, and copies of them ---------------------------------------------------------------------------------


def video(count=41, **values):
    origin = Origin("nano_t2v", "t2v_1.3B", "reeltune", {"prompt": "a fox", "seed": 1}, {})
    return Video(frames(count), 16, origin, **{"sound": clicking(), **values})


def test_a_video_is_saved_with_its_sound(tmp_path):
    path = video().save(tmp_path / "out.mp4")
    assert sound_track(path).channels == 2
    assert read_origin(path).settings["prompt"] == "a fox"
    assert sound_track(video(sound=None).save(tmp_path / "silent.mp4")) is None


def test_an_image_has_no_sound_and_a_notice_says_so(tmp_path):
    notices = []
    picture = video(1, image=True)
    path = picture.save(tmp_path / "out.png", listener=notices.append)
    assert notices == [Notice(f"{path} is an image, which has no sound.")]
    notices.clear()
    video(1, image=True, sound=None).save(tmp_path / "silent.png", listener=notices.append)
    assert notices == []


@pytest.mark.parametrize("rate", [48_000, 24_000])
def test_a_copy_with_other_tags_sounds_the_same(tmp_path, rate):
    source = video(sound=clicking(rate)).save(tmp_path / "out.mp4")
    copies = [tmp_path / "one.mp4", tmp_path / "two.mp4"]
    for copy in copies:
        copy_video(source, copy, {"other": 1})
    assert copies[0].read_bytes() == copies[1].read_bytes()
    assert read_metadata(copies[0]) == {"other": 1}
    assert b"a fox" not in copies[0].read_bytes()
    before, after = heard(source), heard(copies[0])
    assert after[1:] == before[1:]
    np.testing.assert_array_equal(after[0], before[0])
    assert sound_track(copies[0]) == sound_track(source)
    np.testing.assert_array_equal(read_frames(copies[0]), read_frames(source))


def with_sound_in(path, codec, container, **tags):
    """A video of another program with sound in a codec."""
    with av.open(str(path), "w", format=container) as written:
        picture = written.add_stream("mpeg4", rate=8)
        picture.width = picture.height = 32
        sound = written.add_stream(codec, rate=48_000)
        sound.layout = "stereo"
        sound.metadata.update(tags)
        for number in range(16):
            frame = av.VideoFrame(32, 32, "yuv420p")
            frame.pts = number
            written.mux(picture.encode(frame))
        written.mux(picture.encode())
        samples = av.AudioFrame.from_ndarray(np.zeros((2, 96_000), np.float32), format="fltp", layout="stereo")
        samples.sample_rate = 48_000
        written.mux(sound.encode(samples))
        written.mux(sound.encode())
    return path


def test_sound_of_other_programs_is_copied_where_mp4_supports_it(tmp_path):
    ac3 = with_sound_in(tmp_path / "a.mkv", "ac3", "matroska", title="PRIVATE", handler_name="PRIVATE")
    copy_video(ac3, tmp_path / "a.mp4", {})
    assert sound_track(tmp_path / "a.mp4").codec == "AC3"
    assert b"PRIVATE" not in (tmp_path / "a.mp4").read_bytes()
    wavpack = with_sound_in(tmp_path / "b.mkv", "wavpack", "matroska")
    copy_video(wavpack, tmp_path / "b.mp4", {})
    assert sound_track(wavpack).codec == "WAVPACK"
    assert sound_track(tmp_path / "b.mp4") is None
    assert len(read_frames(tmp_path / "b.mp4")) == 16
