"""The windows of long videos, and modes: which numbers of frames they allow."""

import contextlib

import pytest

from reeltune import explain, load_catalog
from reeltune.errors import ReeltuneError, SettingsError
from reeltune.machine import Gpu, Machine
from reeltune.planning.memory import activations
from reeltune.request.parse import preview

CATALOG = load_catalog("/nonexistent")


def request(id, **settings):
    parsed = preview(CATALOG[id], settings)
    return parsed.requests[0], parsed.notices


@pytest.mark.parametrize(
    ("id", "settings", "frames", "windows", "window"),
    [
        ("sky_df_14B", {}, 97, 1, None),
        ("sky_df_14B", {"video_length": 181}, 181, 3, (97, 17, 20)),
        ("sky_df_14B", {"video_length": 177}, 177, 2, (97, 17, 20)),
        ("sky_df_14B", {"video_length": 177, "sliding_window_overlap": 38}, 177, 3, (97, 37, 20)),
        ("sky_df_14B", {"video_length": 177, "sliding_window_size": 0}, 177, 1, None),
        ("sky_df_14B", {"video_length": 177, "model_mode": 5, "sliding_window_overlap": 1}, 177, 2, (97, 17, 20)),
        ("sky_df_720p_14B", {"video_length": 200}, 201, 2, (121, 17, 20)),
        ("sky_df_720p_14B", {"video_length": 257, "model_mode": 5}, 257, 3, (117, 17, 20)),
        ("sky_df_1.3B", {"video_length": 241, "sliding_window_overlap_noise": 0}, 241, 3, (97, 17, 0)),
        ("animate", {"video_length": 77}, 77, 1, None),
        ("animate", {"video_length": 153}, 153, 2, (77, 1, 0)),
        ("animate", {"video_length": 157, "sliding_window_overlap": 5}, 157, 3, (77, 5, 0)),
        ("animate", {"video_length": 5}, 5, 1, None),
        ("i2v_2_2_svi2pro", {}, 81, 1, None),
        ("i2v_2_2_svi2pro", {"video_length": 5}, 5, 1, None),
        ("i2v_2_2_svi2pro", {"video_length": 157}, 157, 2, (81, 5, 0)),
        ("i2v_2_2_svi2pro", {"video_length": 161}, 161, 3, (81, 5, 0)),
        ("i2v_2_2_svi2pro", {"video_length": 29, "sliding_window_size": 13}, 29, 3, (13, 5, 0)),
        ("t2v", {"video_length": 177}, 177, 1, None),
        ("chrono_edit", {}, 1, 1, None),
    ],
)
def test_windows(id, settings, frames, windows, window):
    made, _ = request(id, **settings)
    used = None if made.window is None else (made.window.size, made.window.overlap, made.window.noise)
    assert (made.frames, made.windows, used) == (frames, windows, window)


def test_blocks_round_the_number_of_frames_aloud():
    made, notices = request("sky_df_14B", video_length=81, model_mode=5)
    assert made.frames == 77
    assert "81 frames become 77: in this mode, the number must be 17 plus a multiple of 20." in notices
    assert request("sky_df_14B", video_length=5, model_mode=5)[0].frames == 17
    assert request("sky_df_14B", video_length=81)[0].frames == 81


@pytest.mark.parametrize(
    ("id", "settings", "words"),
    [
        ("animate", {"video_length": 1}, "at least 5 frames"),
        ("animate", {"video_length": 153, "sliding_window_overlap": 3}, "does not support"),
        ("animate", {"video_length": 153, "sliding_window_size": 9, "sliding_window_overlap": 5}, "can't share 5"),
        ("sky_df_14B", {"video_length": 177, "sliding_window_size": 33}, "can't share 17"),
        ("sky_df_14B", {"video_length": 177, "sliding_window_overlap_noise": -1}, "overlap_noise is -1"),
        ("i2v_2_2_svi2pro", {"video_length": 161, "sliding_window_overlap": 5}, "does not support"),
        ("i2v_2_2_svi2pro", {"video_length": 161, "sliding_window_size": 9}, "can't share 4"),
        ("sky_df_14B", {"model_mode": 3}, "Invalid value 3"),
        ("sky_df_14B", {"model_mode": "x"}, "Invalid value 'x'"),
    ],
)
def test_what_cannot_be_made_is_refused(id, settings, words):
    with pytest.raises(SettingsError, match=words):
        request(id, **settings)


@pytest.mark.parametrize(
    ("id", "settings", "window", "told"),
    [
        ("sky_df_14B", {"sliding_window_size": 99}, (97, 17), "sliding_window_size is 99: 97 is used"),
        ("sky_df_14B", {"sliding_window_overlap": 38}, (97, 37), "sliding_window_overlap is 38: 37 is used"),
        ("sky_df_14B", {"sliding_window_overlap": 0}, (97, 1), "sliding_window_overlap is 0: 1 is used"),
        ("animate", {"sliding_window_size": 7}, (5, 1), "sliding_window_size is 7: 5 is used"),
        ("sky_df_14B", {"sliding_window_size": 97}, (97, 17), ""),
        ("sky_df_14B", {"sliding_window_size": "97", "model_mode": "0"}, (97, 17), ""),
    ],
)
def test_windows_are_rounded_aloud(id, settings, window, told):
    made, notices = request(id, video_length=177, **settings)
    assert (made.window.size, made.window.overlap) == window
    rounded = [notice for notice in notices if "is used" in notice]
    assert rounded == ([f"{told}, since windows have whole latent frames."] if told else [])


def test_modes_as_text():
    assert request("sky_df_14B", model_mode="5")[0].mode == 5
    assert request("chrono_edit", model_mode="1")[0].mode == 1
    assert request("sky_df_14B", model_mode="")[0].mode == 0


ODD = (
    -1, -(10**9), 10**9, 10**12, 10**40, 1e308, float("nan"), float("inf"), 0.5, True, None, "", "x", "5s", "-5", "9" * 5000,
    [], [5], {}, {"a": 1}, "[5]", "0x5", "\0",
)  # fmt: skip
KEYS = (
    "sliding_window_size", "sliding_window_overlap", "sliding_window_overlap_noise", "model_mode", "video_length",
    "image_prompt_type", "video_prompt_type",
)  # fmt: skip
NEW = ("lucy_edit", "sky_df_1.3B", "sky_df_14B", "animate", "chrono_edit", "hunyuan_1_5_t2v", "hunyuan_1_5_i2v",
       "k5_lite_t2v", "k5_pro_i2v")  # fmt: skip


@pytest.mark.parametrize("id", NEW)
def test_odd_values_of_a_caller_are_typed_errors_or_windows_that_can_be_made(id):
    refused = 0
    for key in KEYS:
        for value in ODD:
            try:
                made, _ = request(id, **({"video_length": 177} | {key: value}))
            except ReeltuneError as error:
                refused += bool(error.message and error.hint)
                continue
            if made.window is not None:
                assert 0 < 2 * made.window.overlap < made.window.size < made.frames
    assert refused > 60


@pytest.mark.parametrize("id", NEW)
def test_odd_values_of_a_definition_are_typed_errors_or_plans(id, root, define):
    machine = Machine(2**36, 2**35, (Gpu("a card", 2**34, 8.9),))
    model = {"name": "mine", "architecture": id, "URLs": ["https://h/x_bf16.safetensors"]}
    for number, value in enumerate(ODD):
        define(f"mine_{number}", model, **({"video_length": 177} | dict.fromkeys(KEYS[:4], value)))
    define("long", model, video_length=10**9, sliding_window_size=1)
    catalog = load_catalog(root)
    for name in ("long", *(f"mine_{number}" for number in range(len(ODD)))):
        with contextlib.suppress(ReeltuneError):
            assert activations(explain(catalog[name], machine=machine)) >= 0
            assert preview(catalog[name], {}).requests[0].frames > 0


def test_a_picture_has_no_length():
    for settings in ({"video_length": 81}, {"video_length": "5s"}, {"sliding_window_size": 5}, {"force_fps": 24}):
        made, notices = request("chrono_edit", **settings)
        assert (made.frames, made.windows) == (1, 1)
        ((key, value),) = settings.items()
        assert f"chrono_edit does not use: {key}={value}." in notices


def test_a_start_image_needs_the_first_mode(root, define):
    from PIL import Image

    from reeltune.request.parse import parse

    Image.new("RGB", (8, 8)).save(root / "start.png")
    define("mine", {"architecture": "sky_df_14B", "URLs": ["https://h/x_bf16.safetensors"]})
    definition = load_catalog(root)["mine"]
    parse(definition, {"image_start": "start.png"})
    with pytest.raises(SettingsError, match="can't be used with image_start"):
        parse(definition, {"image_start": "start.png", "model_mode": 5})


def test_other_solvers_are_replaced():
    made, notices = request("sky_df_14B", sample_solver="euler")
    assert made.solver == "unipc"
    assert "sample_solver=euler is not supported for sky_df_14B: unipc is used." in notices
    assert request("sky_df_14B", sample_solver="dpm++")[0].solver == "dpm++"
