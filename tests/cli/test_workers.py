"""`reeltune workers`, and the option `--workers` of other commands."""

import json
import os
import sys
import threading
import time

import pytest
from filelock import FileLock

from reeltune.cli.app import main
from reeltune.jobs.roster import Roster, WorkerRequest, WorkerRow
from reeltune.jobs.runner import LOCK_NAME

GB = 2**30


@pytest.fixture
def run(root, capsys):
    def call(*words):
        code = 0
        try:
            main([*words, "--root", str(root)])
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def program(root):
    """A program that holds the lock of the root and has written its workers."""
    roster = Roster.of(root)
    roster.write(
        [
            WorkerRow(
                "cuda-0", "cuda:0", "here", "busy", "t2v + neon.safetensors", 7, 3 * GB, 24 * GB, time.time() - 90
            ),
            WorkerRow("cuda-1", "cuda:1", "here", "free", since=time.time(), problem="The worker process was killed."),
        ]
    )
    held, end = threading.Event(), threading.Event()

    def hold():  # of another thread: a lock counts for its process, unless it is opened again
        with FileLock(root / LOCK_NAME, thread_local=False):
            held.set()
            end.wait(600)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(60)
    yield roster
    end.set()
    thread.join()


def test_the_workers_of_a_running_program_are_a_table(run, program):
    code, out, err = run("workers")
    assert code == 0
    for words in ("NAME", "cuda-0", "cuda:1", "busy", "7", "t2v + neon.safetensors", "3.22 GB of 25.77 GB"):
        assert words in out
    assert "cuda-1 ended by itself" in err
    rows = json.loads(run("workers", "--json")[1])
    assert (rows[0]["name"], rows[0]["job"], rows[1]["job"]) == ("cuda-0", 7, None)


def test_without_a_running_program_there_are_none(run, root):
    assert "No workers are running" in run("workers")[1]
    assert not (root / "reeltune.sqlite").exists()  # looking makes nothing
    Roster.of(root).write([WorkerRow("cuda-0", "cuda:0", "here", "busy")])  # as after kill -9
    (root / LOCK_NAME).touch()
    assert "No workers are running" in run("workers")[1]
    assert json.loads(run("workers", "--json")[1]) == []
    code, _, err = run("workers", "drain", "cuda-0")
    assert (code, "No workers are running" in err) == (1, True)


@pytest.mark.parametrize("request_", list(WorkerRequest))
def test_a_worker_is_asked(run, program, request_):
    code, out, _ = run("workers", str(request_), "cuda-1")
    assert (code, f"cuda-1 was asked to {request_}." in out) == (0, True)
    assert program.requests() == {"cuda-1": request_}


def test_a_worker_that_is_not_there_is_refused(run, program):
    code, _, err = run("workers", "end", "cuda-9")
    assert code == 1
    assert "no worker 'cuda-9'" in err
    assert "cuda-0, cuda-1" in err


@pytest.mark.parametrize("command", ["serve", "ui", "run"])
@pytest.mark.parametrize(("value", "words"), [("many", "Invalid workers 'many'"), ("0", "0 workers are not possible")])
def test_nonsense_is_refused_before_anything_starts(run, tmp_path, command, value, words):
    file = tmp_path / "batch.json"
    file.write_text(json.dumps({"model_type": "nano_t2v"}), encoding="utf-8")
    code, _, err = run(command, *([str(file)] if command == "run" else []), "--workers", value)
    assert (code, words in err) == (1, True), err


def test_a_batch_is_made_by_two_workers(root, tmp_path):
    import subprocess

    settings = {"model_type": "nano_t2v", "num_inference_steps": 2, "video_length": 5, "seed": 1}
    entries = [{**settings, "prompt": f"a red circle {number}"} for number in range(4)]
    file = tmp_path / "batch.json"
    file.write_text(json.dumps(entries), encoding="utf-8")
    command = [sys.executable, "-m", "reeltune", "run", str(file), "--workers", "cpu,cpu", "--root", str(root)]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=os.environ)
    assert answer.returncode == 0, answer.stderr
    videos = answer.stdout.split()
    assert len(set(videos)) == 4
    assert "4 entries made" in answer.stderr
    for number in range(1, 5):
        assert answer.stderr.count(f"[{number}/4]") == 1, answer.stderr
