"""Which profiles and LoRA presets fit a model, wherever they are, and what becomes of files that can't be used."""

import json
import os
from pathlib import Path

import pytest

from published_profiles import published, write
from reeltune import load_catalog
from reeltune.errors import SettingsError
from reeltune.profiles import all_profiles, presets_of, profiles_of

FAST = {"num_inference_steps": 4, "activated_loras": ["fast.safetensors"], "loras_multipliers": "1"}
WEIGHTS = ["https://h/x_bf16.safetensors"]
FOLDERS = {
    "t2v": "wan", "vace_14B": "wan", "t2v_2_2": "wan_2_2", "i2v_2_2": "wan_2_2", "vace_14B_2_2": "wan_2_2", "i2v": "wan_i2v",
    "fun_inp": "wan_i2v", "flf2v_720p": "wan_i2v", "t2v_1.3B": "wan_1.3B", "vace_1.3B": "wan_1.3B", "ti2v_2_2": "wan_2_2_5B",
    "hunyuan_1_5_t2v": "hunyuan_1_5", "hunyuan_1_5_i2v": "hunyuan_1_5",
}  # fmt: skip
BUILT_IN = {
    "t2v": {"CausVid with details, 10 steps", "FusioniX, 10 steps", "lightx2v, 4 steps"},
    "i2v": {"FusioniX, 10 steps", "lightx2v, 4 steps"},
    "t2v_1.3B": {"CausVid, 8 steps"},
    "t2v_2_2": {"FusioniX, 10 steps", "Lightning for text, 2 phases, 4 steps", "Lightning for text, 3 phases, 8 steps"},
    "i2v_2_2": {"Lightning for images, 2 phases, 4 steps", "Lightning for images, 3 phases, 8 steps"},
    "ti2v_2_2": {"FastWan, 3 steps"},
    "hunyuan": set(),
    "hunyuan_1_5_t2v": {"lightx2v for text, 8 steps"},
    "hunyuan_1_5_i2v": {"Step distilled for images, 8 steps"},
    "ltx2_19B": set(),
    "ltx2_22B": {
        "Distilled LoRA, 8 steps",
        "Distilled LoRA in two passes, 8 and 3 steps",
        "Guided, 30 and 3 steps",
    },
    "ltx2_22B_distilled": set(),
    "nano_t2v": {"Neon look", "Turbo, 4 steps"},
    "nano_neon": set(),
}


def names(offered):
    return [profile.name for profile in offered.profiles]


@pytest.mark.parametrize("id", FOLDERS)
def test_the_published_profiles_are_offered_for_the_models_they_are_for(root, id):
    write(root / "profiles", published())
    offered = profiles_of(load_catalog(root)[id])
    own = {name for name in published() if name.startswith(f"{FOLDERS[id]}/")}
    assert own
    assert {" ".join(name.split("/")[1].removesuffix(".json").split()) for name in own} == {
        profile.name for profile in offered.profiles if profile.file
    }
    assert not offered.problems


def test_nothing_of_a_published_profile_is_lost_silently(root):
    write(root / "profiles", published())
    found = {profile.file: profile for profile in all_profiles(root).profiles if profile.file}
    assert len(found) == 25
    for name, values in published().items():
        profile = found[root / "profiles" / name]
        assert profile.folder == name.split("/")[0]
        assert list(profile.loras) == values["activated_loras"]
        assert profile.multipliers == values["loras_multipliers"]
        for key, value in values.items():
            if key in ("activated_loras", "loras_multipliers"):
                continue
            assert profile.settings.get(key) == value or key in " ".join(profile.notices), (name, key)
    misspelled = [profile.name for profile in found.values() if profile.notices]
    assert len(misspelled) == 2  # they set `sample_solvers`


@pytest.mark.parametrize("id", BUILT_IN)
def test_built_in_profiles(root, id):
    offered = profiles_of(load_catalog(root)[id])
    assert set(names(offered)) == BUILT_IN[id]
    assert not offered.problems
    for profile in offered.profiles:
        assert profile.description.endswith(".")
        assert profile.source == "built in"
        assert profile.notices == ()
        assert all(lora.startswith("https://") or profile.folder == "nano" for lora in profile.loras)
        assert len(profile.multipliers.split()) == len(profile.loras)
        assert profile.settings.keys() <= {
            "num_inference_steps", "guidance_phases", "guidance_scale", "guidance2_scale", "guidance3_scale", "flow_shift",
            "sample_solver", "switch_threshold", "switch_threshold2", "model_switch_phase", "audio_guidance_scale",
            "alt_guidance_scale", "alt_scale", "perturbation_switch", "perturbation_layers",
        }  # fmt: skip


def test_built_in_profiles_have_the_values_of_published_ones(root):
    facts = list(published().values())
    for profile in all_profiles(root).profiles:
        if profile.folder == "nano" or profile.folder.startswith(
            "ltx2"
        ):  # the package's own LoRAs; newer than the facts
            continue
        same_loras = [row for row in facts if row["activated_loras"] == list(profile.loras)]
        matching = [row for row in same_loras if row["loras_multipliers"] == profile.multipliers]
        assert any(all(row.get(key, value) == value for key, value in profile.settings.items()) for row in matching), (
            profile.name
        )


def test_the_finetune_decides_which_folders_are_read(root, define):
    write(root / "profiles", {"wan/a.json": FAST, "mine/b.json": FAST, "other/c.json": FAST})
    define("one", {"architecture": "t2v", "URLs": WEIGHTS, "profiles_dir": ["mine", "other"]})
    define("none", {"architecture": "t2v", "URLs": WEIGHTS, "profiles_dir": [""]})
    catalog = load_catalog(root)
    assert names(profiles_of(catalog["one"])) == ["b", "c"]
    assert names(profiles_of(catalog["none"])) == []
    assert names(profiles_of(catalog["t2v"]))[0] == "a"


def test_a_profile_may_be_for_some_architectures_only(root):
    write(
        root / "profiles",
        {"wan/a.json": {**FAST, "about": {"architectures": ["vace_14B"], "description": "For Vace."}}},
    )
    catalog = load_catalog(root)
    assert "a" not in names(profiles_of(catalog["t2v"]))
    profile = profiles_of(catalog["vace_14B"]).named("a")
    assert (profile.description, profile.notices) == ("For Vace.", ())


@pytest.mark.parametrize("listed", ["wangp", "wangp/ckpts", "wangp/ckpts/wan", "wangp/models"])
def test_profiles_and_presets_of_a_wangp_folder(root, tmp_path, listed):
    write(tmp_path / "wangp" / "profiles", {"wan/theirs.json": FAST})
    write(tmp_path / "wangp" / "loras", {"wan/style.lset": {"loras": ["a.safetensors"], "loras_mult": "0.7"}})
    (tmp_path / listed).mkdir(parents=True, exist_ok=True)
    definition = load_catalog(root)["t2v"]
    assert names(profiles_of(definition, [str(tmp_path / listed)]))[0] == "theirs"
    assert names(presets_of(definition, [str(tmp_path / listed)])) == ["style"]
    assert names(presets_of(definition)) == []


def test_the_first_profile_with_a_name_is_used(root, tmp_path):
    write(root / "profiles", {"wan/lightx2v, 4 steps.json": {**FAST, "num_inference_steps": 5}})
    write(tmp_path / "wangp" / "profiles", {"wan/LIGHTX2V,  4 steps.json": {**FAST, "num_inference_steps": 6}})
    offered = profiles_of(load_catalog(root)["t2v"], [str(tmp_path / "wangp")])
    assert len(offered.profiles) == 3
    assert offered.named("lightx2v, 4 steps").steps == 5


BROKEN = {
    "cut.json": b"{",
    "empty.json": b"",
    "list.json": b"[1]",
    "text.json": b"\xff\xfe{",
    "nothing.json": b"{}",
    "prompt.json": b'{"prompt": "a fox"}',
    "weights.json": b'{"activated_loras": ["a"], "loras_multipliers": "1;x"}',
    "sides.json": b'{"activated_loras": ["a"], "loras_multipliers": "1|2|3"}',
    "large.json": b'{"num_inference_steps": 4, "negative_prompt": "' + b"x" * 1_000_001 + b'"}',
    "deep.json": b'{"a":' * 100 + b"1" + b"}" * 100,
}


def test_broken_files_are_reported_and_stop_no_other(root):
    write(root / "profiles", {f"wan/{name}": content for name, content in BROKEN.items()})
    write(root / "profiles", {"wan/good.json": FAST})
    (root / "profiles" / "wan" / "folder.json").mkdir()
    offered = profiles_of(load_catalog(root)["t2v"])
    assert names(offered)[0] == "good"
    assert len(offered.profiles) == 4
    reported = {Path(problem.file).name for problem in offered.problems}
    assert reported == {*BROKEN, "folder.json"}
    assert all(problem.message and problem.fix for problem in offered.problems)


def test_a_pipe_is_not_waited_for(root):
    (root / "profiles" / "wan").mkdir(parents=True)
    os.mkfifo(root / "profiles" / "wan" / "pipe.json")
    offered = profiles_of(load_catalog(root)["t2v"])
    assert "not a regular file" in offered.problems[0].message


def test_a_folder_that_can_not_be_read_is_reported(root):
    (root / "profiles").mkdir()
    (root / "profiles" / "wan").write_text("not a folder")
    offered = profiles_of(load_catalog(root)["t2v"])
    assert "can't be read" in offered.problems[0].message
    assert len(offered.profiles) == 3


def test_too_many_files_are_reported(root, monkeypatch):
    monkeypatch.setattr("reeltune.profiles.finding._MAX_FILES", 3)
    write(root / "profiles", {f"wan/{number}.json": FAST for number in range(5)})
    offered = profiles_of(load_catalog(root)["t2v"])
    assert names(offered)[:3] == ["0", "1", "2"]
    assert "contains 5 files" in offered.problems[0].message


def test_other_files_and_hidden_ones_are_ignored(root):
    write(root / "profiles", {"wan/a.JSON": FAST, "wan/.b.json": FAST, "wan/c.txt": b"x", "wan/d.lset": FAST})
    offered = profiles_of(load_catalog(root)["t2v"])
    assert [profile.name for profile in offered.profiles if profile.file] == ["a"]
    assert not offered.problems


def test_values_of_any_date_and_program_are_read(root):
    values = {
        **FAST,
        "prompt": "theirs",
        "seed": 7,
        "resolution": "64x64",
        "tea_cache_setting": 2.0,
        "flow_shift": "three",
        "later_setting": 5,
        "type": "WanGP v10",
        "settings_version": 2.4,
    }
    write(root / "profiles", {"wan/old.json": values})
    profile = profiles_of(load_catalog(root)["t2v"]).named("old")
    assert dict(profile.settings) == {
        "num_inference_steps": 4, "skip_steps_cache_type": "tea", "skip_steps_multiplier": 2.0,
    }  # fmt: skip
    text = " ".join(profile.notices)
    assert "flow_shift" in text
    assert "later_setting" in text
    assert "doesn't change these settings of the file: prompt, resolution, seed" in text


def test_every_lora_has_a_weight_and_surplus_weights_are_reported(root):
    loras = ["a.safetensors", "b.safetensors"]
    write(
        root / "profiles",
        {
            "wan/few.json": {"activated_loras": loras, "loras_multipliers": "0.5"},
            "wan/many.json": {"activated_loras": loras, "loras_multipliers": [1, 0.5, 2]},
            "wan/split.json": {"activated_loras": loras, "loras_multipliers": "1;0|0.3"},
        },
    )
    offered = profiles_of(load_catalog(root)["t2v"])
    assert [offered.named(name).multipliers for name in ("few", "many", "split")] == ["0.5 1", "1 0.5", "1;0 0.3"]
    assert "3 items for 2 LoRAs: 1 not used" in offered.named("many").notices[0]


def test_settings_that_only_a_caller_can_set_are_left_out(root):
    write(root / "profiles", {"hunyuan/a.json": {**FAST, "guidance_scale": 5}})
    assert "guidance_scale" not in profiles_of(load_catalog(root)["hunyuan"]).named("a").settings


def test_a_profile_is_found_by_a_part_of_its_name(root):
    offered = profiles_of(load_catalog(root)["t2v_2_2"])
    assert offered.named("  lightning FOR text, 3 phases,  8 steps").steps == 8
    assert offered.named("fusionix").steps == 10
    with pytest.raises(SettingsError, match="part of several names: 'Lightning for text, 2 phases, 4 steps', "):
        offered.named("lightning")
    with pytest.raises(SettingsError, match="There are: 'FusioniX, 10 steps'"):
        offered.named("turbo")
    with pytest.raises(SettingsError, match="There are"):
        offered.named("")
    with pytest.raises(SettingsError, match="No profile fits this model"):
        profiles_of(load_catalog(root)["nano_neon"]).named("turbo")


def test_presets_of_loras(root):
    folder = root / "loras"
    write(
        folder,
        {
            "wan/style.lset": {
                "loras": ["a.safetensors", "https://h/b.safetensors"],
                "loras_mult": "0.7 1",
                "prompt": "",
            },
            "wan/full.lset": {"loras": ["a.safetensors"], "loras_mult": "1", "prompt": "a fox", "full_prompt": True},
            "wan/note.lset": {"loras": ["a.safetensors"], "prompt": "# say\nneon", "full_prompt": False, "extra": 1},
            "wan/empty.lset": {"loras": [], "loras_mult": ""},
            "wan/profile.lset": FAST,
            "wan/bad.lset": {"loras": ["a.safetensors"], "loras_mult": "x"},
            "wan/cut.lset": b"{",
            "wan/a.safetensors": b"x",
            "wan_i2v/other.lset": {"loras": ["a.safetensors"]},
        },
    )
    offered = presets_of(load_catalog(root)["t2v_2_2"])
    assert names(offered) == ["full", "note", "style"]
    full, note, style = offered.profiles
    assert (style.loras, style.multipliers) == (("a.safetensors", "https://h/b.safetensors"), "0.7 1")
    assert (full.prompt, full.description) == ("a fox", "")
    assert (note.prompt, note.description) == ("", "# say neon")
    assert [profile.preset for profile in offered.profiles] == [True] * 3
    assert "extra" in note.notices[0]
    assert {Path(problem.file).name for problem in offered.problems} == {
        "empty.lset", "profile.lset", "bad.lset", "cut.lset",
    }  # fmt: skip


def test_profiles_are_values_for_programs(root):
    profile = profiles_of(load_catalog(root)["ti2v_2_2"]).named("fastwan")
    content = json.loads(json.dumps(profile.as_json()))
    assert content["name"] == "FastWan, 3 steps"
    assert content["settings"]["num_inference_steps"] == 3
    assert content["source"] == "built in"
    assert profile.guidance == (1,)
