"""The worker's own decisions, without a process around it: which engine does the next job."""

import io
import json
from pathlib import Path

import pytest

from reeltune import load_catalog
from reeltune.jobs.worker import Worker
from reeltune.media.mp4 import read_metadata
from reeltune.preferences import load_preferences

QUICK = {"num_inference_steps": 1, "video_length": 1, "resolution": "32x32", "seed": 1}


@pytest.fixture
def worker(root):
    made = Worker(root, io.BytesIO(), io.BytesIO())
    yield made
    made._let_go()


def do(worker, id):
    """What the worker says last of a job."""
    worker._do({"job": 1, "definition": id, "settings": QUICK})
    return json.loads(worker._answers.getvalue().splitlines()[-1])


def test_an_engine_is_switched_between_definitions_and_new_for_other_preferences(worker, root):
    assert do(worker, "nano_t2v")["event"] == "done"
    (_, first) = worker._warm
    model = first._models._loaded["transformer"][1]
    assert do(worker, "nano_neon")["event"] == "done"
    assert worker._warm[1] is first
    assert first.definition.id == "nano_neon"
    assert first._models._loaded["transformer"][1] is model  # of one architecture: filled anew
    assert do(worker, "no_such_model")["event"] == "failed"
    assert do(worker, "nano_neon")["event"] == "done"
    assert worker._warm[1] is first
    (root / "reeltune.json").write_text('{"quantization": "bf16"}', encoding="utf-8")
    assert do(worker, "nano_neon")["event"] == "done"
    assert worker._warm[1] is not first
    assert not first._models  # its memory went first


def test_a_job_of_the_same_model_keeps_the_choice(worker, root):
    do(worker, "nano_t2v")
    explanation = worker._warm[1]._explanation
    do(worker, "nano_t2v")
    assert worker._warm[1]._explanation is explanation
    assert worker._warm[0] == (load_catalog(root)["nano_t2v"], load_preferences(root)[0])


def told(worker, event):
    messages = map(json.loads, worker._answers.getvalue().splitlines())
    return [message for message in messages if message["event"] == event]


def test_a_job_goes_on_from_its_latents_and_makes_only_what_is_not_made(worker, monkeypatch):
    asked = {"job": 1, "definition": "nano_t2v", "settings": QUICK | {"repeat_generation": 3}}
    first = worker._engine(load_catalog(worker._root)["nano_t2v"], load_preferences(worker._root)[0])
    with monkeypatch.context() as patch:
        patch.setattr(type(first), "_finish", lambda *_: (_ for _ in ()).throw(RuntimeError("the power went")))
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
