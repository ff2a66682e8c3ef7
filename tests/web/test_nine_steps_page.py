"""The format's guide to making a quantized file, step by step, in a real Chromium."""

import inspect
import json
import shutil
from pathlib import Path

import pytest
from acting import generate, pick, quick, tab, wait_for

from reeltune import Engine
from serving import Server, Window, chromium, module_root

NANO = Path(inspect.getfile(Engine)).parents[1] / "nano"
INT8 = "mine_quanto_bf16_int8.safetensors"


@pytest.fixture
def definition(module_root):
    """1. A definition whose URLs hold the 16-bit file and nothing else."""
    (module_root / "finetunes").mkdir(parents=True)
    (module_root / "ckpts").mkdir()
    shutil.copy(NANO / "nano_t2v_bf16.safetensors", module_root / "ckpts" / "mine_bf16.safetensors")
    path = module_root / "finetunes" / "t2v_mine.json"
    model = {"name": "Mine", "architecture": "t2v_1.3B", "URLs": ["ckpts/mine_bf16.safetensors"],
             "components": "reeltune/nano"}  # fmt: skip
    small = {"resolution": "64x64", "video_length": 5, "guidance_scale": 3.0}
    path.write_text(json.dumps({"model": model, **small}, indent=4), encoding="utf-8")
    return path


def make_a_video(window, server):
    page = window.open()
    pick(page, "t2v_mine")
    quick(page, "a red circle moves right on a black background")
    wait_for(page, generate(page), "done")
    return page


def test_the_nine_steps_on_the_page(chromium, module_root, definition):
    listed = lambda: json.loads(definition.read_text(encoding="utf-8"))["model"]["URLs"]  # noqa: E731
    server = Server(module_root, "--save-quantized").start()  # 3. started with the switch
    window = Window(chromium, server)
    try:
        page = window.open()
        tab(page, "Configuration")  # 2. int8, computed in bf16: as it is by default
        assert not page.locator("#preference-save_quantized input").is_checked()  # a switch is no preference
        make_a_video(window, server)  # 4. the finetune picked, a video generated
        assert (module_root / "ckpts" / INT8).is_file()  # 5. written, and listed
        assert listed() == ["ckpts/mine_bf16.safetensors", f"ckpts/{INT8}"]
    finally:
        window.close()
        server.stop()
    stored = module_root / "reeltune.json"  # 7. nothing of the switch is left behind
    assert not stored.exists() or not json.loads(stored.read_text(encoding="utf-8")).get("save_quantized")
    printed_before = len(server.log())
    server = Server(module_root).start()
    window = Window(chromium, server)
    try:
        before = definition.read_bytes()
        page = make_a_video(window, server)
        page.locator("#about", has_text=INT8).wait_for()
        assert definition.read_bytes() == before
        printed = server.log()[printed_before:]  # 8. verified in the terminal
        assert f"transformer: {INT8}" in " ".join(printed.split())
        assert "quanto int8" in printed
    finally:
        window.close()
        server.stop()
