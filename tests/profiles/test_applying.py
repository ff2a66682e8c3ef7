"""Profiles on settings: what they replace, what stays, and how they go again."""

import itertools
import json

import pytest

from published_profiles import published, write
from reeltune import load_catalog
from reeltune.errors import SettingsError
from reeltune.profiles import (
    Profile,
    all_profiles,
    applied_profile,
    apply_profile,
    call_with_profile,
    presets_of,
    profiles_of,
    remove_profile,
    repeated_loras,
)
from reeltune.settings import layer
from reeltune.settings.multipliers import join_profile, parse_multipliers, split_profile, weights_of

MINE = {
    "prompt": "a fox",
    "seed": 7,
    "resolution": "832x480",
    "video_length": 33,
    "activated_loras": ["mine.safetensors", "more/style.safetensors"],
    "loras_multipliers": "0.8 0.5,1",
}
FAST = Profile("fast", "wan", {"num_inference_steps": 4, "flow_shift": 2.0}, ("https://h/fast.safetensors",), "1;0")
TWO = Profile(
    "two", "wan", {"num_inference_steps": 8, "guidance_scale": 1.0}, ("high.safetensors", "low.safetensors"), "1;0 0;1"
)
PLAIN = Profile("plain", "wan", {"num_inference_steps": 6})


def weights(settings):
    """The weights of each LoRA by name, as the video would get them."""
    items, _ = weights_of(parse_multipliers(settings["loras_multipliers"]), len(settings["activated_loras"]))
    return dict(zip(settings["activated_loras"], items, strict=True))


def test_the_profile_stands_left_and_the_user_right():
    settings = apply_profile(MINE, FAST)
    assert settings["activated_loras"] == ["https://h/fast.safetensors", "mine.safetensors", "more/style.safetensors"]
    assert settings["loras_multipliers"] == "1;0 | 0.8 0.5,1"
    assert (settings["num_inference_steps"], settings["flow_shift"]) == (4, 2.0)
    assert {key: settings[key] for key in ("prompt", "seed", "resolution", "video_length")} == {
        key: MINE[key] for key in ("prompt", "seed", "resolution", "video_length")
    }


def test_another_profile_takes_the_place_of_the_first():
    settings = apply_profile(apply_profile(MINE, FAST), TWO)
    assert settings["activated_loras"] == ["high.safetensors", "low.safetensors", *MINE["activated_loras"]]
    assert settings["loras_multipliers"] == "1;0 0;1 | 0.8 0.5,1"
    assert apply_profile(settings, TWO) == settings


def test_a_profile_without_own_loras_of_the_user():
    settings = apply_profile({"prompt": "a fox"}, TWO)
    assert settings["loras_multipliers"] == "1;0 0;1 |"
    assert remove_profile(settings, {}, TWO) == {"prompt": "a fox", "activated_loras": [], "loras_multipliers": ""}
    added = {**settings, "activated_loras": [*settings["activated_loras"], "x"], "loras_multipliers": "1;0 0;1 | 0.3"}
    assert apply_profile(added, FAST)["loras_multipliers"] == "1;0 | 0.3"


def test_a_profile_without_loras_removes_those_of_the_former():
    settings = apply_profile(apply_profile(MINE, TWO), PLAIN)
    assert settings["activated_loras"] == MINE["activated_loras"]
    assert settings["loras_multipliers"] == MINE["loras_multipliers"]
    assert apply_profile({"prompt": "x"}, PLAIN) == {"prompt": "x", "num_inference_steps": 6}


def test_removing_restores_what_the_model_starts_from():
    base = {"num_inference_steps": 30, "guidance_scale": 5.0}
    settings = {**MINE, **base, "flow_shift": 9.0}
    applied = apply_profile(settings, FAST)
    assert remove_profile(applied, base, FAST) == {**MINE, **base}  # the base sets no flow_shift
    assert remove_profile(applied, {**base, "flow_shift": 5.0}, FAST) == {**MINE, **base, "flow_shift": 5.0}
    unknown = remove_profile(applied, base)
    assert (unknown["num_inference_steps"], unknown["activated_loras"]) == (4, MINE["activated_loras"])


def test_weights_the_user_left_out_stay_one():
    settings = {"activated_loras": ["a", "b"], "loras_multipliers": "0.5"}
    applied = apply_profile(settings, TWO)
    assert [item.phases for item in weights(applied).values()][2:] == [((0.5,),), ((1.0,),)]
    assert remove_profile(applied, {}, TWO)["loras_multipliers"] == "0.5"


def test_comments_of_the_user_stay():
    text = "# strength | of mine\n0.8\n# the other\n0.5"
    settings = {"activated_loras": ["a", "b"], "loras_multipliers": text}
    applied = apply_profile(settings, TWO)
    assert [item.phases for item in weights(applied).values()] == [
        ((1,), (0,)), ((0,), (1,)), ((0.8,),), ((0.5,),),
    ]  # fmt: skip
    assert apply_profile(applied, FAST)["loras_multipliers"] == f"1;0 |\n{text}"
    assert remove_profile(applied, {}, TWO)["loras_multipliers"] == text


@pytest.mark.parametrize(
    ("text", "items", "own"),
    [
        ("", (), ""),
        ("1 2", (), "1 2"),
        ("1;0 0;1|0.5", ("1;0", "0;1"), "0.5"),
        ("1 |", ("1",), ""),
        ("|0.5", (), "0.5"),
        ("# a|b\n1\n2 | 3\n# c\n4", ("1", "2"), "3\n# c\n4"),
        ("# a|b\n1", (), "# a|b\n1"),
    ],
)
def test_sides_of_a_text(text, items, own):
    assert split_profile(text) == (items, own)
    joined = join_profile(items, own)
    assert split_profile(joined) == (items, own)
    assert parse_multipliers(joined) == parse_multipliers(text)


def test_more_weights_left_than_loras():
    settings = {"activated_loras": ["a"], "loras_multipliers": "1 2 3 | 4"}
    assert apply_profile(settings, FAST)["activated_loras"] == ["https://h/fast.safetensors"]


def test_several_separators_are_an_error():
    settings = {"activated_loras": ["a"], "loras_multipliers": "1|2|3"}
    for change in (lambda: apply_profile(settings, FAST), lambda: remove_profile(settings, {}, FAST)):
        with pytest.raises(SettingsError, match="several"):
            change()
    assert applied_profile(settings, [FAST]) is None


def test_the_same_lora_is_not_applied_twice():
    settings = {"activated_loras": ["a", "x/FAST.safetensors", "b"], "loras_multipliers": "0.1 0.2 0.3"}
    assert repeated_loras(settings, FAST) == ("x/FAST.safetensors",)
    applied = apply_profile(settings, FAST)
    assert applied["activated_loras"] == ["https://h/fast.safetensors", "a", "b"]
    assert applied["loras_multipliers"] == "1;0 | 0.1 0.3"
    assert repeated_loras(applied, FAST) == ()
    with_folder = Profile("p", "wan", {}, ("https://h/fast.safetensors?download=true|accelerators",), "1")
    assert repeated_loras(settings, with_folder) == ("x/FAST.safetensors",)


def test_the_applied_profile_is_recognized():
    offered = [FAST, TWO, PLAIN]
    assert applied_profile(MINE, offered) is None
    for profile in (FAST, TWO):
        settings = apply_profile(MINE, profile)
        assert applied_profile(settings, offered) is profile
        assert applied_profile({**settings, "num_inference_steps": 99}, offered) is profile
        downloaded = [lora.rsplit("/")[-1] for lora in settings["activated_loras"]]
        assert applied_profile({**settings, "activated_loras": downloaded}, offered) is profile
        assert applied_profile({**settings, "loras_multipliers": "0.4 0.5 | 0.8"}, offered) is None
    assert applied_profile({**MINE, "num_inference_steps": 6}, offered) is PLAIN
    rounded = {**apply_profile(MINE, FAST), "loras_multipliers": "1.0;0 | 1 1"}
    assert applied_profile(rounded, offered) is FAST


def test_of_profiles_with_the_same_loras_the_settings_decide():
    other = Profile("other", "wan", {"num_inference_steps": 5, "flow_shift": 2.0}, FAST.loras, FAST.multipliers)
    for profile in (FAST, other):
        assert applied_profile(apply_profile(MINE, profile), [FAST, other]) is profile


def test_published_profiles_are_applied_replaced_and_removed(root):
    write(root / "profiles", published())
    catalog = load_catalog(root)
    replaced = 0
    for id in ("t2v", "i2v", "t2v_1.3B", "t2v_2_2", "i2v_2_2", "ti2v_2_2", "vace_14B_2_2"):
        definition = catalog[id]
        base = layer(definition.architecture, definition.settings)
        start = {**base, **MINE}
        offered = profiles_of(definition).profiles
        for first, second in itertools.permutations(offered, 2):
            settings = apply_profile(start, first)
            found = applied_profile(settings, offered)
            assert found is not None
            assert (found.loras, found.settings.items() >= first.settings.items()) == (first.loras, True)
            assert weights(settings)["mine.safetensors"].phases == ((0.8,),)
            assert settings["prompt"] == "a fox"
            changed = apply_profile(remove_profile(settings, base, found), second)
            assert changed == apply_profile(start, second)
            assert remove_profile(changed, base, second) == start
            replaced += 1
    assert replaced > 300


def test_presets_replace_the_own_loras_and_leave_the_profile(root):
    write(
        root / "loras",
        {
            "wan/style.lset": {"loras": ["s1", "s2"], "loras_mult": "0.7 0.6", "prompt": "# note"},
            "wan/whole.lset": {"loras": ["p", "s"], "loras_mult": "1;0 | 0.9", "prompt": "a bear", "full_prompt": True},
        },
    )
    style, whole = presets_of(load_catalog(root)["t2v"]).profiles
    settings = apply_profile(MINE, TWO)
    styled = apply_profile(settings, style)
    assert styled["activated_loras"] == ["high.safetensors", "low.safetensors", "s1", "s2"]
    assert styled["loras_multipliers"] == "1;0 0;1 | 0.7 0.6"
    assert styled["prompt"] == "a fox"
    assert repeated_loras(settings, style) == ()
    replaced = apply_profile(settings, whole)
    assert (replaced["activated_loras"], replaced["loras_multipliers"]) == (["p", "s"], "1;0 | 0.9")
    assert replaced["prompt"] == "a bear"
    assert applied_profile(styled, [style, TWO]) is TWO


def test_a_call_overrides_the_profile_which_overrides_the_rest(root, define):
    define(
        "mine",
        {"architecture": "t2v_2_2", "URLs": ["https://h/a"], "URLs2": ["https://h/b"]},
        activated_loras=["d"],
        flow_shift=9,
    )
    definition = load_catalog(root)["mine"]
    offered = profiles_of(definition).profiles
    three = next(profile for profile in offered if profile.steps == 8)
    call = call_with_profile(
        definition, three, offered, {"num_inference_steps": 6, "prompt": "a fox"}, {"flow_shift": 4, "seed": 5}
    )
    assert (call["num_inference_steps"], call["prompt"], call["seed"], call["flow_shift"]) == (6, "a fox", 5, 3)
    assert call["activated_loras"] == [*three.loras, "d"]
    assert call["loras_multipliers"] == "0;1;0 0;0;1 |"


def test_a_profile_in_the_saved_settings_is_replaced_completely(root):
    definition = load_catalog(root)["t2v_2_2"]
    offered = profiles_of(definition).profiles
    three = next(profile for profile in offered if profile.steps == 8)
    saved = apply_profile({"activated_loras": ["mine"], "loras_multipliers": "0.3"}, three)
    path = root / "settings" / "t2v_2_2_settings.json"
    path.parent.mkdir()
    path.write_text(json.dumps(saved))
    fusionix = next(profile for profile in offered if profile.steps == 10)
    call = call_with_profile(definition, fusionix, offered, {})
    assert call["activated_loras"] == [*fusionix.loras, "mine"]
    assert call["loras_multipliers"] == "1 | 0.3"
    assert (call["guidance_phases"], call["switch_threshold2"], call["model_switch_phase"]) == (2, 0, 0)
    without = call_with_profile(definition, None, offered, {"seed": 1})
    assert (without["activated_loras"], without["loras_multipliers"]) == (["mine"], "0.3")
    assert without["num_inference_steps"] == layer(definition.architecture, definition.settings)["num_inference_steps"]
    assert without["seed"] == 1


def test_all_built_in_profiles_survive_a_round_trip(root):
    for profile in all_profiles(root).profiles:
        settings = json.loads(json.dumps(apply_profile(MINE, profile)))
        assert applied_profile(settings, [profile]) is profile
        assert len(parse_multipliers(settings["loras_multipliers"])) == len(settings["activated_loras"])


@pytest.mark.parametrize(
    ("call", "own", "text"),
    [
        ({"activated_loras": ["mine.safetensors"]}, ["mine.safetensors"], "0.5"),
        ({"activated_loras": ["mine.safetensors"], "loras_multipliers": "0.3"}, ["mine.safetensors"], "0.3"),
        ({"loras_multipliers": "1 0.3"}, ["own.safetensors"], "0.3"),
        ({"loras_multipliers": "1 | 0.3"}, ["own.safetensors"], "0.3"),
        ({}, ["own.safetensors"], "0.5"),
    ],
)
def test_loras_of_a_call_are_never_the_stored_profiles(root, call, own, text):
    definition = load_catalog(root)["nano_t2v"]
    offered = [FAST, TWO]
    stored = {**FAST.settings, "activated_loras": [*FAST.loras, "own.safetensors"], "loras_multipliers": "1;0 | 0.5"}
    applied = call_with_profile(definition, TWO, offered, call, stored)
    assert applied["activated_loras"] == [*TWO.loras, *own]
    assert applied["loras_multipliers"] == f"1;0 0;1 | {text}"
    removed = call_with_profile(definition, None, offered, call, stored)
    assert (removed["activated_loras"], removed["loras_multipliers"]) == (own, text)
    weights_only = "loras_multipliers" in call and "activated_loras" not in call
    assert weights_only or removed["num_inference_steps"] != 4
