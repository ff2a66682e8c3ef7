"""A creator's day, as docs/definitions.md tells it: from one 16-bit file to two int8 ones, listed, and used."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
NANO = PROJECT / "src" / "reeltune" / "nano"


@pytest.fixture
def wgp(root):
    """A function that runs `python wgp.py …` in the root; returns stdout and stderr."""

    def run(*arguments):
        command = [sys.executable, str(PROJECT / "wgp.py"), *arguments, "--root", str(root)]
        answer = subprocess.run(command, capture_output=True, text=True, cwd=root, check=False)
        assert answer.returncode == 0, answer.stderr
        return answer.stdout, " ".join(answer.stderr.split())

    return run


def test_one_file_becomes_three(root, wgp, define):
    (root / "ckpts").mkdir()
    shutil.copy(NANO / "nano_t2v_bf16.safetensors", root / "ckpts" / "mine_bf16.safetensors")
    model = {"name": "Mine", "architecture": "t2v_1.3B", "URLs": ["ckpts/mine_bf16.safetensors"],
             "components": "reeltune/nano"}  # fmt: skip
    settings = json.loads((PROJECT / "src/reeltune/definitions/data/finetunes/nano_t2v.json").read_text())
    path = define("t2v_mine", model=model, **{key: value for key, value in settings.items() if key != "model"})
    steps = ("--set", "num_inference_steps=2", "--seed", "7")

    _, err = wgp("--save-quantized", "generate", "t2v_mine", *steps)
    first = "ckpts/mine_quanto_bf16_int8.safetensors"
    assert json.loads(path.read_text())["model"]["URLs"] == ["ckpts/mine_bf16.safetensors", first]
    assert "mine_quanto_bf16_int8.safetensors was written and verified" in err
    assert "transformer: mine_quanto_bf16_int8.safetensors (quanto int8, runs in bf16, on disk)." in err

    _, err = wgp("generate", "t2v_mine", *steps, "--dtype", "fp16", "--save-quantized")
    second = "ckpts/mine_quanto_fp16_int8.safetensors"
    assert json.loads(path.read_text())["model"]["URLs"] == ["ckpts/mine_bf16.safetensors", first, second]
    assert "transformer: mine_quanto_fp16_int8.safetensors (quanto int8, runs in fp16, on disk)." in err

    out, err = wgp("generate", "t2v_mine", *steps, "--dtype", "fp16", "--save-quantized")
    assert "No quantized file is written: t2v_mine lists an int8 version in fp16 already" in err
    assert out.strip().endswith(".mp4")
    for options, name in (
        (["--dtype", "bf16"], "mine_quanto_bf16_int8.safetensors (quanto int8, runs in bf16"),
        (["--dtype", "fp16"], "mine_quanto_fp16_int8.safetensors (quanto int8, runs in fp16"),
        (["--quantization", "bf16"], "mine_bf16.safetensors (16 bits, runs in bf16"),
    ):
        _, err = wgp("generate", "t2v_mine", *steps, *options)
        assert f"transformer: {name}" in err
    assert sorted(file.name for file in (root / "ckpts").glob("*.safetensors*")) == [
        "mine_bf16.safetensors", "mine_quanto_bf16_int8.safetensors", "mine_quanto_fp16_int8.safetensors",
    ]  # fmt: skip


def test_quantize_takes_files_and_ids(root, wgp, define, tmp_path):
    (root / "ckpts").mkdir()
    shutil.copy(NANO / "nano_t2v_bf16.safetensors", root / "ckpts" / "mine_bf16.safetensors")
    path = define("mine", model={"name": "M", "architecture": "t2v_1.3B", "URLs": ["ckpts/mine_bf16.safetensors"]})
    before = path.read_bytes()
    out, _ = wgp("quantize", "ckpts/mine_bf16.safetensors", "--dtype", "fp16", "-o", "other.safetensors")
    assert "50 layers in int8, sha256 " in out
    assert (root / "other.safetensors").exists()
    out, _ = wgp("quantize", "mine", "--to", "fp16")
    assert (root / "ckpts" / "mine_fp16.safetensors").exists()
    assert path.read_bytes() == before
    out, err = wgp("quantize", "mine")
    assert "mine_quanto_bf16_int8.safetensors" in out
    assert "under URLs now" in err
    assert path.read_bytes() != before
