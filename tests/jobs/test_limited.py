"""A runner that runs certain jobs only, reports their events, and is interrupted."""

import pytest
from fake_worker import PREPARE, runners, succeed, until

from reeltune.jobs import State
from reeltune.jobs.messages import Done, Saved, Stopped


@pytest.fixture
def running(root, monkeypatch):
    with runners(root, monkeypatch) as start:
        yield start


def add(runner, count):
    return [runner.queue.add("nano_t2v", {"prompt": str(number)}).id for number in range(count)]


def test_other_jobs_are_left_alone(running):
    events = []
    runner, worker = running(only=(), listener=lambda id, event: events.append((id, event)))
    first, second, third = add(runner, 3)
    runner.limit_to({second, third})
    until(lambda: runner.queue.get(third).state is State.DONE)
    assert [task.attempt.job for task in worker.tasks] == [second, third]
    assert runner.queue.get(first).state is State.QUEUED
    assert events == [(id, event) for id in (second, third) for event in (PREPARE, Saved("a.mp4"))]


def test_interrupting_leaves_the_job_resumable_and_the_others_waiting(running):
    def until_cancelled(worker, task):
        worker.tell(PREPARE, Saved("a.mp4"))
        until(lambda: worker.cancels == [task.attempt])
        worker.tell(Stopped())

    runner, worker = running(until_cancelled)
    first, second = add(runner, 2)
    until(lambda: runner.live(first))
    runner.interrupt()
    until(lambda: not runner.running() and runner.queue.get(first).state is not State.RUNNING)
    job = runner.queue.get(first)
    assert (job.state, job.resumable, job.outputs) == (State.INTERRUPTED, True, ("a.mp4",))
    runner.wake()
    assert runner.queue.get(second).state is State.QUEUED
    assert len(worker.tasks) == 1


def test_a_job_that_ends_before_it_can_be_interrupted_is_done(running):
    def finish_anyway(worker, task):
        worker.tell(PREPARE)
        until(lambda: worker.cancels)
        worker.tell(Saved("a.mp4"), Done())

    runner, _ = running(finish_anyway)
    (id,) = add(runner, 1)
    until(lambda: runner.live(id))
    runner.interrupt()
    until(lambda: runner.queue.get(id).state is State.DONE)


def test_a_cancelled_job_is_still_cancelled(running):
    def script(worker, task):
        if len(worker.tasks) > 1:
            succeed(worker, task)
            return
        worker.tell(PREPARE)
        until(lambda: worker.cancels)
        worker.tell(Stopped())

    runner, _ = running(script)
    first, second = add(runner, 2)
    until(lambda: runner.live(first))
    runner.cancel(first)
    until(lambda: runner.queue.get(second).state is State.DONE)
    assert runner.queue.get(first).state is State.CANCELLED
