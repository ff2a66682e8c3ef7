import av
import numpy as np
import pytest

from reeltune.errors import MediaError
from reeltune.media.mp4 import free_name, read_frames, read_metadata, write_mp4

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


def test_a_name_reserved_in_vain_is_freed(tmp_path, monkeypatch):
    reserved = free_name(tmp_path, "reserved")

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("reeltune.media.mp4.av.open", full)
    with pytest.raises(MediaError, match="No space left"):
        write_mp4(reserved, FRAMES, 16, {})
    assert not list(tmp_path.iterdir())


def test_other_programs_comments_are_not_ours(tmp_path):
    for comment in ("made with love", "[1]", ""):
        with av.open(str(tmp_path / "o.mp4"), "w") as container:
            container.metadata["comment"] = comment
            stream = container.add_stream("libx264", rate=8)
            stream.width = stream.height = 32
            container.mux(stream.encode(av.VideoFrame(32, 32, "yuv420p")))
            container.mux(stream.encode())
        assert read_metadata(tmp_path / "o.mp4") is None


def test_names_never_collide_and_suit_every_file_system(tmp_path):
    names = [free_name(tmp_path, "a: b/../c?").name for _ in range(3)]
    assert names == ["a_bc.mp4", "a_bc_2.mp4", "a_bc_3.mp4"]
    assert free_name(tmp_path, "///").name == "video.mp4"
    assert len(free_name(tmp_path, "x" * 500).name) < 100
