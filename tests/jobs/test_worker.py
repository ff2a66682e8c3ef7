"""The worker's own decisions, without a process around it: which engine does the next job."""

import errno
import io
import json
from importlib import resources
from pathlib import Path

import pytest

from reeltune import load_catalog
from reeltune.errors import (
    DeviceError,
    DeviceMissing,
    MediaError,
    NotEnoughDisk,
    Offline,
    SettingsError,
    Unreachable,
)
from reeltune.jobs.worker import Worker, is_shared
from reeltune.machine import Machine
from reeltune.media.mp4 import read_metadata
from reeltune.preferences import Preferences

QUICK = {"num_inference_steps": 1, "video_length": 1, "resolution": "32x32", "seed": 1}


@pytest.fixture
def worker(root):
    made = Worker(root, io.BytesIO(), io.BytesIO())
    yield made
    made._release_engine()


def do(worker, id):
    """What the worker says last of a job."""
    worker._do({"job": 1, "definition": id, "settings": QUICK})
    return json.loads(worker._answers.getvalue().splitlines()[-1])


def test_an_engine_is_switched_between_definitions_and_new_for_other_preferences(worker, root):
    assert do(worker, "nano_t2v")["event"] == "done"
    (_, first) = worker._warm
    model = first._warm.models._loaded["transformer"][1]
    assert do(worker, "nano_neon")["event"] == "done"
    assert worker._warm[1] is first
    assert first.definition.id == "nano_neon"
    assert first._warm.models._loaded["transformer"][1] is model  # of one architecture: filled anew
    assert do(worker, "no_such_model")["event"] == "failed"
    assert do(worker, "nano_neon")["event"] == "done"
    assert worker._warm[1] is first
    (root / "reeltune.json").write_text('{"quantization": "bf16"}', encoding="utf-8")
    assert do(worker, "nano_neon")["event"] == "done"
    assert worker._warm[1] is not first
    assert not first._warm.models  # its memory went first


def test_each_job_reports_its_files_and_the_model_stays_loaded(worker):
    do(worker, "nano_t2v")
    model = worker._warm[1]._warm.models._loaded["transformer"][1]
    do(worker, "nano_t2v")
    assert worker._warm[1]._warm.models._loaded["transformer"][1] is model
    files = [row["message"] for row in told(worker, "notice") if row["message"].startswith("transformer: ")]
    assert len(files) == 2
    assert sum(row["message"].startswith("Memory profile") for row in told(worker, "notice")) == 2


def test_a_definition_edited_while_the_engine_is_warm_counts_from_the_next_job(worker, root, define):
    nano = Path(str(resources.files("reeltune"))) / "nano"
    model = {"name": "M", "architecture": "t2v_1.3B", "components": "reeltune/nano"}
    define("mine", model | {"URLs": [str(nano / "nano_t2v_bf16.safetensors")]})
    assert do(worker, "mine")["event"] == "done", do(worker, "mine")
    define("mine", model | {"URLs": [str(nano / "nano_neon_bf16.safetensors")]})
    assert do(worker, "mine")["event"] == "done"
    files = [row["message"] for row in told(worker, "notice") if row["message"].startswith("transformer: ")]
    assert "nano_t2v_bf16" in files[0]
    assert "nano_neon_bf16" in files[-1]


def test_a_cancel_counts_for_its_own_attempt_only(worker):
    request = {"do": "generate", "job": 1, "definition": "nano_t2v", "settings": QUICK}
    worker._take({**request, "attempt": 1})
    worker._do(worker._waiting.get())
    worker._take({"do": "cancel", "job": 1, "attempt": 1})  # too late
    worker._take({**request, "attempt": 2})
    worker._take({"do": "cancel", "job": 1, "attempt": 1})
    worker._do(worker._waiting.get())
    worker._take({**request, "attempt": 3})
    worker._take({"do": "cancel", "job": 1, "attempt": 3})
    worker._do(worker._waiting.get())
    assert [row["attempt"] for row in told(worker, "done")] == [1, 2]
    assert [row["attempt"] for row in told(worker, "cancelled")] == [3]


def test_what_can_not_be_read_ends_no_reading(worker, monkeypatch):
    ends = []
    monkeypatch.setattr("os._exit", ends.append)
    lines = b'{\n[]\n\xff\n{"do": "cancel"}\n{"do": "generate", "job": 4, "attempt": 1}\n'
    worker._requests = io.BytesIO(lines)
    worker._read()
    assert worker._waiting.get_nowait()["job"] == 4
    assert ends == [0]


@pytest.mark.parametrize("place", ["URLs", "components", "image_start", "modules"])
def test_a_confined_job_uses_no_file_outside_whoever_wrote_its_definition(worker, root, define, tmp_path, place):
    outside = tmp_path / "private.txt"
    outside.write_bytes(b"a very secret text")
    model = {
        "name": "M",
        "architecture": "vace_1.3B",
        "URLs": ["https://h/x.safetensors"],
        "modules": [["https://h/m.safetensors"]],
    }
    settings = {}
    match place:
        case "modules":
            model["modules"] = [[str(outside)]]
        case "URLs":
            model["URLs"] = ["../private.txt"]
        case "components":
            model["components"] = str(tmp_path)
        case _:
            settings = {place: str(outside)}
    define("mine", model, **settings)
    worker._do({"job": 1, "attempt": 1, "definition": "mine", "settings": {}, "confined": True})
    (failed,) = told(worker, "failed")
    assert "outside the folders" in failed["error"]
    assert "secret" not in json.dumps(failed)
    assert worker._warm is None  # before anything was opened


def test_a_confined_job_names_no_file_outside_in_its_settings(worker, tmp_path):
    settings = QUICK | {"image_start": str(tmp_path / "x.png")}
    worker._do({"job": 1, "attempt": 1, "definition": "nano_i2v", "settings": settings, "confined": True})
    assert "outside the folders" in told(worker, "failed")[0]["error"]
    worker._do({"job": 1, "attempt": 2, "definition": "nano_t2v", "settings": QUICK, "confined": True})
    assert told(worker, "done")


def test_links_and_model_folders_of_the_user_count_as_inside(worker, root, define, tmp_path):
    nano = Path(str(resources.files("reeltune"))) / "nano"
    (root / "ckpts").symlink_to(nano)
    model = {"name": "M", "architecture": "t2v_1.3B", "components": "reeltune/nano"}
    define("linked", model | {"URLs": ["ckpts/nano_t2v_bf16.safetensors"]})
    define("shared", model | {"URLs": [str(nano / "nano_t2v_bf16.safetensors")]})
    (root / "reeltune.json").write_text(json.dumps({"model_folders": [str(nano)]}))
    for id in ("linked", "shared"):
        worker._do({"job": 1, "definition": id, "settings": QUICK, "confined": True})
    assert len(told(worker, "done")) == 2, told(worker, "failed")


@pytest.mark.parametrize(
    ("error", "shared"),
    [
        (Offline("x"), True),
        (Unreachable("x"), True),
        (NotEnoughDisk("x"), True),
        (DeviceMissing("x"), True),
        (ImportError("x"), True),
        (OSError(errno.ENOSPC, "x"), True),
        (OSError(errno.ENOENT, "x"), False),
        (DeviceError("x"), False),
        (SettingsError("x"), False),
        (RuntimeError("x"), False),
    ],
)
def test_failures_that_every_job_shares(error, shared):
    assert is_shared(error) == shared
    wrapped = MediaError("x")
    wrapped.__cause__ = error
    assert is_shared(wrapped) == shared


def test_a_missing_device_fails_before_loading_and_is_shared(worker, root, monkeypatch):
    monkeypatch.setattr("reeltune.engine.ready.probe", lambda: Machine(2**34, 2**33))
    (root / "reeltune.json").write_text('{"device": "cuda:1"}')
    failed = do(worker, "nano_t2v")
    assert (failed["event"], failed["shared"]) == ("failed", True)
    assert "no NVIDIA GPU" in failed["error"]
    assert not worker._warm[1]._warm.models


def test_an_odd_preference_is_reported_with_the_job_and_stops_nothing(worker, root):
    (root / "reeltune.json").write_text('{"dtype": "fp32"}')
    assert do(worker, "nano_t2v")["event"] == "done"
    assert any("Invalid value 'fp32' for dtype" in row["message"] for row in told(worker, "notice"))


def test_the_switch_for_quantized_files_is_the_process_s_and_is_never_stored(root):
    worker = Worker(root, io.BytesIO(), io.BytesIO(), save_quantized=True)
    engine = worker._engine(load_catalog(root)["nano_t2v"], Preferences())
    assert engine._save_quantized
    worker._release_engine()
    assert not (root / "reeltune.json").exists()
    other = Worker(root, io.BytesIO(), io.BytesIO())
    assert not other._engine(load_catalog(root)["nano_t2v"], Preferences())._save_quantized
    other._release_engine()


def told(worker, event):
    messages = map(json.loads, worker._answers.getvalue().splitlines())
    return [message for message in messages if message["event"] == event]


def test_a_job_goes_on_from_its_latents_and_makes_only_what_is_not_made(worker, monkeypatch):
    asked = {"job": 1, "definition": "nano_t2v", "settings": QUICK | {"repeat_generation": 3}}
    with monkeypatch.context() as patch:
        patch.setattr(
            "reeltune.engine.run.Run.decode", lambda *_: (_ for _ in ()).throw(RuntimeError("the power went"))
        )
        worker._do(asked)
    (kept,) = told(worker, "kept")
    assert told(worker, "failed")
    worker._do({**asked, "made": 1, "latents": kept["path"]})
    assert told(worker, "done")
    seeds = [read_metadata(Path(row["path"]))["settings"]["seed"] for row in told(worker, "saved")]
    assert seeds == [1, 3]  # of the latents; then the third, the second being made
    assert not Path(kept["path"]).exists()


def test_latents_that_are_gone_are_said_and_the_video_is_made_from_the_beginning(worker, root):
    worker._do({"job": 1, "definition": "nano_t2v", "settings": QUICK, "latents": str(root / "gone.safetensors")})
    assert told(worker, "done")
    assert len(told(worker, "saved")) == 1
    assert any("from the beginning" in row["message"] for row in told(worker, "notice"))
