"""However a job ends, and whatever fails around it: it ends with a reason, its videos are kept, and the next one runs."""

import json
import logging
import os
import re
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor, wait

import pytest
from fake_worker import PREPARE, FakeWorker, runners, succeed, until

from reeltune.errors import QueueError, WorkerDied
from reeltune.events import FilesUsed, Notice, Progress, UsedFile
from reeltune.jobs import Queue, State
from reeltune.jobs.job import Attempt
from reeltune.jobs.messages import Failed, Stopped

WAIT = 120


@pytest.fixture
def running(root, monkeypatch):
    with runners(root, monkeypatch) as start:
        yield start


def add(runner, count=1):
    new = [{"definition": "m", "settings": {"prompt": "a boat"}}] * count
    ids = [job.id for job in runner.queue.import_text(json.dumps({"jobs": new}))]  # all of them at once
    runner.wake()
    return ids


def ended(runner, id):
    until(lambda: runner.queue.get(id).state not in (State.QUEUED, State.RUNNING) and runner.live(id) is None)
    return runner.queue.get(id)


def threads_alive(runner):
    return all(thread.alive for thread in runner._threads.values())


def test_a_worker_that_can_not_be_started_twice_fails_its_job_with_a_reason(running):
    def script(worker, task):
        if len(worker.tasks) <= 2:
            raise WorkerDied("The worker process can't be started: Cannot allocate memory.")
        succeed(worker, task)

    runner, _ = running(script)
    (id,) = add(runner)
    job = ended(runner, id)
    assert (job.state, "can't be started" in job.error) == (State.FAILED, True)
    assert ended(runner, *add(runner)).state is State.DONE


@pytest.mark.parametrize("error", [RuntimeError("can't start new thread"), OSError(12, "Cannot allocate memory")])
def test_an_unexpected_error_of_a_worker_ends_the_job_and_not_the_thread(running, error):
    def script(worker, task):
        if len(worker.tasks) == 1:
            raise error
        succeed(worker, task)

    runner, worker = running(script)
    job = ended(runner, *add(runner))
    assert (job.state, type(error).__name__ in job.error) == (State.FAILED, True)
    assert worker.kills == 1  # whatever it still does
    assert threads_alive(runner)
    assert ended(runner, *add(runner)).state is State.DONE


def test_a_worker_that_ends_without_a_result_fails_its_job(running):
    class Silent(FakeWorker):
        def run(self, task):
            yield PREPARE

    runner, _ = running(workers=[Silent()])
    job = ended(runner, *add(runner))
    assert (job.state, job.error) == (State.FAILED, "The worker ended without a result.")


def test_an_unexpected_error_when_an_end_is_stored_strands_no_job(running, monkeypatch):
    failures = [TypeError("odd"), OSError(5, "Input/output error")]
    finish = Queue.finish

    def fail_twice(*arguments, **options):
        if failures:
            raise failures.pop()
        return finish(*arguments, **options)

    monkeypatch.setattr(Queue, "finish", fail_twice)
    runner, worker = running()
    first, second = add(runner, 2)
    assert ended(runner, first).outputs == ("a.mp4",)
    assert ended(runner, second).state is State.DONE
    assert not failures
    assert [task.attempt for task in worker.tasks] == [Attempt(first, 1), Attempt(second, 1)]


def test_an_unexpected_error_when_a_job_is_taken_stops_no_worker(running, monkeypatch):
    failures = [TypeError("odd")]
    take = Queue.take

    def fail_once(*arguments, **options):
        if failures:
            raise failures.pop()
        return take(*arguments, **options)

    monkeypatch.setattr(Queue, "take", fail_once)
    runner, _ = running()
    assert ended(runner, *add(runner)).state is State.DONE


def locked(root, monkeypatch):
    """A write lock on the queue's file, as another program may hold it; nobody waits for its end."""
    monkeypatch.setattr("reeltune.jobs.store._WAIT_SECONDS", 0.05)
    connection = sqlite3.connect(root / "reeltune.sqlite", isolation_level=None, check_same_thread=False)
    connection.execute("BEGIN IMMEDIATE")
    return connection


def test_a_lock_while_a_job_runs_delays_its_end_and_loses_nothing(running, root, monkeypatch):
    go = threading.Event()

    def script(worker, task):
        threading.Thread(target=lambda: (go.wait(WAIT), succeed(worker, task)), daemon=True).start()

    runner, worker = running(script)
    first, second = add(runner, 2)
    until(lambda: worker.tasks)
    lock = locked(root, monkeypatch)
    go.set()
    until(lambda: runner.trouble is not None)
    assert f"Job {first} is done" in runner.trouble.message
    assert "a.mp4" in runner.trouble.message
    assert len(worker.tasks) == 1  # no other job is taken meanwhile
    assert runner.queue.get(first).state is State.RUNNING
    with pytest.raises(QueueError, match="ended"):
        runner.cancel(first)
    lock.execute("ROLLBACK")
    lock.close()
    assert ended(runner, first).outputs == ("a.mp4",)
    assert ended(runner, second).state is State.DONE
    until(lambda: runner.trouble is None)


def test_a_root_that_is_moved_while_a_job_runs(running, root, tmp_path):
    def script(worker, task):
        root.rename(tmp_path / "moved")
        succeed(worker, task)

    runner, worker = running(script)
    (id,) = add(runner)
    until(lambda: runner.trouble is not None)
    assert not root.exists()
    worker.script = succeed
    (tmp_path / "moved").rename(root)
    job = ended(runner, id)
    assert (job.state, job.outputs) == (State.DONE, ("a.mp4",))


def test_a_program_that_ends_before_an_end_can_be_stored_reports_it(running, root, caplog, monkeypatch):
    lock = []

    def script(worker, task):
        lock.append(locked(root, monkeypatch))
        succeed(worker, task)

    runner, _ = running(script)
    add(runner)
    until(lambda: runner.trouble is not None)
    runner.stop()
    lock[0].close()
    assert "a.mp4" in caplog.text


def fail(worker, task):
    worker.tell(PREPARE, Failed("This computer is offline.", "Connect it.", shared=True))


def test_a_failure_that_every_job_shares_pauses_the_queue(running):
    runner, worker = running(fail)
    ids = add(runner, 700)
    assert ended(runner, ids[0]).state is State.FAILED
    until(lambda: runner.paused)
    runner.wake()
    add(runner)
    assert len(worker.tasks) == 1
    assert "paused: This computer is offline." in runner.trouble.message
    assert "1 minute" in runner.trouble.hint
    assert sum(job.waiting for job in runner.queue.jobs()) == 700
    worker.script = succeed
    runner.resume()
    until(lambda: ended(runner, ids[5]).state is State.DONE)
    until(lambda: runner.trouble is None)


def test_a_paused_queue_continues_by_itself_and_later_each_time(running, monkeypatch):
    monkeypatch.setattr("reeltune.jobs.pauses._SECONDS", (0.01, 1000.0))
    runner, _ = running(fail)
    ids = add(runner, 3)
    until(lambda: runner.paused and runner._pauses._in_a_row == 2 and not runner._attempts())
    assert [runner.queue.get(id).state for id in ids] == [State.FAILED, State.FAILED, State.QUEUED]


def test_a_job_alone_and_a_failure_of_its_own_pause_nothing(running):
    runner, worker = running(fail)
    ended(runner, *add(runner))
    assert not runner.paused
    worker.script = lambda worker, task: worker.tell(Failed("A wrong setting."))
    for id in add(runner, 3):
        assert ended(runner, id).state is State.FAILED
    assert not runner.paused


def test_a_worker_that_dies_before_it_begins_pauses_the_queue(running):
    runner, worker = running(lambda worker, task: worker.kill())
    first, _ = add(runner, 2)
    assert "killed" in ended(runner, first).error
    until(lambda: runner.paused)
    assert [task.attempt for task in worker.tasks] == [Attempt(first, 1), Attempt(first, 2)]


def test_a_late_cancel_never_hits_the_next_try(running):
    hold = threading.Event()

    def script(worker, task):
        if task.attempt.number == 1:
            succeed(worker, task)
        else:
            hold.set()

    runner, worker = running(script)
    (id,) = add(runner)
    ended(runner, id)
    runner.queue.retry(id)
    runner.wake()
    until(hold.is_set)
    with pytest.raises(QueueError, match="ended"):
        runner.cancel(id, attempt=1)
    assert not runner.live(id).cancelling
    runner.cancel(id, attempt=2)
    assert worker.cancels == [Attempt(id, 2)]
    worker.tell(Stopped())
    assert ended(runner, id).state is State.CANCELLED


def test_the_end_of_an_earlier_try_changes_nothing_of_the_next(running, root, caplog):
    """Another program took the job for lost, and the user began it again there."""
    go = threading.Event()

    def script(worker, task):
        threading.Thread(target=lambda: (go.wait(WAIT), succeed(worker, task)), daemon=True).start()

    runner, worker = running(script)
    (id,) = add(runner)
    until(lambda: worker.tasks)
    other = Queue(root)
    other.recover([other.get(id).worker])
    other.retry(id)
    second = other.take("elsewhere", 60)
    go.set()
    until(lambda: runner.live(id) is None and not runner._attempts())
    job = other.get(id)
    assert (job.state, job.attempt, job.worker, job.outputs) == (State.RUNNING, second.attempt, "elsewhere", ())
    assert "changes nothing" in caplog.text
    with pytest.raises(QueueError, match="another program"):
        runner.cancel(id)


def test_a_cancel_before_the_worker_is_there_is_not_lost(running):
    go, asked = threading.Event(), threading.Event()

    def start_slowly(worker, task):
        asked.set()
        go.wait(WAIT)

    runner, worker = running(start_slowly)
    (id,) = add(runner)
    until(asked.is_set)
    runner.cancel(id)
    assert worker.cancels == [Attempt(id, 1)]
    runner.cancel(id)  # again: the worker is ended
    go.set()
    assert ended(runner, id).state is State.CANCELLED
    assert worker.kills == 1


def test_a_job_that_was_taken_a_moment_ago_is_cancelled(running, monkeypatch):
    take, cancels = Queue.take, []

    def take_and_cancel(*arguments, **options):
        job = take(*arguments, **options)
        if job is not None:
            cancels.append(threads.submit(runner.cancel, job.id))
            wait(cancels, 0.1)  # it isn't heard before the worker knows of its job
        return job

    def until_cancelled(worker, task):
        until(lambda: worker.cancels)
        worker.tell(Stopped())

    monkeypatch.setattr(Queue, "take", take_and_cancel)
    with ThreadPoolExecutor(1) as threads:
        runner, _ = running(until_cancelled)
        assert ended(runner, *add(runner)).state is State.CANCELLED
        cancels[0].result(WAIT)


def test_the_terminal_shows_each_job(running, caplog):
    def script(worker, task):
        worker.tell(Progress("load", 0, 1))
        worker.tell(Notice("transformer: x_int8.safetensors (quanto int8, on disk)."))
        worker.tell(Notice("Memory profile resident: it fits."))
        succeed(worker, task)

    with caplog.at_level(logging.INFO, "reeltune.jobs"):
        runner, worker = running(script)
        (id,) = add(runner)
        ended(runner, id)
        worker.script = lambda worker, task: worker.tell(Failed("Nothing fits.", "Buy."))
        ended(runner, *add(runner))
    for words in (
        f'Job {id} begins: m, "a boat"',
        f"Job {id}: transformer: x_int8.safetensors (quanto int8, on disk).",
        f"Job {id}: Memory profile resident",
        f"Job {id}: video written to a.mp4",
        "Nothing fits. Buy.",
    ):
        assert words in caplog.text
    assert re.search(rf"Job {id} is done after \d+\.\d s", caplog.text)
    assert re.search(r"Job \d+ failed after \d+\.\d s", caplog.text)


def test_a_queue_of_a_shared_page_tells_the_worker_to_confine(running, root):
    runner, worker = running(confined=True)
    ended(runner, *add(runner))
    Queue(root).add("m", {})
    runner.wake()
    until(lambda: len(worker.tasks) == 2)
    assert [task.confined for task in worker.tasks] == [True, False]


def test_a_file_cut_while_its_weights_were_in_use_is_named(running, tmp_path):
    """Reading past the end of a mapped file ends the process with SIGBUS, which names nothing."""
    whole, cut = tmp_path / "whole.safetensors", tmp_path / "cut.safetensors"
    for path in (whole, cut):
        path.write_bytes(bytes(100))
    using = FilesUsed((UsedFile(str(whole), 100), UsedFile(str(cut), 100)))

    def crash(worker, task):
        worker.death = WorkerDied("The worker process crashed (SIGBUS).", signal="SIGBUS")
        worker.tell(PREPARE, using)
        if task.definition == "cut":
            os.truncate(cut, 10)
        worker.kill()

    runner, _ = running(crash)
    for definition, words in (("whole", "could not be read, one of"), ("cut", "became shorter while in use")):
        id = runner.queue.add(definition, {"prompt": "a boat"}).id
        runner.wake()
        job = ended(runner, id)
        assert job.state is State.FAILED
        assert words in job.error
        assert str(cut) in job.error
        assert (str(whole) in job.error) == (definition == "whole")
        assert "reeltune verify" in job.hint
