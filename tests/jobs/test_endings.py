"""However a job ends, and whatever fails around it: it ends with words, its videos are kept, and the next one runs."""

import json
import logging
import os
import signal
import sqlite3
import threading
import time

import pytest
from fake_worker import FakeWorker

from reeltune.errors import QueueError, WorkerDied
from reeltune.jobs import Queue, Runner, State
from reeltune.jobs.process import WorkerProcess

WAIT = 120


def until(true, seconds=WAIT):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


def succeed(worker, request):
    worker.tell(event="progress", stage="prepare", done=0, total=None)
    worker.tell(event="saved", path="a.mp4")
    worker.tell(event="done")


@pytest.fixture
def running(root, monkeypatch):
    """Start a runner whose workers follow a script; returns it and the list of its workers."""
    monkeypatch.setattr("reeltune.jobs.runner._LOOK_SECONDS", 0.01)
    begun = []

    def begin(script=succeed, start=None, **options):
        workers = []

        def start_worker():
            workers.append(FakeWorker(script))
            return workers[-1]

        runner = Runner(root, start_worker=start or start_worker, **options)
        runner.start()
        begun.append(runner)
        return runner, workers

    yield begin
    for runner in begun:
        runner.stop()


def add(runner, count=1):
    rows = [{"definition": "m", "settings": {"prompt": "a boat"}}] * count
    ids = [job.id for job in runner.queue.import_text(json.dumps({"jobs": rows}))]  # all of them at once
    runner.wake()
    return ids


def ended(runner, id):
    until(lambda: runner.queue.get(id).state not in (State.QUEUED, State.RUNNING) and runner.live is None)
    return runner.queue.get(id)


def test_a_worker_that_can_not_be_started_fails_its_job_with_words(running):
    tries = []

    def start():
        tries.append(1)
        if len(tries) == 1:
            raise WorkerDied("The worker process can't be started: Cannot allocate memory.")
        return FakeWorker(succeed)

    runner, _ = running(start=start)
    (id,) = add(runner)
    job = ended(runner, id)
    assert (job.state, "can't be started" in job.error) == (State.FAILED, True)
    assert ended(runner, *add(runner)).state is State.DONE


def test_an_error_of_the_system_at_the_start_of_the_worker_has_words(root, monkeypatch):
    def refuse(*_, **__):
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr("subprocess.Popen", refuse)
    with pytest.raises(WorkerDied, match="Resource temporarily unavailable"):
        WorkerProcess(root)


def test_what_nobody_expects_at_the_start_of_the_worker_ends_the_job_and_not_the_thread(running):
    def start():
        raise RuntimeError("can't start new thread")

    runner, _ = running(start=start)
    job = ended(runner, *add(runner))
    assert (job.state, "RuntimeError" in job.error) == (State.FAILED, True)
    assert runner._thread.is_alive()


@pytest.mark.parametrize(
    "messages",
    [
        [{"event": "notice", "message": "\ud800"}],
        [{"event": "notice"}],
        [{"event": "progress", "stage": "denoise", "done": "x", "total": {}}],
        [{"event": "preview", "image": "é"}],
        [{"event": "planned", "files": [3], "to_fetch": 1, "free": 1}],
        [{"event": ["done"]}],
        [{"event": None}, {}],
        [{"event": "saved"}],
        [{"event": "done", "job": 99}],
        [{"event": "done", "attempt": 99}],
    ],
)
def test_odd_messages_end_in_a_stored_job(running, messages):
    def script(worker, request):
        for message in messages:
            worker.tell(**message)
        succeed(worker, request)

    runner, _ = running(script)
    assert ended(runner, *add(runner)).state in (State.DONE, State.FAILED)
    assert runner._thread.is_alive()


def locked(root, monkeypatch):
    """A write lock on the queue's file, as another program may hold it; nobody waits for its end."""
    monkeypatch.setattr("reeltune.jobs.store._WAIT_SECONDS", 0.05)
    connection = sqlite3.connect(root / "reeltune.sqlite", isolation_level=None, check_same_thread=False)
    connection.execute("BEGIN IMMEDIATE")
    return connection


def test_a_lock_while_a_job_runs_delays_its_end_and_loses_nothing(running, root, monkeypatch):
    go = threading.Event()

    def script(worker, request):
        threading.Thread(target=lambda: (go.wait(WAIT), succeed(worker, request)), daemon=True).start()

    runner, workers = running(script)
    first, second = add(runner, 2)
    until(lambda: workers and workers[0].requests)
    lock = locked(root, monkeypatch)
    go.set()
    until(lambda: runner.trouble is not None)
    assert f"Job {first} is done" in runner.trouble.message
    assert "a.mp4" in runner.trouble.message
    assert len(workers[0].requests) == 1  # no other job is taken meanwhile
    assert runner.queue.get(first).state is State.RUNNING
    with pytest.raises(QueueError, match="ended"):
        runner.cancel(first)
    lock.execute("ROLLBACK")
    lock.close()
    assert ended(runner, first).outputs == ("a.mp4",)
    assert ended(runner, second).state is State.DONE
    until(lambda: runner.trouble is None)


def test_a_root_that_is_moved_while_a_job_runs(running, root, tmp_path):
    def script(worker, request):
        root.rename(tmp_path / "moved")
        succeed(worker, request)

    runner, workers = running(script)
    (id,) = add(runner)
    until(lambda: runner.trouble is not None)
    assert not root.exists()
    workers[0].script = succeed
    (tmp_path / "moved").rename(root)
    job = ended(runner, id)
    assert (job.state, job.outputs) == (State.DONE, ("a.mp4",))


def test_a_program_that_ends_before_an_end_can_be_stored_reports_it(running, root, caplog, monkeypatch):
    runner, _ = running()
    lock = []

    def script(worker, request):
        lock.append(locked(root, monkeypatch))
        succeed(worker, request)

    runner._start_worker = lambda: FakeWorker(script)
    add(runner)
    until(lambda: runner.trouble is not None)
    runner.stop()
    lock[0].close()
    assert "a.mp4" in caplog.text


def fail(worker, request):
    worker.tell(event="progress", stage="prepare", done=0, total=None)
    worker.tell(event="failed", error="This computer is offline.", hint="Connect it.", shared=True)


def test_a_failure_that_every_job_shares_pauses_the_queue(running):
    runner, workers = running(fail)
    ids = add(runner, 700)
    assert ended(runner, ids[0]).state is State.FAILED
    until(lambda: runner.paused)
    runner.wake()
    add(runner)
    assert len(workers[0].requests) == 1
    assert "paused: This computer is offline." in runner.trouble.message
    assert "1 minute" in runner.trouble.hint
    assert sum(job.waiting for job in runner.queue.jobs()) == 700
    workers[0].script = succeed
    runner.resume()
    until(lambda: ended(runner, ids[5]).state is State.DONE)
    until(lambda: runner.trouble is None)


def test_a_paused_queue_continues_by_itself_and_later_each_time(running, monkeypatch):
    monkeypatch.setattr("reeltune.jobs.runner._PAUSE_SECONDS", (0.01, 1000.0))
    runner, _ = running(fail)
    ids = add(runner, 3)
    until(lambda: runner.paused and runner._pauses == 2 and runner._ended is None)
    assert [runner.queue.get(id).state for id in ids] == [State.FAILED, State.FAILED, State.QUEUED]


def test_a_job_alone_and_a_failure_of_its_own_pause_nothing(running):
    runner, workers = running(fail)
    ended(runner, *add(runner))
    assert not runner.paused
    workers[0].script = lambda worker, request: worker.tell(event="failed", error="A wrong setting.", hint="")
    for id in add(runner, 3):
        assert ended(runner, id).state is State.FAILED
    assert not runner.paused


def test_a_worker_that_dies_before_it_begins_pauses_the_queue(running):
    runner, workers = running(lambda worker, request: worker.kill())
    first, _ = add(runner, 2)
    assert "killed" in ended(runner, first).error
    until(lambda: runner.paused)
    assert len(workers) == 1


def test_a_late_cancel_never_hits_the_next_try(running):
    hold = threading.Event()

    def script(worker, request):
        if request["attempt"] == 1:
            succeed(worker, request)
        else:
            hold.set()

    runner, workers = running(script)
    (id,) = add(runner)
    ended(runner, id)
    runner.queue.again(id)
    runner.wake()
    until(hold.is_set)
    with pytest.raises(QueueError, match="ended"):
        runner.cancel(id, attempt=1)
    assert not runner.live.cancelling
    runner.cancel(id, attempt=2)
    assert workers[0].cancels == [{"do": "cancel", "job": id, "attempt": 2}]
    workers[0].tell(event="cancelled")
    assert ended(runner, id).state is State.CANCELLED


def test_a_cancel_before_the_worker_is_there_is_not_lost(running):
    go, asked = threading.Event(), threading.Event()

    def start():
        asked.set()
        go.wait(WAIT)
        return FakeWorker(lambda worker, request: None)

    runner, _ = running(start=start)
    (id,) = add(runner)
    until(asked.is_set)
    threading.Thread(target=lambda: runner.cancel(id), daemon=True).start()
    go.set()
    until(lambda: runner._worker is not None and runner._worker.cancels)
    runner.cancel(id)  # again: the worker is ended
    assert ended(runner, id).state is State.CANCELLED


def test_the_terminal_shows_each_job(running, caplog):
    def script(worker, request):
        worker.tell(event="progress", stage="load", done=0, total=1)
        worker.tell(event="notice", message="transformer: x_int8.safetensors (quanto int8, on disk).")
        worker.tell(event="notice", message="Memory profile resident: it fits.")
        succeed(worker, request)

    with caplog.at_level(logging.INFO, "reeltune.jobs"):
        runner, workers = running(script)
        (id,) = add(runner)
        ended(runner, id)
        workers[0].script = lambda worker, request: worker.tell(event="failed", error="Nothing fits.", hint="Buy.")
        ended(runner, *add(runner))
    for words in (
        f'Job {id} begins: m, "a boat"',
        f"Job {id}: transformer: x_int8.safetensors (quanto int8, on disk).",
        f"Job {id}: Memory profile resident",
        f"Job {id}: video written to a.mp4",
        f"Job {id} is done after 0.",
        "failed after 0.",
        "Nothing fits. Buy.",
    ):
        assert words in caplog.text


@pytest.mark.skipif(os.name != "posix", reason="signals that stop a process")
def test_a_frozen_worker_blocks_neither_cancel_nor_the_end(root):
    frozen = WorkerProcess(root)
    os.kill(frozen.pid, signal.SIGSTOP)
    begun = time.monotonic()
    for _ in range(20):
        frozen.send(do="generate", job=1, attempt=1, settings={"prompt": "x" * 100_000})
    frozen.send(do="cancel", job=1, attempt=1)
    frozen.kill()
    assert list(frozen.events()) == []
    frozen.close()
    assert time.monotonic() - begun < WAIT
    assert not frozen.alive


def test_a_queue_of_a_shared_page_tells_the_worker_to_confine(running, root):
    runner, workers = running(confined=True)
    ended(runner, *add(runner))
    Queue(root).add("m", {})
    runner.wake()
    until(lambda: len(workers[0].requests) == 2)
    assert [request["confined"] for request in workers[0].requests] == [True, False]


def test_a_file_cut_while_its_weights_were_in_use_is_named(running, tmp_path):
    """Reading past the end of a mapped file ends the process with SIGBUS, which names nothing."""
    whole, cut = tmp_path / "whole.safetensors", tmp_path / "cut.safetensors"
    for path in (whole, cut):
        path.write_bytes(bytes(100))
    sizes = [{"path": str(path), "bytes": 100} for path in (whole, cut)]

    class Crashing(FakeWorker):
        def death(self):
            return WorkerDied("The worker process crashed (SIGBUS).", signal="SIGBUS")

    def crash(worker, request):
        worker.tell(event="progress", stage="prepare", done=0, total=None)
        worker.tell(event="using", files=sizes)
        if request["definition"] == "cut":
            os.truncate(cut, 10)
        worker._messages.put(None)

    runner, _ = running(start=lambda: Crashing(crash))
    for definition, words in (("whole", "could not be read, one of"), ("cut", "became shorter while in use")):
        id = runner.queue.add(definition, {"prompt": "a boat"}).id
        runner.wake()
        job = ended(runner, id)
        assert job.state is State.FAILED
        assert words in job.error
        assert str(cut) in job.error
        assert (str(whole) in job.error) == (definition == "whole")
        assert "reeltune verify" in job.hint


@pytest.mark.skipif(not hasattr(signal, "SIGBUS"), reason="a signal of POSIX")
def test_the_signal_of_a_crash_is_known(root):
    worker = WorkerProcess(root)
    os.kill(worker.pid, signal.SIGBUS)
    assert worker.death().signal == "SIGBUS"
    worker.close()
