"""`profiles`, `generate --speed-profile`, and profiles and LoRA presets as settings files."""

import json

import pytest

from published_profiles import published, write
from reeltune.cli import generate as generate_module
from reeltune.cli.app import main


@pytest.fixture
def run(root, capsys):
    """Run a command as a user does; returns exit code, stdout, stderr."""

    def call(*words: str):
        code = 0
        try:
            main([*words, "--root", str(root)])
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def called(run, monkeypatch):
    """Run `generate`; returns the settings that it would make videos with, and stderr."""
    calls = []
    monkeypatch.setattr(
        generate_module, "_write_videos", lambda definition, preferences, call, output: calls.append(call)
    )

    def call(*words: str):
        calls.clear()
        code, _, err = run("generate", *words)
        return (calls[0] if calls else code), err

    return call


def test_profiles_are_listed_for_a_model_and_for_all(run):
    code, out, err = run("profiles", "t2v_2_2")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].split() == ["NAME", "FOLDER", "STEPS", "GUIDANCE", "LORAS", "FROM"]
    assert [line.split("  ")[0] for line in lines[1:]] == [
        "FusioniX, 10 steps",
        "Lightning for text, 2 phases, 4 steps",
        "Lightning for text, 3 phases, 8 steps",
    ]
    assert "3.5 / 1 / 1" in lines[3]
    assert lines[3].endswith("built in")
    assert len(run("profiles")[1].splitlines()) > 10
    assert run("profiles", "nano_neon")[1] == "No profile fits nano_neon.\n"
    content = json.loads(run("profiles", "ti2v_2_2", "--json")[1])
    assert [profile["name"] for profile in content] == ["FastWan, 3 steps"]
    assert json.loads(run("profiles", "nano_neon", "--json")[1]) == []


def test_files_that_can_not_be_used_are_reported(run, root):
    write(root / "profiles", published())
    write(root / "profiles", {"wan_2_2/broken.json": b"{"})
    code, out, err = run("profiles", "i2v_2_2")
    assert code == 0
    assert "Lightning t2v v1.0 2 Phases - 4 Steps" in out
    assert "broken.json" in err
    assert err.count("Unknown settings are ignored: sample_solvers.") == 2
    assert "broken.json" in run("profiles")[2]


def test_an_unknown_profile_is_an_error_with_the_names_that_exist(called, root):
    write(root / "profiles", {"wan/broken.json": b"{"})
    code, err = called("t2v", "a fox", "--speed-profile", "turbo")
    assert code == 1
    assert "No profile 'turbo' found" in err
    assert "lightx2v, 4 steps" in err
    assert "broken.json" in err


def test_a_profile_is_used_and_other_options_override_it(called):
    call, err = called("t2v", "a fox", "--speed-profile", "lightx2v", "--set", "flow_shift=7", "--seed", "3")
    assert err == ""
    assert (call["prompt"], call["seed"], call["num_inference_steps"], call["flow_shift"]) == ("a fox", 3, 4, 7)
    assert call["loras_multipliers"] == "1 |"
    call, _ = called("t2v", "a fox", "--speed-profile", "lightx2v", "--set", "activated_loras=mine.safetensors")
    assert call["activated_loras"][1:] == ["mine.safetensors"]


def test_a_repeated_lora_is_reported(called):
    name = "x/Wan21_T2V_14B_lightx2v_cfg_step_distill_lora_rank32.safetensors"
    call, err = called("t2v", "a fox", "--speed-profile", "lightx2v", "--set", f"activated_loras={name}")
    assert len(call["activated_loras"]) == 1
    assert "left out of your LoRAs" in err


def test_a_profile_overrides_a_settings_file(called, root):
    (root / "mine.json").write_text(json.dumps({"num_inference_steps": 33, "seed": 9, "activated_loras": ["m"]}))
    call, _ = called("t2v", "a fox", "--settings", str(root / "mine.json"), "--speed-profile", "lightx2v")
    assert (call["num_inference_steps"], call["seed"], call["activated_loras"][1:]) == (4, 9, ["m"])


def test_a_profile_in_the_saved_settings_is_removed(called, root):
    call, _ = called("t2v", "a fox", "--speed-profile", "lightx2v")
    (root / "settings").mkdir()
    (root / "settings" / "t2v_settings.json").write_text(json.dumps(call))
    call, _ = called("t2v", "a fox", "--speed-profile", "None")
    assert (call["activated_loras"], call["num_inference_steps"]) == ([], 30)
    call, _ = called("t2v", "a fox")
    assert call == {"prompt": "a fox"}


def test_files_as_profiles_and_as_settings(called, root):
    write(root, {"x/published.json": published()["wan_2_2/Lightning i2v v1.0 2 Phases - 4 Steps.json"]})
    write(root, {"x/style.lset": {"loras": ["s.safetensors"], "loras_mult": "0.7", "prompt": "# neon"}})
    write(root, {"x/full.LSET": {"loras": ["s.safetensors"], "prompt": "a bear", "full_prompt": True}})
    profile, preset, full = (str(root / "x" / name) for name in ("published.json", "style.lset", "full.LSET"))

    call, err = called("t2v_2_2", "a fox", "--speed-profile", profile)
    assert (call["num_inference_steps"], call["loras_multipliers"]) == (4, "1;0 0;1 |")
    assert "published: Unknown settings are ignored: sample_solvers." in err
    call, err = called("t2v_2_2", "a fox", "--settings", profile)
    assert (call["num_inference_steps"], call["loras_multipliers"]) == (4, "1;0 0;1")
    assert "sample_solvers" in err

    call, err = called("t2v_2_2", "--settings", preset)
    assert call == {"activated_loras": ["s.safetensors"], "loras_multipliers": "0.7"}
    assert "prompt" in err
    assert called("t2v_2_2", "--settings", full)[0]["prompt"] == "a bear"
    assert called("t2v_2_2", "a fox", "--settings", full)[0]["prompt"] == "a fox"
    call, _ = called("t2v_2_2", "--settings", preset, "--speed-profile", profile)
    assert call["loras_multipliers"] == "1;0 0;1 | 0.7"
    call, _ = called("t2v_2_2", "a fox", "--speed-profile", preset)
    assert (call["activated_loras"], call["loras_multipliers"]) == (["s.safetensors"], "0.7")


def test_our_own_keys_of_a_profile_are_no_unknown_settings(called, root):
    write(root, {"mine.json": {"about": {"description": "Fast."}, "num_inference_steps": 5}})
    call, err = called("t2v", "a fox", "--settings", str(root / "mine.json"))
    assert (call["num_inference_steps"], err) == (5, "")


def test_settings_read_prints_a_preset_as_settings(run, root):
    write(root, {"style.lset": {"loras": ["s.safetensors"], "loras_mult": [0.7], "prompt": "x", "full_prompt": True}})
    from typer.testing import CliRunner

    from reeltune.cli.app import app

    answer = CliRunner().invoke(app, ["settings", "read", str(root / "style.lset")])
    content = json.loads(answer.output)
    assert (content["activated_loras"], content["loras_multipliers"], content["prompt"]) == (
        ["s.safetensors"],
        "0.7",
        "x",
    )
