"""Inputs that don't suit Wan's relatives, Hunyuan Video 1.5 and Kandinsky 5: typed errors or notices, never silence."""

import shutil
from dataclasses import replace

import av
import numpy as np
import pytest
from cases import MOTION, REPLACED, write_case
from PIL import Image

from reeltune import Engine, Notice, Preferences
from reeltune.cli.app import main
from reeltune.errors import GenerationError, MediaError, ReeltuneError, SettingsError
from reeltune.media.mp4 import write_mp4

ONE = np.full((1, 32, 32, 3), 200, np.uint8)


def make(definition, settings):
    """The frames, and what was said."""
    heard = []
    with Engine(definition, preferences=Preferences(quantization="bf16"), listener=heard.append) as engine:
        frames = engine.generate(**settings).frames
    return frames, " ".join(event.message for event in heard if isinstance(event, Notice))


def empty_video(path):
    """An MP4 file that has a video stream, and no frame in it."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=16)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        container.start_encoding()
    return path


VIDEOS = {
    "lucy_edit": ("video_guide",), "animate": ("video_guide", "video_guide2"),
    "animate, replaced": ("video_guide", "video_guide2", "custom_guide", "video_mask"),
}  # fmt: skip


@pytest.mark.parametrize("name", VIDEOS)
def test_a_video_of_one_frame_is_held(name, root, define, parts):
    definition, settings = write_case(name, root, define, parts)
    write_mp4(root / "one.mp4", ONE, definition.architecture.frame_rate, {})
    frames, said = make(definition, settings | dict.fromkeys(VIDEOS[name], "one.mp4"))
    assert frames.shape == (settings["video_length"], 32, 32, 3)
    for key in VIDEOS[name]:
        assert f"{key} has 1 frames of {settings['video_length']}: its last one is used for the rest." in said


@pytest.mark.parametrize("name", VIDEOS)
def test_videos_without_frames_are_refused(name, root, define, parts):
    definition, settings = write_case(name, root, define, parts)
    empty_video(root / "none.mp4")
    (root / "nothing.mp4").write_bytes(b"")
    (root / "text.mp4").write_text("no video")
    (root / "cut.mp4").write_bytes((root / "guide.mp4").read_bytes()[:300])
    for key in VIDEOS[name]:
        for file in ("none.mp4", "nothing.mp4", "text.mp4", "cut.mp4", "start.png"):
            with pytest.raises(MediaError) as caught:
                make(definition, settings | {key: file})
            assert file in caught.value.message
            assert caught.value.hint


def test_a_mask_of_another_size_and_length_is_fitted_aloud(root, define, parts):
    definition, settings = write_case("animate, replaced", root, define, parts)
    write_mp4(root / "wide.mp4", np.zeros((3, 40, 96, 3), np.uint8), 60, {})
    write_mp4(root / "long.mp4", np.zeros((40, 64, 64, 3), np.uint8), 30, {})
    frames, said = make(definition, settings | {"video_mask": "wide.mp4", "custom_guide": "long.mp4"})
    assert frames.shape == (13, 32, 32, 3)
    assert "video_mask of 96x40 is scaled to 32x32, 56 pixels of its width cut off" in said
    assert "video_mask has 60 frames a second: 30 are taken of each" in said
    assert "video_mask has 2 frames of 13: its last one is used for the rest." in said
    assert "custom_guide is longer than the video: its first 13 frames are used." in said


def test_one_character_is_animated(root, define, parts):
    definition, settings = write_case("animate", root, define, parts)
    with pytest.raises(SettingsError, match="image_refs has 2 files; the limit is 1") as caught:
        make(definition, settings | {"image_refs": ["start.png", "end.png"]})
    assert caught.value.hint == "Use an image."
    with pytest.raises(SettingsError, match=r"start\.png, end\.png' doesn't exist"):
        make(definition, settings | {"image_refs": "start.png, end.png"})


REQUIRED = {
    "lucy_edit": ("video_guide",), "animate": tuple(MOTION), "chrono_edit": ("image_start",),
    "hunyuan_1_5_i2v": ("image_start",), "k5_lite_i2v": ("image_start",), "k5_pro_i2v": ("image_start",),
}  # fmt: skip


@pytest.mark.parametrize("name", REQUIRED)
def test_missing_inputs_are_named_with_the_option_that_gives_them(name, root, define, parts):
    definition, settings = write_case(name, root, define, parts)
    for key in REQUIRED[name]:
        for value in ("", None, []):
            with pytest.raises(SettingsError, match=f"{definition.architecture.id} needs {key}") as caught:
                make(definition, settings | {key: value})
            assert f"--{key.replace('_', '-')} FILE" in caught.value.hint
        for value in ("gone.mp4", ".", "a\0b", "x" * 5000, 5, {"a": 1}, [["start.png"]]):
            with pytest.raises(ReeltuneError) as error:
                make(definition, settings | {key: value})
            assert error.value.hint


def test_inputs_that_contradict_each_other(root, define, parts):
    definition, settings = write_case("sky_df_14B, image", root, define, parts)
    with pytest.raises(SettingsError, match="model_mode=5 can't be used with image_start") as caught:
        make(definition, settings | {"model_mode": 5})
    assert "model_mode=0" in caught.value.hint
    definition, settings = write_case("lucy_edit", root, define, parts)
    with pytest.raises(SettingsError, match="lucy_edit does not accept image_start"):
        make(definition, settings | {"image_start": "start.png"})
    definition, settings = write_case("k5_lite_t2v", root, define, parts)
    with pytest.raises(SettingsError, match="k5_lite_t2v does not accept video_guide"):
        make(definition, settings | {"video_guide": "guide.mp4"})
    definition, settings = write_case("animate", root, define, parts)
    for key in ("custom_guide", "video_mask"):
        with pytest.raises(SettingsError, match=f"{key} needs a"):
            make(definition, settings | {key: REPLACED[key]})


def test_an_image_can_be_any_image(root, define, parts):
    """One pixel, a very wide one, and one with transparent parts."""
    for name in ("chrono_edit", "hunyuan_1_5_i2v", "k5_lite_i2v"):
        definition, settings = write_case(name, root, define, parts)
        for mode, size in (("RGB", (1, 1)), ("L", (2000, 1)), ("RGBA", (33, 65))):
            Image.new(mode, size).save(root / "odd.png")
            frames, said = make(definition, settings | {"image_start": "odd.png", "num_inference_steps": 1})
            assert frames.shape[1:] == (32, 32, 3)
            assert f"image_start of {size[0]}x{size[1]} is scaled to 32x32" in said


def exit_status(root, *words):
    """That of a command."""
    try:
        main([*words, "--root", str(root)])
    except SystemExit as end:
        return end.code
    return 0


def test_an_image_is_no_mp4_file_and_a_video_no_png(root, define, parts, capsys):
    write_case("chrono_edit", root, define, parts)
    image = str(root / "start.png")
    (root / "x").mkdir()
    for name, words in (
        ("out.mp4", "doesn't end in .png: mine makes images, which are written as PNG files only"),
        ("out", "doesn't end in .png"),
        ("x", "is a folder"),
    ):
        assert exit_status(root, "generate", "mine", "--image-start", image, "-o", str(root / name)) != 0
        shown = " ".join(capsys.readouterr().err.split())
        assert words in shown
        assert "Traceback" not in shown
    assert not list(root.glob("out*"))
    write_case("k5_lite_t2v", root, define, parts)
    assert exit_status(root, "generate", "mine", "-o", str(root / "out.png")) != 0
    assert "doesn't end in .mp4: videos are written as MP4 files only" in " ".join(capsys.readouterr().err.split())


def test_latents_of_an_image_are_decoded_to_an_image(root, define, parts, capsys):
    definition, settings = write_case("chrono_edit", root, define, parts)
    with Engine(definition, preferences=Preferences(quantization="bf16")) as engine:
        video = engine.generate(**settings)
        video.keep_latents()
        latents = str(video.latents)
    assert exit_status(root, "decode", latents, "-o", str(root / "out.mp4")) != 0
    assert "doesn't end in .png" in " ".join(capsys.readouterr().err.split())
    assert exit_status(root, "decode", latents, "-o", str(root / "out.png")) == 0
    with Image.open(root / "out.png") as image:
        assert image.size == (32, 32)


def test_a_tokenizer_without_a_template_is_named(root, define, parts):
    definition, settings = write_case("hunyuan_1_5_t2v", root, define, parts)
    copied = root / "parts"
    shutil.copytree(definition.components, copied)
    (copied / "tokenizer" / "chat_template.jinja").unlink()
    with pytest.raises(GenerationError, match="has no chat template"):
        make(replace(definition, components=str(copied)), settings)
