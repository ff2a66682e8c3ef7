import json

import pytest

from reeltune import load_catalog
from reeltune.errors import SettingsError
from reeltune.families import ARCHITECTURES
from reeltune.families.vocabulary import KEYS, coerce
from reeltune.request.build import build_request
from reeltune.request.parse import complete_settings
from reeltune.settings import check_call, layer, parse_assignments, split_videos, unused

T2V = ARCHITECTURES["t2v"]
URLS = ["https://h/x_bf16.safetensors"]


def test_layers_win_in_order(root, define):
    define("mine", {"architecture": "t2v", "URLs": URLS}, num_inference_steps=10, flow_shift=2)
    folder = root / "settings"
    folder.mkdir()
    (folder / "mine_settings.json").write_text(json.dumps({"num_inference_steps": 11, "type": "x", "odd": 1}))
    settings, notices = complete_settings(load_catalog(root)["mine"], {"seed": 3})
    assert (settings["num_inference_steps"], settings["flow_shift"], settings["seed"]) == (11, 2, 3)
    assert settings["guidance_scale"] == T2V.defaults["guidance_scale"]
    assert notices == ["t2v does not use: odd (unknown)."]


def test_defaults_of_the_facts():
    for architecture, expected in {
        "t2v": {"resolution": "832x480", "video_length": 81, "guidance_scale": 5, "flow_shift": 5, "seed": -1},
        "i2v": {"flow_shift": 7}, "fun_inp": {"flow_shift": 7}, "flf2v_720p": {"resolution": "1280x720"},
        "hunyuan": {"guidance_scale": 1, "flow_shift": 5, "embedded_guidance_scale": 6},
    }.items():  # fmt: skip
        defaults = ARCHITECTURES[architecture].defaults
        assert {key: defaults[key] for key in expected} == expected
        assert defaults["prompt"]


def test_neutral_values_are_silent_and_others_named(root):
    fusionix = load_catalog(root)["t2v_fusionix"]
    assert unused(layer(T2V, fusionix.settings), T2V) == []
    asked = {"batch_size": 2, "apg_switch": 0, "NAG_tau": 10, "cfg_zero_step": -1, "image_start": "a.png"}
    assert unused(asked, T2V) == ["batch_size", "image_start"]
    windows = {"sliding_window_size": 81, "sliding_window_overlap": 9}
    assert unused(windows, T2V) == list(windows)


def test_every_default_is_in_the_vocabulary_and_used_or_neutral():
    for architecture in ARCHITECTURES.values():
        assert set(architecture.defaults) <= set(KEYS)
        assert architecture.settings <= set(KEYS)
        if architecture.runnable:
            assert unused(dict(architecture.defaults), architecture) == []


@pytest.mark.parametrize(
    ("key", "value", "result"),
    [
        ("num_inference_steps", "20", 20), ("num_inference_steps", 20.0, 20), ("guidance_scale", "3.5", 3.5),
        ("resolution", "832 x 480", "832x480"), ("seed", -1, -1), ("seed", 2**63 - 1, 2**63 - 1), ("seed", "9007199254740993", 2**53 + 1), ("seed", 7.0, 7),
    ],
)  # fmt: skip
def test_values_become_their_kind(key, value, result):
    assert coerce(key, value) == result


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("num_inference_steps", 0), ("num_inference_steps", 2.5), ("seed", -2), ("seed", 2**63), ("seed", None), ("seed", float("nan")), ("seed", []), ("guidance_scale", "nan"),
        ("guidance_scale", 1e300), ("prompt", 5), ("resolution", "832"), ("video_length", None), ("seed", True), ("flow_shift", 0), ("flow_shift", -3), ("flow_shift", "nan"),
    ],
)  # fmt: skip
def test_impossible_values_are_named(key, value):
    with pytest.raises(SettingsError, match=key):
        coerce(key, value)


def test_unknown_settings_get_the_nearest():
    with pytest.raises(SettingsError, match="num_inference_steps"):
        check_call({"num_inference_step": 5})
    with pytest.raises(SettingsError, match="key=value"):
        parse_assignments(["seed"])
    assert parse_assignments(["seed=5", "prompt=a=b"]) == {"seed": 5, "prompt": "a=b"}


def test_videos_asked_for():
    asked = split_videos({"prompt": "a\n\nb", "seed": 5, "repeat_generation": 2})
    assert [(one["prompt"], one["seed"]) for one in asked] == [("a", 5), ("a", 6), ("b", 5), ("b", 6)]
    assert len(split_videos({"prompt": "a\nb", "multi_prompts_gen_type": "FG"})) == 1
    assert split_videos({"prompt": ""})[0]["prompt"] == ""


def test_requests_are_rounded_and_say_so(root):
    settings = layer(T2V, {"resolution": "845x495", "video_length": 80, "seed": 1, "force_fps": "24"})
    request, notices = build_request(load_catalog(root)["t2v"], settings)
    assert (request.width, request.height, request.frames, request.fps) == (832, 480, 81, 24)
    assert len(notices) == 2
    assert request.settings["resolution"] == "832x480"
    again, notices = build_request(load_catalog(root)["t2v"], layer(T2V, request.settings))
    assert again == request
    assert not notices


@pytest.mark.parametrize(("asked", "frames"), [(1, 1), (2, 1), (5, 5), (82, 81), (84, 85)])
def test_frame_counts(root, asked, frames):
    assert build_request(load_catalog(root)["t2v"], layer(T2V, {"video_length": asked}))[0].frames == frames


def test_every_seed_that_is_picked_can_be_given_again():
    from reeltune.request.build import _RANDOM_SEEDS

    assert coerce("seed", _RANDOM_SEEDS - 1) == _RANDOM_SEEDS - 1


def test_a_random_seed_is_recorded(root):
    request, _ = build_request(load_catalog(root)["t2v"], layer(T2V, {}))
    assert request.seed >= 0
    assert request.settings["seed"] == request.seed


@pytest.mark.parametrize("odd", [{"sample_solver": "magic"}, {"force_fps": "often"}, {"force_fps": 100000}])
def test_what_the_family_cannot_do_is_an_error(root, odd):
    with pytest.raises(SettingsError):
        build_request(load_catalog(root)["t2v"], layer(T2V, odd))


def test_loras_in_settings_are_kept_and_used(root):
    definition = load_catalog(root)["nano_t2v"]
    settings, notices = complete_settings(
        definition, {"activated_loras": ["a.safetensors"], "loras_multipliers": "0.5"}
    )
    assert (settings["activated_loras"], settings["loras_multipliers"]) == (["a.safetensors"], "0.5")
    assert notices == []
    request, notices = build_request(definition, settings)
    assert [(lora.source, set(lora.weights)) for lora in request.loras] == [("a.safetensors", {0.5})]
    assert notices == []
    assert request.settings["activated_loras"] == ["a.safetensors"]
    assert build_request(definition, request.settings) == (request, [])


def test_a_broken_settings_file_is_named(root):
    (root / "settings").mkdir()
    path = root / "settings" / "nano_t2v_settings.json"
    for text in ("{", "[]", '"x"', ""):
        path.write_text(text)
        with pytest.raises(SettingsError, match="nano_t2v_settings"):
            complete_settings(load_catalog(root)["nano_t2v"], {})
