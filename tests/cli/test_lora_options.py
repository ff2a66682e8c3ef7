"""`--lora` of generate and explain: names, files, URLs, weights; the table of steps; the real LoRAs of the package."""

import json
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

from reeltune.cli.app import main
from reeltune.cli.calls import split_lora
from reeltune.media.mp4 import read_frames, read_metadata

NEON, TURBO = "nano_neon_lora_r32_bf16.safetensors", "nano_turbo_lora_r32_bf16.safetensors"
PACKAGE = Path(str(resources.files("reeltune"))) / "nano"
FAST = ("--set", "num_inference_steps=4", "--seed", "3")


@pytest.fixture
def run(root, capsys):
    """Run a command as a user does; returns exit code, stdout, stderr."""

    def call(*words):
        code = 0
        try:
            main([*words, "--root", str(root)])
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.mark.parametrize(
    ("text", "source", "weights"),
    [
        ("style.safetensors", "style.safetensors", ""),
        ("style.safetensors:0.8", "style.safetensors", "0.8"),
        ("style.safetensors:-1e-1,0.5;0", "style.safetensors", "-1e-1,0.5;0"),
        ("https://h/a.safetensors", "https://h/a.safetensors", ""),
        ("https://h:8080/a.safetensors:1;0", "https://h:8080/a.safetensors", "1;0"),
        (r"C:\loras\style.safetensors", r"C:\loras\style.safetensors", ""),
        (r"C:\loras\style.safetensors:0.5", r"C:\loras\style.safetensors", "0.5"),
        ("odd:name.safetensors", "odd:name.safetensors", ""),
    ],
)
def test_a_file_or_url_and_its_weights(text, source, weights):
    assert split_lora(text) == (source, weights)


def test_a_file_in_the_current_folder_is_meant(tmp_path, monkeypatch):
    (tmp_path / "here.safetensors").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    assert split_lora("here.safetensors:0.5") == (str(tmp_path / "here.safetensors"), "0.5")


def test_explain_shows_the_steps_and_what_fits(run):
    code, out, _ = run("explain", "nano_t2v", "--lora", f"{NEON}:1,0.5", "--lora", TURBO, *FAST[:2])
    assert code == 0
    table = out[out.index("STEPS") :].splitlines()
    assert table[0].split() == ["STEPS", "TRANSFORMER", "PHASE", "GUIDANCE", "LORA", "1", "LORA", "2"]
    assert [line.split() for line in table[1:3]] == [
        ["1-2", "transformer", "1", "3", "1", "1"],
        ["3-4", "transformer", "1", "3", "0.5", "1"],
    ]
    assert table[3].startswith(f"LORA 1: {NEON}, applied ")
    code, out, _ = run("explain", "nano_t2v", "--lora", f"{NEON}:1,0.5", *FAST[:2], "--json")
    plan = json.loads(out)
    (lora,) = plan["loras"]
    assert (lora["name"], lora["file"], lora["weights"]) == (NEON, str(PACKAGE / NEON), [1.0, 1.0, 0.5, 0.5])
    assert lora["modules"] == lora["total"] > 50
    assert lora["left"] == []
    assert plan["phases"] == [{"first_step": 0, "transformer": "transformer", "guidance_scale": 3.0}]


def test_explain_shows_phases_and_weights_before_anything_is_downloaded(run):
    options = ["--lora", "https://h.example/high.safetensors:1;0", "--lora", "https://h.example/low.safetensors:0;1"]
    code, out, _ = run(
        "explain",
        "t2v_2_2",
        *options,
        "--set",
        "num_inference_steps=4",
        "--set",
        "guidance2_scale=1",
        "--set",
        "switch_threshold=940",
        "--json",
    )
    assert code == 0
    plan = json.loads(out)
    assert [lora["weights"] for lora in plan["loras"]] == [[1, 1, 0, 0], [0, 0, 1, 1]]
    assert [lora["modules"] for lora in plan["loras"]] == [None, None]
    assert [phase["transformer"] for phase in plan["phases"]] == ["transformer", "transformer_2"]
    assert [row["path"].rpartition("loras")[2].replace("\\", "/") for row in plan["downloads"] if "/loras/" in row["path"].replace("\\", "/")] == [
        "/wan/high.safetensors", "/wan/low.safetensors",
    ]  # fmt: skip


def test_generate_applies_loras_and_the_video_can_be_made_again_from_its_settings(run, root, tmp_path):
    plain, styled, again = (tmp_path / f"{name}.mp4" for name in ("plain", "styled", "again"))
    assert run("generate", "nano_t2v", *FAST, "-o", str(plain))[0] == 0
    code, _, err = run("generate", "nano_t2v", *FAST, "--lora", f"{NEON}:0.9", "-o", str(styled))
    assert code == 0
    assert f"{NEON} on transformer: applied " in err
    stored = read_metadata(styled)["settings"]
    assert (stored["activated_loras"], stored["loras_multipliers"]) == ([NEON], "0.9")
    assert run("generate", "nano_t2v", "--settings", str(styled), "-o", str(again))[0] == 0
    assert np.array_equal(read_frames(again), read_frames(styled))
    assert not np.array_equal(read_frames(plain), read_frames(styled))


def test_loras_are_added_to_those_of_the_settings(run, root):
    (root / "settings").mkdir()
    saved = {"activated_loras": [TURBO], "loras_multipliers": "0.5"}
    (root / "settings" / "nano_t2v_settings.json").write_text(json.dumps(saved))
    _, out, _ = run("explain", "nano_t2v", "--lora", f"{NEON}:0.25", "--json")
    assert [(lora["name"], lora["weights"][0]) for lora in json.loads(out)["loras"]] == [(TURBO, 0.5), (NEON, 0.25)]


@pytest.mark.parametrize(
    ("lora", "words"),
    [
        ("nothing.safetensors", "nothing.safetensors is neither a URL nor an existing file"),
        (f"{NEON}:1;0", "weights for 2 phases, and there are 1"),
        ("https://127.0.0.1:9/x.safetensors", "switched off"),
    ],
)
def test_what_cannot_be_used_is_an_error_in_words(run, monkeypatch, lora, words):
    monkeypatch.setenv("REELTUNE_OFFLINE", "1")
    code, _, err = run("generate", "nano_t2v", *FAST, "--lora", lora)
    assert code == 1
    assert words in " ".join(err.split())
    assert "Traceback" not in err


def test_show_lists_the_loras_of_a_definition(run, define):
    define(
        "styled",
        {"architecture": "t2v_1.3B", "URLs": "nano_t2v", "components": "reeltune/nano", "loras": [NEON],
         "loras_multipliers": [0.5]},
    )  # fmt: skip
    _, out, _ = run("show", "styled")
    assert "loras         weights 0.5" in out
    assert f"  {NEON}" in out
    assert json.loads(run("show", "styled", "--json")[1])["loras"] == [NEON]


def test_show_tells_the_lora_of_the_second_pass_from_others(run, define):
    model = {"architecture": "ltx2_19B", "URLs": ["https://h/x_bf16.safetensors"], "loras": ["https://h/a.safetensors"]}
    define("mine", {**model, "ltx2_lora_distilled": "https://h/b.safetensors", "loras_multipliers": [0.5]})
    _, out, _ = run("show", "mine")
    assert (
        "loras         weights 0.5\n  https://h/a.safetensors\n\nsecond pass   with a LoRA\n  https://h/b.safe" in out
    )


def test_no_token_of_a_url_is_printed(run, define):
    url = "https://me:SECRET@h/x_bf16.safetensors?token=SECRET"
    define("mine", {"architecture": "t2v_1.3B", "URLs": [url], "loras": [url]}, activated_loras=[url])
    define("text", {"architecture": "t2v_1.3B", "URLs": url})
    define("odd", {"architecture": "t2v_1.3B", "URLs": [f"{url}\x00"], "name": [url]}, activated_loras=[url, 5])
    commands = (["show", "mine"], ["explain", "mine"], ["explain", "text"], ["check"], ["list"])
    for command in (*commands, ["show", "mine", "--json"], ["explain", "mine", "--json"], ["check", "--json"]):
        _, out, err = run(*command)
        assert "SECRET" not in out + err
    assert "https://h/x_bf16.safetensors" in run("show", "mine")[1]


def test_explain_shows_the_loras_of_a_definition_although_its_settings_cannot_run(run, define):
    define("mine", {"architecture": "t2v_1.3B", "URLs": "nano_t2v", "loras": [NEON]}, perturbation_switch=2)
    _, out, err = run("explain", "mine", "--json")
    assert "can't be used with these settings" in err
    assert NEON in [Path(item["path"]).name for item in json.loads(out)["downloads"]]
