"""The worker's own decisions, without a process around it: which engine does the next job."""

import errno
import io
import json
from dataclasses import replace
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
from reeltune.events import LatentsStored, Notice
from reeltune.jobs.codec import pack_task, unpack_event
from reeltune.jobs.job import Attempt
from reeltune.jobs.messages import CancelTask, Done, Failed, RunTask, Saved, Stopped
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


def task(number=0, definition="nano_t2v", settings=QUICK, **options):
    """A try of job 1."""
    return RunTask(Attempt(1, number), definition, settings, **options)


def events(worker):
    return [unpack_event(line).event for line in worker._answers.getvalue().splitlines()]


def events_of(worker, event_type):
    return [event for event in events(worker) if isinstance(event, event_type)]


def notices(worker):
    return [event.message for event in events_of(worker, Notice)]


def do(worker, id):
    """The last event of a job."""
    worker._do(task(definition=id))
    return events(worker)[-1]


def test_an_engine_is_switched_between_definitions_and_new_for_other_preferences(worker, root):
    assert do(worker, "nano_t2v") == Done()
    (_, first) = worker._warm
    model = first._warm.models._loaded["transformer"].model
    assert do(worker, "nano_neon") == Done()
    assert worker._warm[1] is first
    assert first.definition.id == "nano_neon"
    assert first._warm.models._loaded["transformer"].model is model  # of one architecture: filled anew
    assert isinstance(do(worker, "no_such_model"), Failed)
    assert do(worker, "nano_neon") == Done()
    assert worker._warm[1] is first
    (root / "reeltune.json").write_text('{"quantization": "bf16"}', encoding="utf-8")
    assert do(worker, "nano_neon") == Done()
    assert worker._warm[1] is not first
    assert not first._warm.models  # its memory went first


def test_each_job_reports_its_files_and_the_model_stays_loaded(worker):
    do(worker, "nano_t2v")
    model = worker._warm[1]._warm.models._loaded["transformer"].model
    do(worker, "nano_t2v")
    assert worker._warm[1]._warm.models._loaded["transformer"].model is model
    files = [message for message in notices(worker) if message.startswith("transformer: ")]
    assert len(files) == 2
    assert sum(message.startswith("Memory profile") for message in notices(worker)) == 2


def test_a_definition_edited_while_the_engine_is_warm_counts_from_the_next_job(worker, root, define):
    nano = Path(str(resources.files("reeltune"))) / "nano"
    model = {"name": "M", "architecture": "t2v_1.3B", "components": "reeltune/nano"}
    define("mine", model | {"URLs": [str(nano / "nano_t2v_bf16.safetensors")]})
    assert do(worker, "mine") == Done(), do(worker, "mine")
    define("mine", model | {"URLs": [str(nano / "nano_neon_bf16.safetensors")]})
    assert do(worker, "mine") == Done()
    files = [message for message in notices(worker) if message.startswith("transformer: ")]
    assert "nano_t2v_bf16" in files[0]
    assert "nano_neon_bf16" in files[-1]


def test_a_cancel_counts_for_its_own_attempt_only(worker):
    worker._take(task(1))
    worker._do(worker._waiting.get())
    worker._take(CancelTask(Attempt(1, 1)))  # too late
    worker._take(task(2))
    worker._take(CancelTask(Attempt(1, 1)))
    worker._do(worker._waiting.get())
    worker._take(task(3))
    worker._take(CancelTask(Attempt(1, 3)))
    worker._do(worker._waiting.get())
    endings = [unpack_event(line) for line in worker._answers.getvalue().splitlines()]
    endings = [(item.attempt.number, item.event) for item in endings if isinstance(item.event, Done | Stopped | Failed)]
    assert endings == [(1, Done()), (2, Done()), (3, Stopped())]


def test_what_can_not_be_read_ends_no_reading(worker, monkeypatch, capsys):
    ends = []
    monkeypatch.setattr("os._exit", ends.append)
    unknown = pack_task(task(4)).replace(b'"definition"', b'"mood": "good", "definition"')
    lines = [b"{\n", b"[]\n", b"\xff\n", b'{"type": "cancel"}\n', b'{"type": "mood"}\n', unknown]
    worker._tasks = io.BytesIO(b"".join(lines))
    worker._read()
    assert worker._waiting.get_nowait() == task(4)
    assert worker._waiting.empty()
    assert ends == [0]
    printed = capsys.readouterr().err
    assert "Unknown message 'mood'" in printed
    assert "Unknown field 'mood' of RunTask" in printed


def test_a_job_that_can_not_be_understood_fails_so_that_nobody_waits_for_its_end(worker):
    worker._receive(pack_task(task(4)).replace(b'"definition": "nano_t2v"', b'"definition": 5'))
    received = unpack_event(worker._answers.getvalue())
    assert received.attempt == Attempt(1, 4)
    assert "'definition'" in received.event.error
    assert worker._waiting.empty()


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
    worker._do(task(1, "mine", {}, confined=True))
    (failed,) = events_of(worker, Failed)
    assert "outside the folders" in failed.error
    assert "secret" not in failed.error + failed.hint
    assert worker._warm is None  # before anything was opened


def test_a_confined_job_names_no_file_outside_in_its_settings(worker, tmp_path):
    settings = QUICK | {"image_start": str(tmp_path / "x.png")}
    worker._do(task(1, "nano_i2v", settings, confined=True))
    assert "outside the folders" in events_of(worker, Failed)[0].error
    worker._do(task(2, confined=True))
    assert events_of(worker, Done)


def test_links_and_model_folders_of_the_user_count_as_inside(worker, root, define, tmp_path):
    nano = Path(str(resources.files("reeltune"))) / "nano"
    (root / "ckpts").symlink_to(nano)
    model = {"name": "M", "architecture": "t2v_1.3B", "components": "reeltune/nano"}
    define("linked", model | {"URLs": ["ckpts/nano_t2v_bf16.safetensors"]})
    define("shared", model | {"URLs": [str(nano / "nano_t2v_bf16.safetensors")]})
    (root / "reeltune.json").write_text(json.dumps({"model_folders": [str(nano)]}))
    for id in ("linked", "shared"):
        worker._do(task(definition=id, confined=True))
    assert len(events_of(worker, Done)) == 2, events_of(worker, Failed)


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
    assert failed.shared
    assert "no NVIDIA GPU" in failed.error
    assert not worker._warm[1]._warm.models


def test_an_odd_preference_is_reported_with_the_job_and_stops_nothing(worker, root):
    (root / "reeltune.json").write_text('{"dtype": "fp32"}')
    assert do(worker, "nano_t2v") == Done()
    assert any("Invalid value 'fp32' for dtype" in message for message in notices(worker))


def test_the_switch_for_quantized_files_is_the_process_s_and_is_never_stored(root):
    worker = Worker(root, io.BytesIO(), io.BytesIO(), save_quantized=True)
    engine = worker._engine(load_catalog(root)["nano_t2v"], Preferences())
    assert engine._save_quantized
    worker._release_engine()
    assert not (root / "reeltune.json").exists()
    other = Worker(root, io.BytesIO(), io.BytesIO())
    assert not other._engine(load_catalog(root)["nano_t2v"], Preferences())._save_quantized
    other._release_engine()


def test_a_job_goes_on_from_its_latents_and_makes_only_what_is_not_made(worker, monkeypatch):
    first = task(settings=QUICK | {"repeat_generation": 3})
    with monkeypatch.context() as patch:
        patch.setattr(
            "reeltune.engine.run.Run.decode", lambda *_: (_ for _ in ()).throw(RuntimeError("the power went"))
        )
        worker._do(first)
    (kept,) = events_of(worker, LatentsStored)
    assert events_of(worker, Failed)
    worker._do(replace(first, made=1, latents=kept.path))
    assert events_of(worker, Done)
    seeds = [read_metadata(Path(event.path))["settings"]["seed"] for event in events_of(worker, Saved)]
    assert seeds == [1, 3]  # of the latents; then the third, the second being made
    assert not Path(kept.path).exists()


def test_latents_that_are_gone_are_reported_and_the_video_is_made_from_the_beginning(worker, root):
    worker._do(task(latents=str(root / "gone.safetensors")))
    assert events_of(worker, Done)
    assert len(events_of(worker, Saved)) == 1
    assert any("from the beginning" in message for message in notices(worker))


@pytest.mark.parametrize("written", [" {}", "\\{}", "{}|/../../x"])
def test_a_confined_job_uses_no_lora_outside_that_its_definition_names(worker, define, tmp_path, written):
    outside = tmp_path / "secret.safetensors"
    outside.write_bytes(b"a very secret text")
    define("mine", {"architecture": "t2v_1.3B", "URLs": "nano_t2v", "loras": [written.format(str(outside))]})
    worker._do(task(1, "mine", {}, confined=True))
    (failed,) = events_of(worker, Failed)
    assert "outside the folders" in failed.error
    assert worker._warm is None
