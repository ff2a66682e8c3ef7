"""What videos and images tell of how they were made, by this program and by WanGP, of whatever date and container."""

import gc
import json

import av
import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from reeltune.errors import MediaError, SettingsError
from reeltune.events import Notice
from reeltune.media import mp4
from reeltune.media.origin import Origin, read_origin, read_stored
from reeltune.media.tags import read_metadata
from reeltune.media.video import Video

FRAMES = np.zeros((5, 32, 32, 3), np.uint8)
WANGP = {
    "type": "WanGP v10.61 by DeepBeepMeep - text to video", "settings_version": 2.74, "model_type": "t2v_1.3B",
    "base_model_type": "t2v_1.3B", "prompt": "ein Fuchs, 狐", "resolution": "832x480", "video_length": 81, "seed": 1234,
    "num_inference_steps": 30, "guidance_scale": 5, "flow_shift": 5.0, "creation_date": "2026-08-01T10:00:00",
    "generation_time": "123s", "NAG_scale": 1, "activated_loras": [],
}  # fmt: skip
ORIGIN = Origin(
    "nano_t2v", "t2v_1.3B", "reeltune 1", {"prompt": "x", "seed": 7}, {"transformer": ("a.safetensors", None)}
)


def video(path, tags, codec="mpeg4", **options):
    with av.open(str(path), "w", **options) as container:
        container.metadata.update(tags)
        stream = container.add_stream(codec, rate=8)
        stream.width = stream.height = 32
        container.mux(stream.encode(av.VideoFrame(32, 32, "yuv420p")))
        container.mux(stream.encode())
    return path


def image(path, text):
    """An image with settings where WanGP puts them."""
    picture = Image.new("RGB", (32, 32))
    if path.suffix == ".png":
        info = PngInfo()
        info.add_text("comment", text)
        picture.save(path, pnginfo=info)
    elif path.suffix == ".jpg":
        picture.save(path, comment=text.encode("utf-8"))
    else:
        picture.save(path, exif=exif(b"UNICODE\0" + text.encode("utf-16-le")))
    return path


def exif(comment):
    data = Image.Exif()
    data.get_ifd(0x8769)[0x9286] = comment
    return data


@pytest.mark.parametrize("name", ["x.mp4", "x.mov", "x.mkv", "x.avi", "x.webm", "x.png", "x.jpg", "x.webp"])
def test_wangps_videos_and_images_are_read_back(tmp_path, name):
    text = json.dumps(WANGP, ensure_ascii=False)
    path = tmp_path / name
    if path.suffix in (".png", ".jpg", ".webp"):
        image(path, text)
    else:
        video(path, {"comment": text}, "libvpx" if name == "x.webm" else "mpeg4")
    origin = read_origin(path)
    assert origin is not None
    assert (origin.definition, origin.architecture) == ("t2v_1.3B", "t2v_1.3B")
    assert origin.program.startswith("WanGP")
    assert origin.settings["prompt"] == "ein Fuchs, 狐"
    assert (origin.settings["seed"], origin.settings["video_length"]) == (1234, 81)
    assert "generation_time" not in origin.settings


@pytest.mark.parametrize("comment", [b"ASCII\0\0\0%s", b"UNICODE\0%s", b"%s"])
def test_every_encoding_of_exif_is_read(tmp_path, comment):
    text = '{"model_type": "t2v",\n "seed": 3}'
    for encoded in ("utf-8", "utf-16-le", "utf-16-be"):
        if (encoded != "utf-8") == comment.startswith(b"UNICODE"):
            Image.new("RGB", (8, 8)).save(tmp_path / "x.jpg", exif=exif(comment % text.encode(encoded)))
            assert read_origin(tmp_path / "x.jpg").settings["seed"] == 3


@pytest.mark.parametrize("key", ["comment", "COMMENT", "description", "title", "parameters"])
def test_settings_are_found_whatever_the_tag_is_called(tmp_path, key):
    path = video(tmp_path / "x.mkv", {"encoder": "{}", key: json.dumps(WANGP)})
    assert read_origin(path).definition == "t2v_1.3B"


def test_old_files_without_a_models_name_are_told_by_their_keys(tmp_path):
    old = {key: value for key, value in WANGP.items() if key not in ("model_type", "type")}
    origin = read_origin(video(tmp_path / "x.mp4", {"comment": json.dumps(old)}))
    assert (origin.definition, origin.settings["seed"]) == ("", 1234)


@pytest.mark.parametrize("other", [{"prompt": {"3": {"class_type": "KSampler"}}, "workflow": {}}, {"a": 1}, {}])
def test_other_programs_objects_are_not_settings(tmp_path, other):
    path = video(tmp_path / "x.mp4", {"comment": json.dumps(other)})
    assert read_metadata(path) == other
    assert read_origin(path) is None


def test_odd_values_are_left_out_and_the_rest_counts(tmp_path):
    odd = WANGP | {"seed": "1e999", "resolution": [], "prompt": "a \ud800", "of_later": {"a": [1]}}
    origin = read_origin(video(tmp_path / "x.mp4", {"comment": json.dumps(odd)}))
    assert origin.settings["prompt"] == "a \ufffd"
    assert origin.settings["video_length"] == 81
    assert {"seed", "resolution"}.isdisjoint(origin.settings)
    odd = {
        "definition": 1,
        "architecture": [],
        "settings": {"seed": 3},
        "files": {"a": 1, "b": {"name": 2, "sha256": 3}},
    }
    origin = read_origin(video(tmp_path / "x.mp4", {"comment": json.dumps(odd)}))
    assert (origin.definition, dict(origin.settings), origin.files) == ("", {"seed": 3}, {"b": ("", None)})


def test_a_round_trip_of_a_saved_video(tmp_path):
    path = Video(FRAMES, 16, ORIGIN).save(tmp_path / "x.mp4")
    assert read_origin(path) == ORIGIN


def test_what_holds_no_settings_or_cannot_be_read(tmp_path):
    assert read_origin(image(tmp_path / "x.png", "made with love")) is None
    (tmp_path / "x.txt").write_text("text", "utf-8")
    with pytest.raises(MediaError, match="is a text file, not a video or an image"):
        read_origin(tmp_path / "x.txt")
    with pytest.raises(MediaError, match="doesn't exist"):
        read_origin(tmp_path / "absent.mp4")
    (tmp_path / "x.png").write_bytes((tmp_path / "x.png").read_bytes()[:20])
    with pytest.raises(MediaError, match="damaged"):
        read_origin(tmp_path / "x.png")


def test_settings_files_are_told_by_content(tmp_path):
    path = tmp_path / "x.mp4"
    path.write_text(json.dumps(WANGP | {"prompt": "<svg>"}), "utf-8")
    origin = read_stored(path)
    assert (origin.definition, origin.settings["seed"]) == ("t2v_1.3B", 1234)
    for content, error in (("{", SettingsError), ("text", MediaError), ("[1]", MediaError), ("", MediaError)):
        path.write_text(content, "utf-8")
        with pytest.raises(error):
            read_stored(path)
    with pytest.raises(MediaError, match="contains no settings"):
        read_stored(video(path, {}))


class Stop(BaseException):
    pass


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), Stop(), KeyboardInterrupt()])
def test_latents_stay_whatever_keeps_a_video_from_being_written(tmp_path, monkeypatch, error):
    latents = tmp_path / "latents.safetensors"
    latents.write_bytes(b"x")
    made = Video(FRAMES, 16, ORIGIN, latents)

    def fail(*args):
        raise error

    monkeypatch.setattr(mp4, "_encode", fail)
    with pytest.raises((MediaError, Stop, KeyboardInterrupt)) as caught:
        made.save(tmp_path / "x.mp4")
    if isinstance(caught.value, MediaError):
        assert "reeltune decode" in caught.value.hint
    del made
    gc.collect()
    assert latents.exists()
    assert not (tmp_path / "x.mp4").exists()


def test_a_listener_hears_of_settings_that_are_not_inside(tmp_path):
    events = []
    odd = Origin("x", "y", "z", {("a", "b"): 1}, {})
    Video(FRAMES, 16, odd).save(tmp_path / "x.mp4", listener=events.append)
    assert [type(event) for event in events] == [Notice]
    assert "without its settings" in events[0].message
