import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from typer.testing import CliRunner

from reeltune.cli.app import app, main
from reeltune.media.mp4 import read_frames, read_metadata

PROJECT = Path(__file__).parents[2]
WEIGHTS = ["https://h/x_bf16.safetensors"]


@pytest.fixture
def run(root, capsys, monkeypatch):
    """Run a command as a user does; returns exit code, stdout, stderr."""

    def call(*words: str):
        code = 0
        monkeypatch.setattr("sys.stdin", io.StringIO())  # nobody is there to answer
        try:
            main([*words])
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return lambda *words: (
        call(*words, "--root", str(root))
        if words[0] != "inspect" and words[:2] != ("settings", "read")
        else call(*words)
    )


def test_list(run, define):
    define("styled", {"architecture": "t2v", "URLs": WEIGHTS, "loras": ["https://h/l.safetensors"]})
    define("images", {"architecture": "flf2v_720p", "URLs": WEIGHTS, "image_outputs": True})
    code, out, err = run("list")
    assert code == 0
    assert "nano_t2v" in out
    assert "it makes single images (image_outputs), and its architecture needs an end image: images" in err
    assert "styled" not in err
    models = json.loads(run("list", "--json")[1])
    assert set(models[0]) == {"id", "name", "architecture", "kind", "runnable", "reason", "visible"}
    runnable = {model["id"]: model["runnable"] for model in models}
    assert (runnable["nano_t2v"], runnable["styled"], runnable["images"]) == (True, True, False)
    assert all(model["runnable"] or model["reason"] for model in models)


def test_show(run):
    code, out, _ = run("show", "t2v_2_2")
    assert code == 0
    assert "transformer_2" in out
    assert "switch_threshold = 875" in out
    assert json.loads(run("show", "nano_t2v", "--json")[1])["settings"]["video_length"] == 17


def test_explain(run):
    code, out, _ = run("explain", "t2v", "--quantization", "bf16", "--dtype", "fp16")
    assert code == 0
    assert "wan2.1_text2video_14B_mbf16.safetensors" in out
    assert "converted from bf16" in out
    answer = json.loads(run("explain", "t2v", "--json")[1])
    assert {"id", "architecture", "choices", "rejected", "downloads"} <= set(answer)
    assert {"file", "url", "quantize_on_load", "dtype"} <= set(answer["choices"]["transformer"])
    code, _, err = run("explain", "t2v", "--dtype", "fp8")
    assert code == 1
    assert "auto, bf16, fp16" in err


def test_inspect(run, root):
    from importlib import resources

    path = str(Path(str(resources.files("reeltune"))) / "nano" / "nano_t2v_quanto_bf16_int8.safetensors")
    assert "quanto_int8" in run("inspect", path)[1]
    answer = json.loads(run("inspect", path, "--json")[1])
    assert {"format", "family", "architectures", "layout", "quantization", "dtypes", "parameters", "bytes"} <= set(
        answer
    )
    assert answer["layout"] == "original"
    assert run("inspect", str(root / "none"))[0] == 1


def test_check(run, root, define):
    define("good", {"architecture": "t2v", "URLs": WEIGHTS})
    assert run("check") == (0, "1 definition checked: 0 errors, 0 warnings.\n", "")
    define("local", {"architecture": "t2v", "URLs": ["ckpts/x.safetensors", "https://h/x.pt"], "nam": "x"})
    code, out, _ = run("check")
    assert code == 0
    assert "is a path on this machine" in out
    assert "'name'" in out
    assert "never loaded" in out
    bad = root / "finetunes" / "bad.json"
    bad.write_text('{"model": {},}')
    code, out, _ = run("check", str(bad))
    assert code == 1
    assert "line 1, column" in out
    define("circle", {"architecture": "t2v", "URLs": "circle"})
    problems = json.loads(run("check", str(root / "finetunes"), "--json")[1])
    assert {problem["severity"] for problem in problems} == {"error", "warning"}
    assert any("circular" in problem["message"] for problem in problems)
    assert run("check", str(root / "none.json"))[0] == 1


def test_broken_definitions_are_reported_and_stop_no_command(run, root):
    (root / "finetunes" / "bad.json").write_text("{")
    code, out, err = run("list")
    assert code == 0
    assert "nano_t2v" in out
    assert "bad.json" in err
    code, _, err = run("show", "bad")
    assert code == 1
    assert "bad.json" in err


def test_urls_replace(run, define):
    path = define("mine", {"architecture": "t2v", "URLs": WEIGHTS})
    assert "1 in URLs" in run("urls", "replace", "mine", "https://h", "https://new")[1]
    assert "https://new/x_bf16" in path.read_text(encoding="utf-8")
    assert run("urls", "replace", "mine", "nothing", "x")[0] == 1
    code, _, err = run("urls", "replace", "t2v", "a", "b")
    assert code == 1
    assert "built in" in err


def test_settings_export(run, root):
    assert run("settings", "export", "--all")[0] == 0
    from reeltune import load_catalog

    catalog = load_catalog(root)
    for id in catalog:
        stored = json.loads((root / "settings" / f"{id}_settings.json").read_text(encoding="utf-8"))
        assert stored["model_type"] == id
        assert stored["resolution"]
    code, _, err = run("settings", "export", "t2v")
    assert code == 1
    assert "--force" in err
    assert run("settings", "export", "t2v", "--force")[0] == 0
    assert run("settings", "export")[0] == 1
    assert run("settings", "export", "nope")[0] == 1


def test_generate_writes_a_video_and_reports_the_files_used(run, root):
    words = (
        "generate",
        "nano_t2v",
        "a blue square",
        "--set",
        "num_inference_steps=1",
        "--set",
        "video_length=5",
        "--seed",
        "4",
    )
    code, out, err = run(*words)
    assert code == 0
    path = Path(out.strip())
    assert path.parent == root / "outputs"
    assert "nano_t2v_quanto_bf16_int8.safetensors (quanto int8" in err
    assert read_metadata(path)["settings"]["prompt"] == "a blue square"
    target = root / "here.mp4"
    code, out, _ = run(*words, "-o", str(target), "--quantization", "bf16", "--set", "repeat_generation=2")
    assert out.split() == [str(target), str(root / "here_2.mp4")]
    assert read_metadata(target)["files"]["transformer"]["name"] == "nano_t2v_bf16.safetensors"


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("generate", "i2v"), "--image-start FILE"),
        (("generate", "nano_t2v", "--image-start", "x.png"), "accepts no images"),
        (("generate", "nano_t2"), "nano_t2v"),
        (("generate", "nano_t2v", "--set", "step=5"), "Unknown setting"),
        (("generate", "nano_t2v", "-o", "x.gif"), ".mp4"),
        (("generate", "nano_t2v", "--device", "cuda:9"), "cuda:9"),
        (("pull", "nope"), "reeltune list"),
    ],
)
def test_errors_have_a_hint_and_no_traceback(run, words, hint):
    code, out, err = run(*words)
    assert code == 1
    assert not out
    assert "Error:" in err
    assert hint in err
    assert "Traceback" not in err


def test_pull_of_a_complete_model(run):
    code, out, _ = run("pull", "nano_t2v")
    assert code == 0
    assert "nano_t2v_quanto_bf16_int8.safetensors" in out


def test_every_command_and_option_has_help():
    import typer.main

    def walk(command, words=()):
        assert command.help, words
        for parameter in command.params:
            assert getattr(parameter, "help", None), (words, parameter.name)
        for name, child in getattr(command, "commands", {}).items():
            walk(child, (*words, name))

    walk(typer.main.get_command(app))
    assert "generate" in CliRunner().invoke(app, ["--help"]).output


def test_wgp_forwards(tmp_path):
    answer = subprocess.run(
        [sys.executable, str(PROJECT / "wgp.py"), "--save-quantized", "list", "--root", str(tmp_path), "--json"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert len(json.loads(answer.stdout)) > 20
    assert "no quantized file will be written" in answer.stderr


def test_add_ls_rm_gc_and_verify(run, root):
    nano = PROJECT / "src" / "reeltune" / "nano" / "nano_neon_bf16.safetensors"
    (root / "ckpts").mkdir()
    file = root / "ckpts" / "mine_bf16.safetensors"
    file.write_bytes(nano.read_bytes())
    code, out, err = run("add", str(file), "--name", "Mine")
    assert (code, "fits several architectures: t2v, t2v_1.3B, t2v_2_2" in err) == (1, True)
    code, out, _ = run("add", str(file), "--name", "Mine", "--architecture", "t2v_1.3B")
    assert code == 0
    assert "t2v_1.3B_mine.json" in out
    entries = json.loads(run("ls", "--json")[1])
    assert [(entry["state"], entry["used_by"]) for entry in entries] == [("file", ["t2v_1.3B_mine"])]
    assert "t2v_1.3B_mine" in run("ls")[1]
    assert "1 file checked, 0 damaged" in run("verify", "t2v_1.3B_mine")[1]
    assert "Nothing to delete" in run("gc")[1]
    assert "would be deleted" in run("rm", "t2v_1.3B_mine", "--dry-run")[1]
    assert run("rm", "t2v_1.3B_mine")[0] == 1  # nobody says yes
    assert file.exists()
    assert run("rm", "t2v_1.3B_mine", "--yes")[0] == 0
    assert not file.exists()
    assert run("rm", "nothing")[0] == 1


def test_settings_are_read_back_and_used_again(run, root, tmp_path):
    first = root / "first.mp4"
    fast = ("--set", "num_inference_steps=1", "--set", "video_length=5")
    assert run("generate", "nano_t2v", "a blue square", *fast, "--seed", "4", "-o", str(first))[0] == 0
    code, out, err = run("settings", "read", str(first))
    assert (code, err) == (0, "")
    stored = json.loads(out)
    assert (stored["model_type"], stored["prompt"], stored["seed"]) == ("nano_t2v", "a blue square", 4)
    (tmp_path / "stored.json").write_text(out, "utf-8")
    for source in (first, tmp_path / "stored.json"):
        again = root / "again.mp4"
        assert run("generate", "nano_t2v", "--settings", str(source), "-o", str(again))[0] == 0
        assert np.array_equal(read_frames(again), read_frames(first))
    code, _, err = run(
        "generate", "nano_neon", "a red square", "--settings", str(first), "--seed", "5", "-o", str(again)
    )
    assert code == 0
    assert "was made with nano_t2v" in err
    used = read_metadata(again)["settings"]
    assert (used["prompt"], used["seed"], used["video_length"]) == ("a red square", 5, 5)


def test_settings_of_wangps_images_are_read(run, tmp_path):
    info = PngInfo()
    info.add_text("comment", json.dumps({"model_type": "t2v", "prompt": "a fox", "seed": [], "of_later": 1}))
    Image.new("RGB", (8, 8)).save(tmp_path / "x.png", pnginfo=info)
    code, out, err = run("settings", "read", str(tmp_path / "x.png"))
    assert code == 0
    stored = json.loads(out)
    assert (stored["model_type"], stored["prompt"]) == ("t2v", "a fox")
    assert "seed" not in stored
    assert "of_later" in err
    assert "seed" in err


@pytest.mark.parametrize(
    "words",
    [
        ("x", "--set", "prompt=y"),
        ("--seed", "3", "--set", "seed=4"),
        ("--image-start", "a.png", "--set", "image_start=b"),
    ],
)
def test_a_setting_given_twice_is_an_error(run, words):
    code, _, err = run("generate", "nano_t2v", *words)
    assert code == 1
    assert "is given both by --set" in err
