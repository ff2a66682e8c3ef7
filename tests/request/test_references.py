"""The clip of reference images: its order, its frames, its letters, and what is refused."""

from itertools import groupby

import pytest
from PIL import Image

from reeltune import load_catalog
from reeltune.engine.inputs import read_inputs
from reeltune.engine.reporting import Reporter
from reeltune.errors import NotRunnable, SettingsError
from reeltune.request.parse import parse
from reeltune.request.references import extra_latent_frames

NAMES = ("place.png", "one.png", "two.png", "three.png", "four.png", "five.png")
COLORS = ("green", "red", "blue", "yellow", "black", "gray")


@pytest.fixture
def request_of(root):
    """A request of a built-in definition with so many images, the background first."""
    for name, color in zip(NAMES, COLORS, strict=True):
        Image.new("RGB", (64, 64), color).save(root / name)
    catalog = load_catalog(root)

    def build(id, count, letters="KI", **settings):
        settings = {"image_refs": list(NAMES[:count]), "video_prompt_type": letters, "seed": 1} | settings
        return parse(catalog[id], settings).requests[0]

    return build


@pytest.mark.parametrize(
    ("id", "letters", "clips"),
    [
        ("ltx2_22B_msr_v2", "KI", {2: (9, 8), 3: (9, 16, 8), 4: (9, 16, 16, 8), 5: (9, 16, 16, 16, 8)}),
        ("ltx2_22B_msr_v2", "I", {1: (17,), 2: (17, 16), 3: (17, 16, 16), 4: (17, 16, 16, 16)}),
        ("ltx2_22B_msr", "KI", {2: (21, 20), 3: (14, 14, 13), 4: (11, 10, 10, 10), 5: (9, 8, 8, 8, 8)}),
        ("ltx2_22B_msr", "I", {1: (41,), 2: (21, 20), 3: (14, 14, 13), 4: (11, 10, 10, 10)}),
    ],
)
def test_the_frames_of_each_image(request_of, id, letters, clips):
    for count, clip in clips.items():
        inputs = request_of(id, count, letters).inputs
        assert inputs.clip == clip
        assert extra_latent_frames(inputs) == (sum(clip) - 1) // 8 + 1
        names = [path.name for path in inputs.reference_images]
        assert names == [*NAMES[1:count], NAMES[0]] if letters == "KI" else list(NAMES[:count])
        assert inputs.background_last == (letters == "KI")


def test_the_first_lora_counts_among_those_of_the_settings_too(request_of):
    lora = {"activated_loras": ["/x/LTX-2.3-Licon-MSR-V1.safetensors"]}
    assert request_of("ltx2_22B_msr_v2", 2, **lora).inputs.clip == (21, 20)


def test_subjects_are_whole_and_the_background_fills_the_frame(request_of):
    request = request_of("ltx2_22B_msr_v2", 3, resolution="256x128", video_length=33)
    images = read_inputs(request, Reporter(print))
    assert images.references == ()
    assert not images.none
    assert {frame.size for frame in images.clip} == {(256, 128)}
    corners = [(frame.getpixel((0, 0)), frame.getpixel((128, 64))) for frame in images.clip]
    white, red, blue, green = (255, 255, 255), (255, 0, 0), (0, 0, 255), (0, 128, 0)
    assert [(row, len(list(rows))) for row, rows in groupby(corners)] == [
        ((white, red), 9), ((white, blue), 16), ((green, green), 8),
    ]  # fmt: skip


def test_wrong_numbers_of_images(request_of):
    for count, letters, takes in (
        (1, "KI", "a background and 1 to 4 people or objects"),
        (6, "KI", "a background and 1 to 4 people or objects"),
        (5, "I", "1 to 4 people or objects"),
    ):
        with pytest.raises(SettingsError, match=f"image_refs has {count} images; it must have {takes}") as caught:
            request_of("ltx2_22B_msr_v2", count, letters)
        assert ("Remove K" in caught.value.hint) == (letters == "KI")
    with pytest.raises(SettingsError, match=r"ltx2_22B_msr needs image_refs: .* \(Background, people and objects\)"):
        request_of("ltx2_22B_msr", 0)


def test_a_video_is_as_long_as_its_clip(request_of):
    message = "The clip of 3 reference images has 33 frames, and the video has only 25"
    with pytest.raises(SettingsError, match=message) as caught:
        request_of("ltx2_22B_msr_v2", 3, video_length=25)
    assert caught.value.hint == "Use video_length=33 or more."
    assert request_of("ltx2_22B_msr_v2", 3, video_length=33).frames == 33


def test_other_inputs_are_refused(request_of):
    with pytest.raises(NotRunnable, match=r"does not support V; it supports KI \(image_refs\)"):
        request_of("ltx2_22B_msr", 2, "KIV")
    with pytest.raises(SettingsError, match="does not accept image_start"):
        request_of("ltx2_22B_msr", 2, image_start="one.png")


def test_reference_images_of_other_models_make_no_clip(request_of):
    request = request_of("phantom_14B", 3, "KI")
    assert (request.inputs.clip, request.inputs.background_last) == ((), False)
    assert [path.name for path in request.inputs.reference_images] == list(NAMES[:3])
