"""The format's guide to making a quantized file, step by step, on the command line and in a process for each step."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
NANO = PROJECT / "src" / "reeltune" / "nano"
FAST = ["--set", "num_inference_steps=2", "--set", "resolution=64x64", "--set", "video_length=5", "--seed", "7"]


@pytest.fixture
def wgp(root):
    """Runs `python wgp.py …` in the root; returns what it printed, notices and all."""

    def run(*arguments):
        answer = subprocess.run(
            [sys.executable, str(PROJECT / "wgp.py"), *arguments],
            capture_output=True, text=True, cwd=root, check=False, encoding="utf-8",
        )  # fmt: skip
        assert answer.returncode == 0, answer.stderr
        return " ".join((answer.stdout + answer.stderr).split())

    return run


def test_the_nine_steps_on_the_command_line(root, wgp):
    ckpts = root / "ckpts"
    ckpts.mkdir()
    shutil.copy(NANO / "nano_t2v_bf16.safetensors", ckpts / "mine_bf16.safetensors")
    # 1. a definition whose URLs hold the 16-bit file and nothing else
    path = root / "finetunes" / "t2v_mine.json"
    model = {"name": "Mine", "architecture": "t2v_1.3B", "URLs": ["ckpts/mine_bf16.safetensors"],
             "components": "reeltune/nano"}  # fmt: skip
    path.write_text(json.dumps({"model": model}, indent=4), encoding="utf-8")
    wgp("check")
    # 2. in the configuration: int8, computed in bf16
    wgp("config", "set", "quantization", "int8")
    wgp("config", "set", "dtype", "bf16")
    # 3., 4. started with the switch, the finetune picked, a video generated
    printed = wgp("--save-quantized", "generate", "t2v_mine", "a red circle", *FAST)
    # 5. the file is there, named after the convention, and listed
    first = "ckpts/mine_quanto_bf16_int8.safetensors"
    assert (root / first).is_file()
    assert "transformer: mine_quanto_bf16_int8.safetensors (quanto int8, runs in bf16, on disk)" in printed
    assert json.loads(path.read_text())["model"]["URLs"] == ["ckpts/mine_bf16.safetensors", first]
    # 6. the same for cards without bf16
    wgp("config", "set", "dtype", "fp16")
    wgp("--save-quantized", "generate", "t2v_mine", "a red circle", *FAST)
    second = "ckpts/mine_quanto_fp16_int8.safetensors"
    listed = ["ckpts/mine_bf16.safetensors", first, second]
    assert json.loads(path.read_text())["model"]["URLs"] == listed
    # 7. the switch removed, started again: nothing of it is left behind
    wgp("config", "set", "dtype", "bf16")
    assert not json.loads((root / "reeltune.json").read_text()).get("save_quantized")
    (root / second).unlink()
    before = path.read_bytes()
    printed = wgp("generate", "t2v_mine", "a red circle", *FAST)
    assert path.read_bytes() == before
    assert not (root / second).exists()
    # 8. verified in the terminal: the quantized file is what was loaded
    assert "transformer: mine_quanto_bf16_int8.safetensors (quanto int8, runs in bf16, on disk)" in printed
    assert "mine_bf16.safetensors (" not in printed
    # 9. the paths replaced by the URLs of the uploaded files
    wgp("urls", "replace", "t2v_mine", "ckpts/", "https://huggingface.co/me/mine/resolve/main/")
    assert json.loads(path.read_text())["model"]["URLs"] == [
        "https://huggingface.co/me/mine/resolve/main/" + Path(name).name for name in listed
    ]
    printed = wgp("generate", "t2v_mine", "a red circle", *FAST)
    assert "transformer: mine_quanto_bf16_int8.safetensors (quanto int8, runs in bf16, on disk)" in printed
