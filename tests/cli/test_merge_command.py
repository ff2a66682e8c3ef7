"""`merge` and `extract-lora` on the command line: which files are meant, the definitions, and what is refused."""

import json
from importlib import resources
from pathlib import Path

import pytest

from reeltune import Engine, load_catalog
from reeltune.cli.app import main
from reeltune.cli.merge import _Source
from reeltune.events import CancelToken, ignore

NANO = Path(str(resources.files("reeltune"))) / "nano"


def reeltune(capsys, *words):
    """Exit code, output and errors of a command."""
    code = 0
    try:
        main([str(word) for word in words])
    except SystemExit as stop:
        code = stop.code or 0
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_two_definitions_become_a_third_that_makes_videos(root, capsys, monkeypatch):
    monkeypatch.chdir(root)
    code, out, err = reeltune(
        capsys, "merge", "nano_t2v:0.5", "nano_neon:0.5", "-o", "ckpts/half_bf16.safetensors", "--id", "half", "--name", "Half", "--root", root
    )  # fmt: skip
    assert code == 0, err
    path = root / "finetunes" / "t2v_1.3B_half.json"
    assert out.splitlines()[1] == str(path)
    value = json.loads(path.read_text(encoding="utf-8"))
    model = value["model"]
    assert model["URLs"] == ["ckpts/half_bf16.safetensors"]
    assert (model["name"], model["architecture"], model["components"]) == ("Half", "t2v_1.3B", "reeltune/nano")
    assert model["auto_quantize"] is True
    expected = "Merged (weighted): nano_t2v_bf16.safetensors × 0.5, nano_neon_bf16.safetensors × 0.5."
    assert model["description"] == expected
    assert model["sha256"]["half_bf16.safetensors"] in out
    assert value["video_length"] == 17
    with Engine(load_catalog(root)["t2v_1.3B_half"]) as engine:
        assert engine.generate(num_inference_steps=1, video_length=5, seed=1).frames.shape == (5, 64, 64, 3)
    assert reeltune(capsys, "check", path)[0] == 0


def test_files_and_int8_with_a_base(root, capsys):
    out = root / "ckpts" / "m_quanto_bf16_int8.safetensors"
    neon = NANO / "nano_neon_bf16.safetensors"
    base = NANO / "nano_t2v_bf16.safetensors"
    words = (
        "merge",
        f"{neon}:0.8",
        base,
        "--method",
        "ties",
        "--base",
        base,
        "--to",
        "int8",
        "--architecture",
        "t2v_1.3B",
        "-o",
        out,
        "--root",
        root,
    )
    code, printed, err = reeltune(capsys, *words)
    assert code == 0, err
    assert "layers in int8" in printed
    (path,) = (root / "finetunes").iterdir()
    model = json.loads(path.read_text(encoding="utf-8"))["model"]
    assert model["URLs"] == ["ckpts/m_quanto_bf16_int8.safetensors"]
    assert "auto_quantize" not in model
    code, _, err = reeltune(capsys, *words)
    assert code == 1
    assert "exists already" in err
    code, printed, err = reeltune(capsys, *words, "--force", "--no-definition")
    assert code == 0, err
    assert len(list((root / "finetunes").iterdir())) == 1


def test_an_extracted_lora_is_applied_by_its_definition(root, capsys):
    out = root / "loras" / "neon.safetensors"
    code, printed, err = reeltune(
        capsys, "extract-lora", "nano_neon", "nano_t2v", "--rank", "4", "-o", out, "--root", root
    )
    assert code == 0, err
    assert "blocks.*.ffn.0.weight" in printed
    assert "56 layers in low rank, 94 differences of other parameters stored whole; 0 don't differ." in err
    path = root / "finetunes" / "t2v_1.3B_neon.json"
    model = json.loads(path.read_text(encoding="utf-8"))["model"]
    assert model["loras"] == ["loras/neon.safetensors"]
    assert model["loras_multipliers"] == ["1"]
    code, printed, err = reeltune(capsys, "explain", "t2v_1.3B_neon", "--root", root)
    assert code == 0, err
    assert "neon.safetensors, applied 88 of 88 modules" in printed
    out = root / "loras" / "plain.safetensors"
    code, printed, err = reeltune(
        capsys, "extract-lora", NANO / "nano_neon_bf16.safetensors", NANO / "nano_t2v_bf16.safetensors", "-o", out,
        "--rank", "2", "--no-differences", "--dtype", "fp16", "--root", root, "--architecture", "t2v_1.3B",
    )  # fmt: skip
    assert code == 0, err
    assert "94 left out" in err
    model = json.loads((root / "finetunes" / "t2v_1.3B_plain.json").read_text(encoding="utf-8"))["model"]
    assert model["URLs"] == [str(NANO / "nano_t2v_bf16.safetensors")]
    assert model["loras"] == ["loras/plain.safetensors"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["merge", "nano_t2v"], "weighted merges 2 to 16 models, not 1"),
        (["merge", "nano_t2v:0.5", "nano_neon", "--method", "mean"], "Invalid value 'mean' for the method"),
        (["merge", "nano_t2v", "nano_neon", "--method", "ties"], "needs the base model"),
        (["merge", "nano_t2v", "nano_i2v"], "1 tensor of another shape (patch_embedding.weight [192, 144] instead of"),
        (["merge", "nano_t2v", "nano_vace"], "nano_vace has 2 weight files"),
        (["merge", "nano_t2v", "https://h/x.safetensors"], "reeltune add https://h/x.safetensors"),
        (["merge", "nano_t2v", "nowhere.safetensors"], "nowhere.safetensors can't be opened"),
        (["merge", "nano_t2v", "nano_neon", "--id", "taken"], "The definition t2v_1.3B_taken exists already"),
        (["extract-lora", "nano_t2v", "nano_t2v"], "hold the same numbers"),
        (["extract-lora", "nano_neon", "nano_t2v", "--rank", "0"], "Invalid rank 0"),
    ],
)
def test_what_is_refused(root, define, capsys, words, message):
    define("t2v_1.3B_taken", {"name": "x", "architecture": "t2v_1.3B", "URLs": ["x.safetensors"]})
    code, _, err = reeltune(capsys, *words, "-o", root / "ckpts" / "m.safetensors", "--root", root)
    assert code == 1
    assert message in err
    assert not list(root.rglob("m.safetensors*"))
    assert [path.name for path in (root / "finetunes").iterdir()] == ["t2v_1.3B_taken.json"]


def test_licenses_and_loras_of_definitions_are_told(root, define, capsys):
    nano = str(NANO / "nano_t2v_bf16.safetensors")
    lora = str(NANO / "nano_neon_lora_r32_bf16.safetensors")
    model = {"name": "x", "architecture": "t2v_1.3B", "URLs": [nano], "components": "reeltune/nano", "license": "mit"}
    define("mine", {**model, "loras": [lora]})
    source = _Source(load_catalog(root), "mine", None, ignore, CancelToken())
    assert source.license == "mit"
    code, _, err = reeltune(capsys, "merge", "mine", "mine", "-o", root / "ckpts" / "m.safetensors", "--root", root)
    assert code == 0, err
    assert "The LoRAs of mine are not merged; the new definition applies them, too" in err
