"""The worker's own decisions, without a process around it: which engine does the next job."""

import io
import json

import pytest

from reeltune import load_catalog
from reeltune.jobs.worker import Worker
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
