"""Stored settings of every date and kind: read into the newest names, and never lost to one odd value."""

import json
import random

import pytest

from conftest import DATA
from reeltune import load_catalog
from reeltune.errors import ReeltuneError, SettingsError
from reeltune.families import ARCHITECTURES
from reeltune.families.vocabulary import KEYS, coerce
from reeltune.media.origin import Origin, read_origin
from reeltune.request.build import build_request
from reeltune.request.parse import complete_settings
from reeltune.settings import (
    check_call,
    parse_assignments,
    portable,
    read_settings,
    read_settings_file,
    settings_text,
    split_videos,
    stored_layer,
    stored_settings,
)
from reeltune.settings.renames import OLD_NAMES

BASELINE = json.loads((DATA / "settings.json").read_text(encoding="utf-8"))


def save(root, id, settings):
    path = root / "settings" / f"{id}_settings.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(settings), encoding="utf-8")
    return path


def test_every_baseline_setting_is_known_and_asks_for_nothing_that_is_not_done():
    stored = read_settings(BASELINE)
    assert set(BASELINE) == set(stored.settings) | {key for key, value in BASELINE.items() if value is None}
    assert (stored.problems, stored.unknown) == ((), ())


@pytest.mark.parametrize("id", [*load_catalog("/nonexistent")])
def test_a_baseline_file_is_silent_for_every_model(id, root):
    save(root, id, BASELINE | {"settings_version": 2.74, "model_type": id})
    definition = load_catalog(root)[id]
    settings, notices = complete_settings(definition, {})
    one = ["guidance_phases is 1: the first transformer is used for all steps."]
    assert notices == (one if "transformer_2" in definition.slots else [])
    fixed = definition.architecture.call_only & {"num_inference_steps"}
    assert settings.get("num_inference_steps") == (None if fixed else 30)
    request, notices = build_request(definition, split_videos(settings)[0], inputs_needed=False)
    smaller = ["832x480 becomes 832x448: width and height must be multiples of 64."]  # half of it must be one of 32
    random = "The prompt is empty: the content of the video will be random."
    assert notices == [*(smaller if definition.architecture.family.name == "ltx2" else []), random]
    if not request.passes:
        assert request.steps == 30


# As the facts say: what an older or a newer program writes, and what it comes to.
FORMS = [
    ({"multi_prompts_gen_type": 0}, {"multi_prompts_gen_type": "G"}),
    ({"multi_prompts_gen_type": 1}, {"multi_prompts_gen_type": "W"}),
    ({"multi_prompts_gen_type": 2}, {"multi_prompts_gen_type": "FG"}),
    ({"multi_prompts_gen_type": "2"}, {"multi_prompts_gen_type": "FG"}),
    *[({"multi_prompts_gen_type": mode}, {"multi_prompts_gen_type": mode}) for mode in ("G", "PG", "W", "PW", "FG")],
    ({"multi_prompts_gen_type": "pg"}, {"multi_prompts_gen_type": "PG"}),
    (
        {"slg_switch": 1, "slg_layers": [9, 10], "slg_start_perc": 10, "slg_end_perc": 90},
        {"perturbation_switch": 1, "perturbation_layers": [9, 10], "perturbation_start_perc": 10, "perturbation_end_perc": 90},
    ),
    ({"perturbation_switch": 1, "perturbation_layers": [4]}, {"perturbation_switch": 1, "perturbation_layers": [4]}),
    ({"slg_layers": "9, 10"}, {"perturbation_layers": [9, 10]}),
    ({"tea_cache_setting": 0}, {"skip_steps_cache_type": ""}),
    ({"tea_cache_setting": 2.25, "tea_cache_start_step_perc": 20},
     {"skip_steps_cache_type": "tea", "skip_steps_multiplier": 2.25, "skip_steps_start_step_perc": 20}),
    ({"skip_steps_cache_type": "mag", "skip_steps_multiplier": 1.5}, {"skip_steps_cache_type": "mag", "skip_steps_multiplier": 1.5}),
    ({"image_prompt_type": 0}, {"image_prompt_type": "S"}),
    ({"image_prompt_type": 1}, {"image_prompt_type": "SE"}),
    ({"image_prompt_type": "VL"}, {"image_prompt_type": "VL"}),
    ({"prompts": ["a", "b"]}, {"prompt": "a\nb"}),
    ({"prompts": "a\nb"}, {"prompt": "a\nb"}),
    ({"lset_name": "x.lset"}, {}),
    ({"prompt_enhancer": "I"}, {"prompt_enhancer": "TI"}),
    ({"prompt_enhancer": "IK", "settings_version": 2.6}, {"prompt_enhancer": "TIK", "settings_version": 2.6}),
    ({"prompt_enhancer": "I", "settings_version": 2.61}, {"prompt_enhancer": "I", "settings_version": 2.61}),
    ({"video_length": "10s"}, {"video_length": "10s"}),
    ({"video_length": "2.50 S"}, {"video_length": "2.5s"}),
    *[({"force_fps": rate}, {"force_fps": rate}) for rate in ("auto", "control", "source", 24, "")],
    ({"force_fps": "24"}, {"force_fps": 24}),
    ({"force_fps": None}, {"force_fps": ""}),
    *[({"sample_solver": name}, {"sample_solver": name}) for name in ("causvid", "lcm", "flowmatch_causvid", "unipc")],
    ({"cfg_star_switch": True}, {"cfg_star_switch": 1}),
    ({"loras_multipliers": [1, "0.5;0"]}, {"loras_multipliers": "1 0.5;0"}),
    ({"seed": None, "video_length": None}, {}),
    ({"image_start": ["a.png"], "image_refs": "b.png"}, {"image_start": ["a.png"], "image_refs": "b.png"}),
]  # fmt: skip


@pytest.mark.parametrize(("stored", "expected"), FORMS, ids=[json.dumps(row[0])[:60] for row in FORMS])
def test_every_form_is_read_into_the_newest(stored, expected):
    read = read_settings(stored)
    assert dict(read.settings) == expected
    assert (read.problems, read.unknown) == ((), ())
    callers = {
        key: value for key, value in stored.items() if key not in ("lset_name", "settings_version", "prompt_enhancer")
    }
    assert check_call(callers) == {
        key: value for key, value in expected.items() if key not in ("settings_version", "prompt_enhancer")
    }


def test_every_form_is_read_from_everywhere(root, define, tmp_path):
    """Definition, settings file, queue, video, saved latents: the same old settings come to the same request."""
    from reeltune.jobs.queue import Queue

    old = {
        "tea_cache_setting": 2,
        "slg_switch": 1,
        "slg_layers": [1],
        "multi_prompts_gen_type": 2,
        "prompts": ["a", "b"],
    }
    new = dict(read_settings(old).settings)
    define("mine", {"architecture": "t2v", "URLs": ["https://h/x_bf16.safetensors"]}, **old)
    save(root, "nano_t2v", old)
    catalog = load_catalog(root)
    for id in ("mine", "nano_t2v"):
        settings, notices = complete_settings(catalog[id], {})
        assert {key: settings[key] for key in new} == new
        assert notices == []
    assert complete_settings(catalog["t2v"], old)[0] == complete_settings(catalog["t2v"], new)[0]
    queue = Queue(root)
    assert dict(queue.add("t2v", old).settings) == new
    exported = {"schema_version": 1, "jobs": [{"definition": "t2v", "settings": old | {"seed": "x", "later": 1}}]}
    (job,) = queue.import_text(json.dumps(exported))
    assert dict(job.settings) == new
    assert job.extra["unknown_settings"] == {"seed": "x", "later": 1}


def test_latents_of_an_older_version_are_read(tmp_path):
    import torch

    from reeltune.engine import latents

    kept = latents.store(
        torch.zeros(1), {"seed": 1, "tea_cache_setting": 2, "multi_prompts_gen_type": 1}, "x", tmp_path
    )
    assert dict(latents.read(kept).settings) == {
        "seed": 1, "skip_steps_cache_type": "tea", "skip_steps_multiplier": 2, "multi_prompts_gen_type": "W"
    }  # fmt: skip


@pytest.mark.parametrize("value", ["x", [], {}, 10**310, "9" * 5000, float("nan"), float("inf"), True, {"a": [1]}])
def test_one_odd_value_is_named_and_left_out(value):
    read = read_settings({"num_inference_steps": value, "seed": 5, "tea_cache_setting": value, "slg_end_perc": value})
    assert dict(read.settings) == {"seed": 5}
    assert [problem.where for problem in read.problems] == ["num_inference_steps", "tea_cache_setting", "slg_end_perc"]
    (line,) = read.notices()
    assert len(line) < 700
    for key in ("num_inference_steps", "tea_cache_setting", "slg_end_perc"):
        with pytest.raises(SettingsError, match=key):
            check_call({key: value})


def test_the_newer_of_two_names_counts_and_a_caller_may_give_only_one():
    read = read_settings({"perturbation_switch": 0, "slg_switch": 1})
    assert dict(read.settings) == {"perturbation_switch": 0}
    assert "slg_switch is an older name" in read.problems[0].message
    assert read_settings({"slg_switch": 1, "perturbation_switch": 1}).problems == ()
    with pytest.raises(SettingsError, match="set twice"):
        check_call({"perturbation_switch": 0, "slg_switch": 1})


def test_unknown_keys_that_ask_for_nothing_are_silent_and_the_others_share_one_line(root):
    save(
        root, "nano_t2v", BASELINE | {"new_a": "", "new_b": 0, "new_c": None, "new_d": 3, "new_e": "x", "NAG_scale": 2}
    )
    _, notices = complete_settings(load_catalog(root)["nano_t2v"], {"seed": 1})
    assert notices == ["t2v_1.3B does not use: NAG_scale=2.0, new_d (unknown), new_e (unknown)."]


def test_settings_of_another_program_are_read_in_linear_time(tmp_path):
    path = tmp_path / "x.json"
    path.write_text(json.dumps({f"{'k' * 20}{number}": number + 1 for number in range(80_000)}))
    read = read_settings_file(path)
    assert len(read.unknown) == 80_000
    assert all(len(line) < 600 for line in read.notices())


@pytest.mark.parametrize("content", [b"{", b"[]", b"", b"\xff", b'{"a": ' * 5000, b"{" * 10_000])
def test_a_file_that_holds_no_settings_is_an_error_that_names_it(root, content):
    path = save(root, "nano_t2v", {})
    path.write_bytes(content)
    with pytest.raises(SettingsError, match="nano_t2v_settings"):
        stored_settings(root, "nano_t2v")


def test_what_stands_in_a_settings_files_place_is_no_reason_to_fail_otherwise(root):
    assert stored_settings(root, "n" * 250).settings == {}
    (root / "settings" / "nano_t2v_settings.json").mkdir(parents=True)
    with pytest.raises(SettingsError, match="is a folder"):
        stored_settings(root, "nano_t2v")


# --- writing ----------------------------------------------------------------------------------------------------------


def test_what_is_written_has_the_form_of_june_2025_where_that_can_hold_it():
    new = {"seed": 1, "skip_steps_cache_type": "tea", "skip_steps_multiplier": 2.0, "skip_steps_start_step_perc": 10.0,
           "perturbation_switch": 1, "perturbation_layers": [9], "multi_prompts_gen_type": "FG"}  # fmt: skip
    written = portable(new)
    assert written == {"seed": 1, "tea_cache_setting": 2.0, "tea_cache_start_step_perc": 10.0, "slg_switch": 1, "slg_layers": [9],
                       "multi_prompts_gen_type": 2}  # fmt: skip
    assert dict(read_settings(written).settings) == {**new}
    for newest in ({"multi_prompts_gen_type": "PG"}, {"skip_steps_cache_type": "mag", "skip_steps_multiplier": 2.0}):
        both = {**new, **newest}
        assert portable(both) == {**both, "settings_version": 2.74}
        assert {**read_settings(portable(both)).settings} == {**both, "settings_version": 2.74}


@pytest.mark.parametrize("seed", range(20))
def test_whatever_is_written_is_read_back(seed):
    rng = random.Random(seed)
    settings = {}
    for _ in range(60):
        settings |= read_settings(rng.choice(FORMS)[0]).settings
    settings.pop("settings_version", None)
    read = dict(read_settings(json.loads(settings_text("x", settings))).settings)
    for key in ("type", "model_type", "settings_version"):
        read.pop(key, None)
    if settings.get("skip_steps_cache_type") == "":  # an older form has no place for the factor of what is off
        settings.pop("skip_steps_multiplier", None)
        read.pop("skip_steps_multiplier", None)
    assert read == settings


def test_a_video_carries_settings_that_older_programs_read(tmp_path):
    origin = Origin("nano_t2v", "t2v", "reeltune 1", {"seed": 1, "multi_prompts_gen_type": "FG"}, {})
    assert origin.as_metadata()["settings"] == {"seed": 1, "multi_prompts_gen_type": 2}
    assert read_origin  # its way back is tested with the media


# --- mutated settings -------------------------------------------------------------------------------------------------

JUNK = [
    None, True, False, 5, -1.5, float("inf"), float("nan"), "", "x", "SVEA", "\ud800", "a\0b", [], {}, [None], ["a", 5],
    10**310, -(10**310), "9" * 400, 1e300, "-", "10s", "1x1", {"a": {"b": [1]}}, "𝟙𝟘", [[9]], "{Name}", "! {", 2**63,
]  # fmt: skip


def mutated(rng):
    settings = dict(rng.sample(list(BASELINE.items()), rng.randint(0, 40)))
    for key in rng.sample([*KEYS, *OLD_NAMES, "zzz", "", "model", "\ud800"], rng.randint(1, 6)):
        settings[key] = rng.choice(JUNK)
    return settings


def test_mutated_settings_never_raise_and_never_cost_a_good_key(root):
    rng, definition = random.Random(7), load_catalog(root)["nano_vace"]
    for number in range(3000):
        settings = mutated(rng)
        read = read_settings(settings)
        assert set(read.settings) <= set(KEYS)
        odd = {problem.where for problem in read.problems}
        for key, value in settings.items():
            if key in KEYS and key not in odd and value is not None:
                assert read.settings[key] == coerce(key, value) or key in (
                    "multi_prompts_gen_type", "image_prompt_type", "prompt_enhancer"
                )  # fmt: skip
        json.dumps(dict(read.settings)).encode("utf-8")
        assert all(len(line) < 4000 for line in read.notices())
        if number % 3 == 0:
            generate(definition, read.settings)


def generate(definition, settings):
    """Everything short of loading, where any error is one of ours."""
    try:
        complete, _ = complete_settings(definition, settings)
        for one in split_videos(complete)[:2]:
            build_request(definition, one)
    except ReeltuneError as error:
        str(error).encode("utf-8")


def test_a_callers_mutated_settings_end_in_our_own_errors():
    rng = random.Random(8)
    for _ in range(2000):
        for key, value in mutated(rng).items():
            for call in (lambda: check_call({key: value}), lambda: parse_assignments([f"{key}={value}"])):  # noqa: B023
                try:
                    call()
                except SettingsError as error:
                    str(error).encode("utf-8")


# --- what families start from -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("id", "shift"), [("fun_inp", 7), ("fun_inp_1.3B", 7), ("i2v", 7), ("hunyuan", 5), ("hunyuan_i2v", 5), ("t2v", 5)]
)
def test_shifts(id, shift):
    assert ARCHITECTURES[id].defaults["flow_shift"] == shift


def test_hunyuans_true_guidance_only_where_a_caller_names_it(root, define):
    define(
        "mine",
        {"architecture": "hunyuan", "URLs": ["https://h/x_bf16.safetensors"]},
        guidance_scale=7,
        negative_prompt="blur",
    )
    save(root, "mine", {"guidance_scale": 6})
    definition = load_catalog(root)["mine"]
    settings, _ = complete_settings(definition, {})
    request, notices = build_request(definition, settings)
    assert request.guidance_scale == 1
    assert notices == ["negative_prompt has no effect while guidance_scale is 1."]
    settings, _ = complete_settings(definition, {"guidance_scale": 4})
    assert build_request(definition, settings)[0].guidance_scale == 4
    path = root / "settings" / "mine_settings.json"
    path.write_text(settings_text("mine", {"guidance_scale": 3}))  # saved by this program, from a form that shows it
    assert complete_settings(definition, {})[0]["guidance_scale"] == 3


def test_images_to_video_take_an_end_image():
    for id in ("i2v", "fun_inp", "i2v_2_2"):
        assert [row.key for row in ARCHITECTURES[id].inputs] == ["image_start", "image_end"]
        assert [row.required for row in ARCHITECTURES[id].inputs] == [True, False]


def test_the_guidance_of_ones_own_video_counts_and_another_programs_does_not():
    hunyuan = ARCHITECTURES["hunyuan"]
    own = {"guidance_scale": 4.0, "seed": 1}
    assert stored_layer(hunyuan, own, "reeltune 0.1") == own
    for written in ({"type": "WanGP v10"}, {}):
        assert stored_layer(hunyuan, own | written, written.get("type", "")) == {"seed": 1, **written}
    assert stored_layer(ARCHITECTURES["t2v"], own) == own
