"""What settings ask of one video: letters, frame rates, lengths, solvers, phases, positions. Nothing is loaded."""

import numpy as np
import pytest
from PIL import Image

from reeltune import explain, load_catalog
from reeltune.engine.inputs import read_inputs
from reeltune.engine.reporting import Reporter
from reeltune.errors import NotRunnable, SettingsError
from reeltune.families import ARCHITECTURES
from reeltune.machine import Machine
from reeltune.media.mp4 import write_mp4
from reeltune.planning.positions import check_positions
from reeltune.request.build import build_request
from reeltune.request.parse import complete_settings, parse
from reeltune.settings import layer

URLS = ["https://h/x_bf16.safetensors"]


@pytest.fixture
def files(root):
    """A control video of 10 frames a second, a mask whose left half is white, and an image."""
    frames = np.full((9, 64, 64, 3), 200, np.uint8)
    mask = np.zeros((9, 64, 64, 3), np.uint8)
    mask[:, :, :32] = 255
    write_mp4(root / "guide.mp4", frames, 10, {})
    write_mp4(root / "mask.mp4", mask, 10, {})
    Image.new("RGB", (64, 64), "red").save(root / "image.png")
    return {"video_guide": "guide.mp4", "video_mask": "mask.mp4", "image_refs": ["image.png"]}


def request(root, id, **settings):
    architecture = ARCHITECTURES[id]
    whole = layer(architecture, {"resolution": "64x64", "video_length": 9, "prompt": "x"}, call=settings)
    return build_request(load_catalog(root)[id], whole)


def test_the_longest_video_is_one_that_can_be_read_again(root):
    made, notices = request(root, "t2v", video_length=100_000)
    assert made.frames == made.settings["video_length"] == 99_997
    assert any("100000 frames become 99997" in notice for notice in notices)
    with pytest.raises(SettingsError, match=r"video_length=3600s is 108,000 frames; the limit is 100,000"):
        request(root, "t2v", video_length="3600s", force_fps=30)


def keys_of(inputs):
    """The settings whose files a request has."""
    files = {
        "image_start": inputs.start_image,
        "image_end": inputs.end_image,
        "video_guide": inputs.control_video,
        "video_mask": inputs.mask_video,
        "image_refs": inputs.reference_images,
    }
    return {key for key, file in files.items() if file}


# --- letters ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "letters", ["", "V", "VA", "AV", "VAI", "MVA", "UVA", "UV", "VI", "KVI", "NVA", "V A", "I", "KI", "U", "M", "N", "K",
                "P", "XI", "Z", "D", "IW"],
)  # fmt: skip
def test_letters_of_control_videos_that_are_done(root, files, letters):
    given = {key: path for key, path in files.items() if _letter(key) in letters}
    found, _ = request(root, "vace_1.3B", video_prompt_type=letters, **given)
    assert keys_of(found.inputs) == set(given)


def _letter(key):
    return {"video_guide": "V", "video_mask": "A", "image_refs": "I"}[key]


@pytest.mark.parametrize(
    ("letters", "words"),
    [
        ("PV", "poses, which is not supported"), ("DV", "depth"), ("SVA", "a scribble"), ("LV", "optical flow"), ("CV", "gray"),
        ("VXA", "outside the mask"), ("VAY", "outside the mask"), ("ZVA", "outside"), ("WVA", "outside"),
        ("QV", "does not support Q"), ("v", "does not support v"), ("VA1", "does not support 1"),
    ],
)  # fmt: skip
def test_letters_that_would_change_the_video_are_refused_in_words(root, files, letters, words):
    with pytest.raises(NotRunnable, match=words) as caught:
        request(root, "vace_1.3B", video_prompt_type=letters, **files)
    odd = letters.strip("VAI")
    assert f"remove {odd.lower()} from" in caught.value.hint.lower()


@pytest.mark.parametrize(
    ("letters", "option"), [("V", "--video-guide"), ("VA", "--video-guide"), ("I", "--image-refs")]
)
def test_a_letter_asks_for_its_file(root, letters, option):
    with pytest.raises(SettingsError, match="is not set") as caught:
        request(root, "vace_1.3B", video_prompt_type=letters)
    assert option in caught.value.hint


def test_the_mask_is_gray_kept_or_inverted_as_the_letters_say(root, files):
    def left_and_right(letters):
        one, _ = request(root, "vace_1.3B", video_prompt_type=letters, **files)
        images = read_inputs(one, Reporter(print))
        return [images.control[0].getpixel((x, 32))[0] // 8 * 8 for x in (8, 56)], [
            images.mask[0].getpixel((x, 32)) for x in (8, 56)
        ]

    assert left_and_right("VA") == left_and_right("MVA") == ([128, 200], [255, 0])
    assert left_and_right("NVA") == ([200, 128], [0, 255])
    assert left_and_right("UVA") == ([200, 200], [255, 0])


@pytest.mark.parametrize("letters", ["T", "", "S", "ST"])
def test_letters_of_images_that_are_done(root, files, letters):
    image = {"image_start": "image.png"} if "S" in letters else {}
    found, notices = request(root, "ti2v_2_2", image_prompt_type=letters, **image)
    assert keys_of(found.inputs) == set(image)
    assert notices == []


@pytest.mark.parametrize("letters", ["V", "L", "VL", "SV"])
def test_a_video_to_continue_that_is_not_there_is_reported_and_one_that_is_there_is_refused(root, files, letters):
    given = {"image_prompt_type": letters, "image_start": "image.png"}
    _, notices = request(root, "ti2v_2_2", **given)
    assert len(notices) == len(set(letters) & {"V", "L"})
    assert "continues" in notices[0]
    with pytest.raises(NotRunnable, match="continues"):
        request(root, "ti2v_2_2", video_source="guide.mp4", **given)


def test_other_letters_of_images_are_refused(root, files):
    with pytest.raises(NotRunnable, match=r"it supports S \(image_start\), E \(image_end\)"):
        request(root, "i2v", image_prompt_type="SQ", image_start="image.png")


# --- rates, lengths, solvers, phases ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rate", "fps"),
    [("", 16), (None, 16), ("auto", 16), ("control", 10), ("source", 16), (24, 24), (23.976, 24), ("30", 30), (0, 16)],
)
def test_frame_rates(root, files, rate, fps):
    found, notices = request(root, "vace_1.3B", force_fps=rate, video_prompt_type="V", video_guide="guide.mp4")
    assert found.fps == fps
    assert ["video_source" in line for line in notices] == [True] * (rate == "source")
    assert found.settings.get("force_fps") in ((rate, fps) if rate not in ("control", "source", "auto") else (fps,))


def test_a_rate_that_follows_nothing_is_reported(root):
    found, notices = request(root, "t2v", force_fps="control")
    assert found.fps == 16
    assert "video_guide is not set" in notices[0]


@pytest.mark.parametrize(
    ("length", "more", "frames"),
    [("10s", {}, 161), ("1s", {}, 17), ("2.5s", {}, 41), ("0.01s", {}, 1), ("10s", {"force_fps": 24}, 241)],
)
def test_durations(root, length, more, frames):
    found, notices = request(root, "t2v", video_length=length, **more)
    assert found.frames == found.settings["video_length"] == frames
    assert notices == []


def test_durations_follow_the_control_videos_rate(root, files):
    found, _ = request(
        root, "vace_1.3B", video_length="2s", force_fps="control", video_prompt_type="V", video_guide="guide.mp4"
    )
    assert (found.frames, found.fps) == (21, 10)


@pytest.mark.parametrize(
    ("id", "name"),
    [
        *[(id, name) for id in ("t2v", "hunyuan", "ltxv_13B") for name in ("dpm++_sde", "er_sde", "distill")],
        *[(id, name) for id in ("hunyuan", "ltxv_13B") for name in ("causvid", "flowmatch_causvid", "lcm", "unipc")],
    ],
)
def test_solvers_that_a_family_does_not_have_are_replaced_and_it_is_reported(root, id, name):
    found, (notice,) = request(root, id, sample_solver=name)
    assert found.solver == "euler"
    assert name in notice
    assert "euler" in notice


def test_the_notice_of_a_replaced_solver_names_the_family(root):
    _, (notice,) = request(root, "hunyuan", sample_solver="unipc")
    assert "Hunyuan" in notice


@pytest.mark.parametrize("name", ["causvid", "flowmatch_causvid", "lcm"])
def test_solvers_of_distilled_loras_are_used_for_wan(root, name):
    found, notices = request(root, "t2v", sample_solver=name, num_inference_steps=8)
    assert (found.solver, found.steps) == (name, 8)
    assert notices == []


@pytest.mark.parametrize(("name", "most"), [("causvid", 9), ("lcm", 8)])
def test_steps_beyond_those_of_a_solver_are_left_out_and_it_is_reported(root, name, most):
    found, (notice,) = request(root, "t2v", sample_solver=name, num_inference_steps=30)
    assert found.steps == found.settings["num_inference_steps"] == most
    assert notice == f"30 steps become {most}: sample_solver={name} makes no more."


@pytest.mark.parametrize(
    ("settings", "first"),
    [({}, 13), ({"switch_threshold": 900}, 11), ({"guidance_phases": 1}, 30), ({"guidance_phases": 0}, 30),
     ({"guidance_phases": 1, "switch_threshold": 900}, 30), ({"switch_threshold": 0}, 30)],
)  # fmt: skip
def test_with_one_phase_the_first_transformer_makes_all_steps(root, settings, first):
    found, _ = request(root, "t2v_2_2", **settings)
    assert [found.phase(step).transformer for step in range(30)] == ["transformer"] * first + ["transformer_2"] * (
        30 - first
    )
    one, _ = request(root, "t2v", **settings)
    assert {one.phase(step).transformer for step in range(30)} == {"transformer"}


@pytest.mark.parametrize("where", ["definition", "file", "call"])
def test_three_phases_wherever_they_are_asked_for(root, define, where):
    asks = {"guidance_phases": 3, "switch_threshold": 965, "switch_threshold2": 800, "model_switch_phase": 2}
    scales = {"guidance_scale": 3.0, "guidance2_scale": 2.0, "guidance3_scale": 1.0}
    asks |= {"num_inference_steps": 6, "flow_shift": 5.0, **scales}
    define("mine", {"architecture": "t2v_2_2", "URLs": URLS, "URLs2": URLS}, **(asks if where == "definition" else {}))
    if where == "file":
        (root / "settings").mkdir()
        (root / "settings" / "mine_settings.json").write_text(str(asks).replace("'", '"'))
    definition = load_catalog(root)["mine"]
    found = parse(definition, asks if where == "call" else {}).requests[0]
    assert [(phase.first_step, phase.steps, phase.transformer, phase.guidance_scale) for phase in found.phases] == [
        (0, 1, "transformer", 3.0), (1, 3, "transformer", 2.0), (4, 2, "transformer_2", 1.0),
    ]  # fmt: skip


# --- positions --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "most", "fits"),
    [
        ({"resolution": "1280x720"}, "1024x1024", "resolution=1024x576"),
        ({"resolution": "16x2048"}, "1024x1024", "resolution=16x1024"),
        ({"video_length": 300}, "253 frames", "video_length=253"),
        ({"video_length": 300, "resolution": "2048x64"}, "253 frames", "resolution=1024x32 and video_length=253"),
    ],
)
@pytest.mark.parametrize("id", ["nano_t2v", "nano_vace", "nano_i2v"])
def test_a_video_beyond_the_models_positions_is_an_error_before_anything_is_loaded(
    root, files, id, settings, most, fits
):
    definition = load_catalog(root)[id]
    whole, _ = complete_settings(definition, settings)
    plan = explain(definition, machine=Machine(1, 1))
    one, _ = build_request(definition, whole, inputs_needed=False)
    with pytest.raises(SettingsError, match=most) as caught:
        check_positions(plan, one)
    assert fits in caught.value.hint
    fitting = dict(
        pair.split("=") for pair in caught.value.hint.removeprefix("Set ").removesuffix(", or less.").split(" and ")
    )
    whole, _ = complete_settings(definition, settings | fitting)
    check_positions(plan, build_request(definition, whole, inputs_needed=False)[0])


def test_reference_images_take_positions_too(root, files):
    definition = load_catalog(root)["nano_vace"]
    settings = {"video_length": 253, "image_refs": ["image.png"]}
    one, _ = build_request(definition, complete_settings(definition, settings)[0])
    with pytest.raises(SettingsError, match="249 frames"):
        check_positions(explain(definition, machine=Machine(1, 1)), one)


@pytest.mark.parametrize("id", ["t2v", "ti2v_2_2", "vace_14B", "hunyuan", "ltxv_13B"])
def test_every_architecture_is_checked_before_its_files_are_known(root, id):
    definition = load_catalog(root)[id]
    plan = explain(definition, machine=Machine(1, 1))

    def check(length):
        whole, _ = complete_settings(definition, {"video_length": length})
        check_positions(plan, build_request(definition, whole, inputs_needed=False)[0])

    check(81)
    if definition.architecture.family.position_table:
        with pytest.raises(SettingsError, match="4093 frames"):
            check(5001)
    else:
        check(5001)


def test_every_family_has_the_solver_that_replaces_others():
    for architecture in ARCHITECTURES.values():
        assert architecture.family.solver("ddim") in architecture.family.solvers
