"""The videos of a test sheet: each model is loaded once, a failure leaves its reason, and nothing is left half done."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from reeltune import load_catalog
from reeltune.cli.app import main
from reeltune.cli.sheet import split_column
from reeltune.engine.engine import Engine
from reeltune.engine.sheet import SheetColumn, SheetRow, make_cells
from reeltune.errors import Cancelled
from reeltune.events import CancelToken, Notice, Progress
from reeltune.media.mp4 import read_frames
from reeltune.media.sound import Sound
from reeltune.preferences import Preferences

FEW = {"num_inference_steps": 2, "video_length": 5, "guidance_scale": 1.0}
LORA = "nano_neon_lora_r32_bf16.safetensors"


def column(root, id, quantization="bf16", **settings):
    label = f"{id}@{quantization}"
    return SheetColumn(label, load_catalog(root)[id], Preferences(quantization=quantization), {**FEW, **settings})


def test_each_model_is_loaded_once_and_failures_leave_their_reason(root, monkeypatch):
    columns = [
        column(root, "nano_t2v"),
        column(root, "nano_neon"),
        column(root, "nano_t2v", "int8"),
        column(root, "nano_t2v", activated_loras=[LORA], loras_multipliers="0.8"),
        column(root, "nano_t2v", activated_loras=["missing.safetensors"], loras_multipliers="1"),
    ]
    rows = [SheetRow("a red circle moves right on a black background", seed) for seed in (1, 2)]
    generate = Engine.generate

    def failing(engine, prompt, **settings):
        if engine.definition.id == "nano_neon" and settings["seed"] == 1:
            raise ZeroDivisionError("a bug")
        return generate(engine, prompt, **settings)

    monkeypatch.setattr(Engine, "generate", failing)
    events, kept = [], []
    made = make_cells(columns, rows, root, width=64, kind=".mp4", listener=events.append,
                      keep=lambda engine, video: kept.append((engine.definition.id, video.origin.settings["seed"])))  # fmt: skip
    loads = [
        event.subject
        for event in events
        if isinstance(event, Progress) and event.stage == "load" and event.done == event.total
    ]
    assert len(loads) == len(set(loads)) == 3, loads
    assert kept == [("nano_t2v", 1), ("nano_t2v", 2), ("nano_t2v", 1), ("nano_t2v", 2), ("nano_neon", 2), ("nano_t2v", 1), ("nano_t2v", 2)]  # fmt: skip
    assert made.failed == 3
    assert made.cells[0][1].caption == "ZeroDivisionError: a bug"
    assert made.cells[1][1].frames is not None
    for row in made.cells:
        assert row[4].frames is None
        assert "missing.safetensors" in row[4].caption
        assert not np.array_equal(row[0].frames, row[2].frames)  # int8 is another video
        assert not np.array_equal(row[0].frames, row[3].frames)
        assert row[0].frames.shape == (5, 64, 64, 3)
    assert "2 steps; nano_t2v_bf16.safetensors" in made.cells[0][0].caption
    assert made.labels[0].startswith("nano_t2v@bf16  ")
    notices = [event.message for event in events if isinstance(event, Notice)]
    assert len(notices) == len(set(notices))
    with Engine(load_catalog(root)["nano_t2v"], preferences=Preferences(quantization="bf16")) as engine:
        alone = generate(engine, rows[1].prompt, seed=2, **FEW)
    assert np.array_equal(made.cells[1][0].frames, alone.frames)


def test_cancelling_stops_at_once(root):
    cancel = CancelToken()

    def listen(event):
        if isinstance(event, Progress) and event.stage == "decode":
            cancel.cancel()

    with pytest.raises(Cancelled):
        make_cells([column(root, "nano_t2v")], [SheetRow("x", 1), SheetRow("x", 2)], root, width=64, kind=".mp4",
                   listener=listen, cancel=cancel)  # fmt: skip


def test_the_command_writes_a_sheet(root, tmp_path, capsys):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("# two\na red circle moves right on a black background\n\n a blue square \n", encoding="utf-8")
    out = tmp_path / "sheet.mp4"
    words = ["sheet", "nano_t2v@bf16", f"nano_t2v@int8+{LORA}:0.5", "--prompts", str(prompts), "--seeds", "1,2",
             "--set", "num_inference_steps=1", "--set", "video_length=5", "-o", str(out), "--root", str(root), "--save-videos"]  # fmt: skip
    main(words)
    captured = capsys.readouterr()
    assert captured.out.splitlines() == [str(out)]
    assert len(read_frames(out)) == 5
    assert len(list((root / "outputs").glob("*.mp4"))) == 8
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 1
    assert "exists already" in capsys.readouterr().err


def test_the_command_fails_where_a_video_failed_and_still_writes_the_sheet(root, tmp_path, capsys):
    out = tmp_path / "sheet.png"
    with pytest.raises(SystemExit) as stop:
        main(["sheet", "nano_t2v+missing.safetensors", "-o", str(out), "--root", str(root)])
    assert stop.value.code == 1
    assert "1 of 1 video failed" in capsys.readouterr().err
    with Image.open(out) as image:
        assert image.format == "PNG"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nano_x"], "nano_x: No definition 'nano_x' found"),
        (["nano_t2v@int4"], "nano_t2v@int4: Invalid value 'int4'"),
        (["nano_t2v", "--seeds", "1,x"], "Invalid seeds '1,x'"),
        (["nano_t2v", "--set", "steps"], "Invalid setting 'steps'"),
        (["nano_t2v", "--prompts", "nowhere.txt"], "nowhere.txt doesn't exist"),
        (["nano_t2v", "--width", "5"], "Invalid width 5"),
        (["nano_t2v"] * 30 + ["--seeds", "1,2,3,4,5,6,7,8,9,10,11,12,13,14"], "420 videos, and 400 are possible"),
    ],
)
def test_mistakes_are_reported_before_anything_is_made(root, tmp_path, capsys, words, message):
    with pytest.raises(SystemExit) as stop:
        main(["sheet", *words, "-o", str(tmp_path / "s.mp4"), "--root", str(root)])
    assert stop.value.code == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "s.mp4").exists()


def test_a_column_is_taken_apart(root, define):
    define("odd+id@x", {"name": "Odd", "architecture": "t2v", "URLs": ["https://h/x_bf16.safetensors"]})
    catalog = load_catalog(root)
    assert split_column("nano_t2v", catalog) == ("nano_t2v", "", [])
    assert split_column("nano_t2v@int8-fp16", catalog) == ("nano_t2v", "int8-fp16", [])
    assert split_column("nano_t2v@bf16+a.safetensors:0.8+b:1;0", catalog) == (
        "nano_t2v", "bf16", ["a.safetensors:0.8", "b:1;0"],
    )  # fmt: skip
    assert split_column("odd+id@x", catalog) == ("odd+id@x", "", [])
    assert json.dumps(split_column("nano_t2v+a", catalog)) == '["nano_t2v", "", ["a"]]'


def test_a_sheet_says_once_that_it_has_no_sound(root, monkeypatch):
    generate = Engine.generate

    def with_sound(engine, prompt, **settings):
        return replace(generate(engine, prompt, **settings), sound=Sound(np.zeros((1, 4_800), np.float32), 48_000))

    monkeypatch.setattr(Engine, "generate", with_sound)
    events, kept = [], []
    rows = [SheetRow("x", seed) for seed in (1, 2)]
    made = make_cells([column(root, "nano_t2v")], rows, root, width=64, kind=".mp4", listener=events.append,
                      keep=lambda _, video: kept.append(video.sound is not None))  # fmt: skip
    assert made.failed == 0
    assert kept == [True, True]
    assert [event.message for event in events if isinstance(event, Notice) and "sound" in event.message] == [
        "The sheet has no sound: its videos play at the same time."
    ]
