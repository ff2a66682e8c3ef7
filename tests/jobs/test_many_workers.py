"""Several workers of one runner: jobs at the same time, each of them once, ended and cancelled one by one."""

import threading

import pytest
from fake_worker import PREPARE, FakeWorker, runners, succeed, until

from reeltune.errors import WorkerDied
from reeltune.jobs import Queue, Runner, State
from reeltune.jobs.job import Attempt
from reeltune.jobs.messages import Done, Failed, Stopped


@pytest.fixture
def running(root, monkeypatch):
    with runners(root, monkeypatch) as start:
        yield start


def add(runner, count):
    ids = [runner.queue.add("m", {"seed": number}).id for number in range(count)]
    runner.wake()
    return ids


def states(runner, ids):
    return [runner.queue.get(id).state for id in ids]


def prepare(worker, task):
    """A script: begin, and go on when the test says so."""
    worker.tell(PREPARE)


def test_two_workers_run_two_jobs_at_one_time(running):
    together = threading.Barrier(2, timeout=60)  # neither passes without the other

    def meet(worker, task):
        together.wait()
        succeed(worker, task)

    workers = [FakeWorker(meet, "a"), FakeWorker(meet, "b")]
    runner, _ = running(workers=workers)
    ids = add(runner, 2)
    until(lambda: states(runner, ids) == [State.DONE] * 2)
    assert {runner.queue.get(id).worker.rpartition("/")[2] for id in ids} == {"a", "b"}


def test_fifty_jobs_and_four_workers_run_each_job_once(running):
    guard, run = threading.Lock(), []

    def note(worker, task):
        with guard:
            run.append(task.attempt)
        succeed(worker, task)

    runner, _ = running(workers=[FakeWorker(note, f"worker-{number}") for number in range(4)])
    ids = add(runner, 50)
    until(lambda: not runner._attempts() and states(runner, ids) == [State.DONE] * 50)
    assert sorted(run) == [Attempt(id, 1) for id in ids]


def test_what_runs_is_kept_by_job(running):
    workers = [FakeWorker(prepare, "a"), FakeWorker(prepare, "b")]
    runner, _ = running(workers=workers)
    first, second = add(runner, 1) + add(runner, 1)
    until(lambda: len(runner.running()) == 2 and all(live.progress for live in runner.running()))
    assert [live.job for live in runner.running()] == sorted([first, second], key=lambda id: runner.live(id).began)
    assert runner.live(99) is None
    busy = {worker.tasks[0].attempt.job: worker for worker in workers}
    runner.cancel(second)
    assert (runner.live(first).cancelling, runner.live(second).cancelling) == (False, True)
    assert (busy[first].cancels, busy[second].cancels) == ([], [Attempt(second, 1)])
    busy[second].tell(Stopped())
    until(lambda: runner.live(second) is None)
    assert [live.job for live in runner.running()] == [first]
    busy[first].tell(Done())
    until(lambda: states(runner, [first, second]) == [State.DONE, State.CANCELLED])


def test_a_worker_that_dies_ends_no_job_of_another(running):
    def die(worker, task):
        raise WorkerDied("The worker process crashed.")

    workers = [FakeWorker(prepare, "a"), FakeWorker(prepare, "b")]
    runner, _ = running(workers=workers)
    (first,) = add(runner, 1)
    until(lambda: runner.live(first) is not None and runner.live(first).progress is not None)
    (idle,) = (worker for worker in workers if not worker.tasks)
    idle.script = die
    (second,) = add(runner, 1)
    until(lambda: states(runner, [second]) == [State.FAILED])
    assert states(runner, [first]) == [State.RUNNING]


def test_a_failure_that_every_job_shares_pauses_all_workers(running):
    def fail(worker, task):
        worker.tell(PREPARE, Failed("This computer is offline.", "Connect it.", shared=True))

    workers = [FakeWorker(prepare, "a"), FakeWorker(prepare, "b")]
    runner, _ = running(workers=workers)
    add(runner, 2)
    until(lambda: all(worker.tasks for worker in workers))
    waiting = add(runner, 3)
    fail(workers[0], None)
    until(lambda: runner.paused)
    workers[1].tell(Done())
    until(lambda: not runner._attempts())
    assert states(runner, waiting) == [State.QUEUED] * 3
    for worker in workers:
        worker.script = succeed
    runner.resume()
    until(lambda: states(runner, waiting) == [State.DONE] * 3)


def test_stopping_interrupts_the_jobs_of_all_workers(root):
    runner = Runner(root, workers=[FakeWorker(prepare, "a"), FakeWorker(prepare, "b")])
    with runner:
        ids = add(runner, 2)
        until(lambda: len(runner.running()) == 2)
    assert states(runner, ids) == [State.INTERRUPTED] * 2
    assert all("ended while it ran" in runner.queue.get(id).error for id in ids)


def test_workers_with_one_name_are_refused(root):
    with pytest.raises(ValueError, match="same name"):
        Runner(root, workers=[FakeWorker(), FakeWorker()])


def test_jobs_of_a_program_that_was_killed_are_interrupted_at_the_next_start_and_those_of_others_are_not(running, root):
    runner, _ = running(workers=[FakeWorker(prepare, "a")])
    (killed,) = add(runner, 1)
    until(lambda: runner.running())
    name = runner.running()[0].worker
    runner.stop()
    queue = Queue(root)
    queue.retry(killed)
    own = queue.take(name, 60)  # as before kill -9
    elsewhere = queue.add("m", {}).id
    queue.take("another-machine/a", 60)
    running(workers=[FakeWorker(prepare, "a")])
    assert queue.get(own.id).state is State.INTERRUPTED
    assert queue.get(elsewhere).state is State.RUNNING
