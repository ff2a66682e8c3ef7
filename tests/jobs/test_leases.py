"""Leases: whose jobs are interrupted, whose are not, and files of the queue from before there were leases."""

import sqlite3
import threading

import pytest
from fake_worker import PREPARE, FakeWorker, until

from reeltune.errors import QueueError
from reeltune.jobs import Queue, Runner, State
from reeltune.jobs.job import Attempt
from reeltune.jobs.leases import LeaseKeeper
from reeltune.jobs.store import _MIGRATIONS


@pytest.fixture
def clock(monkeypatch):
    """The time in seconds since 1970, as the queue sees it."""
    now = [2e9]
    monkeypatch.setattr("reeltune.jobs.queue.time.time", lambda: now[0])
    return now


def take(queue, worker="a", seconds=60):
    return queue.take(worker, seconds)


def test_a_job_knows_its_worker_and_its_lease(root, clock):
    queue = Queue(root)
    queue.add("m", {})
    job = take(queue, "machine/local-1", 60)
    assert (job.worker, job.lease, job.attempt) == ("machine/local-1", clock[0] + 60, Attempt(job.id, 1))


def test_a_job_of_another_program_is_interrupted_only_after_its_lease(root, clock):
    theirs, ours = Queue(root), Queue(root)
    theirs.add("m", {})
    job = take(theirs)
    assert ours.recover(["b"]) == 0
    assert take(ours, "b") is None
    clock[0] += 59
    theirs.renew([job.attempt], 60)
    clock[0] += 59
    assert ours.recover() == 0
    assert ours.get(job.id).state is State.RUNNING
    clock[0] += 2
    assert ours.recover() == 1
    assert ours.get(job.id).state is State.INTERRUPTED


def test_a_lease_written_before_the_clock_was_set_back_does_not_last_for_years(root, clock):
    queue = Queue(root)
    queue.add("m", {})
    take(queue)
    clock[0] -= 1e8
    assert queue.recover() == 1


def test_a_lease_of_an_earlier_try_is_not_renewed(root, clock):
    queue = Queue(root)
    id = queue.add("m", {}).id
    first = take(queue)
    queue.recover(["a"])
    queue.retry(id)
    second = take(queue, "b", 10)
    queue.renew([first.attempt], 1000)
    assert queue.get(id).lease == second.lease


def test_what_comes_late_changes_nothing_of_the_next_try(root):
    queue = Queue(root)
    id = queue.add("m", {}).id
    first = take(queue).attempt
    queue.recover(["a"])
    queue.retry(id)
    assert not queue.finish(first, State.DONE, outputs=["late.mp4"])  # it waits to be tried again
    assert queue.get(id).state is State.QUEUED
    second = take(queue, "b").attempt
    queue.store_progress(first, "late")
    queue.store_outputs(first, ["late.mp4"], "late.safetensors")
    assert not queue.finish(first, State.DONE, outputs=["late.mp4"], notices=["late"])
    job = queue.get(id)
    assert (job.state, job.attempt, job.progress, job.outputs, job.latents) == (State.RUNNING, second, "", (), "")
    assert queue.finish(second, State.DONE, outputs=["a.mp4"])
    assert not queue.finish(second, State.FAILED)  # once is enough
    assert queue.get(id).state is State.DONE


def test_a_job_that_was_taken_for_lost_and_ends_after_all_is_done(root):
    """A laptop slept: its lease ran out, another program noticed, and nobody has tried the job again."""
    queue = Queue(root)
    id = queue.add("m", {}).id
    attempt = take(queue).attempt
    queue.recover(["a"])
    assert queue.finish(attempt, State.DONE, outputs=["a.mp4"])
    assert (queue.get(id).state, queue.get(id).outputs) == (State.DONE, ("a.mp4",))


def test_own_leases_are_renewed_before_others_are_looked_at(root, clock):
    queue = Queue(root)
    own, lost = queue.add("m", {}).id, queue.add("m", {}).id
    running = [take(queue).attempt]
    take(queue, "elsewhere")
    clock[0] += 10_000  # as after a night's sleep
    keeper = LeaseKeeper(queue, lambda: running)
    keeper.check()
    assert (queue.get(own).state, queue.get(lost).state) == (State.RUNNING, State.INTERRUPTED)


def test_the_leases_of_a_runner_are_renewed_whatever_its_workers_report(root, monkeypatch):
    monkeypatch.setattr("reeltune.jobs.leases._RENEW_SECONDS", 0.01)
    failures = [QueueError("locked"), TypeError("odd")]
    renew = Queue.renew

    def fail_first(*arguments):
        if failures:
            raise failures.pop()
        renew(*arguments)

    monkeypatch.setattr(Queue, "renew", fail_first)
    with Runner(root, workers=[FakeWorker(lambda worker, task: worker.tell(PREPARE))]) as runner:
        id = runner.queue.add("m", {}).id
        runner.wake()
        until(lambda: runner.live(id) is not None)
        lease = runner.queue.get(id).lease
        until(lambda: runner.queue.get(id).lease > lease)
        other = Queue(root)
        assert other.recover() == 0
    assert not failures


def test_a_job_is_run_once_by_several_programs_that_take_and_recover_at_once(root):
    queue = Queue(root)
    total = 30
    for _ in range(total):
        queue.add("m", {})
    guard, taken = threading.Lock(), []

    def work(name):
        own = Queue(root)
        while (job := take(own, name)) is not None:
            own.recover()
            with guard:
                taken.append(job.attempt)
            assert own.finish(job.attempt, State.DONE)

    threads = [threading.Thread(target=work, args=(f"worker-{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == [Attempt(number, 1) for number in range(1, total + 1)]
    assert {job.state for job in queue.jobs()} == {State.DONE}


def test_a_file_from_before_there_were_leases(root):
    connection = sqlite3.connect(root / "reeltune.sqlite")
    for migration in _MIGRATIONS[:3]:
        for statement in migration.split(";"):
            connection.execute(statement)
    connection.execute("PRAGMA user_version = 3")
    connection.executemany(
        "INSERT INTO jobs (definition, settings, state, position, created, attempt) VALUES ('m', ?, ?, 1, 1, ?)",
        [('{"prompt": "waits"}', "queued", 0), ('{"prompt": "ran"}', "running", 2)],
    )
    connection.commit()
    connection.close()
    queue = Queue(root)
    assert not queue.notice
    waiting, ran = queue.get(1), queue.get(2)
    assert (waiting.prompt, waiting.worker, waiting.lease) == ("waits", "", 0)
    assert (ran.state, ran.attempt) == (State.RUNNING, Attempt(2, 2))
    assert queue.recover() == 1
    assert queue.get(2).state is State.INTERRUPTED
    assert take(queue).attempt == Attempt(1, 1)
    assert len(Queue(root).jobs()) == 2  # and once more, as it is up to date


@pytest.mark.parametrize("lease", ["'soon'", "x'00'", "-1", "9e999", "1e300"])
def test_an_odd_lease_counts_as_run_out(root, lease):
    queue = Queue(root)
    id = queue.add("m", {}).id
    take(queue)
    with sqlite3.connect(root / "reeltune.sqlite") as connection:
        connection.execute(f"UPDATE jobs SET lease = {lease}")
    connection.close()
    assert queue.get(id).lease >= 0
    assert queue.recover() == 1
