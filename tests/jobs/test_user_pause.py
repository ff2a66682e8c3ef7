"""The user's pause: nothing is taken, it outlives the program, and what runs goes on to its end."""

import logging
import sqlite3
import threading

import pytest
from fake_worker import PREPARE, look_in_vain, runners, succeed, until

from reeltune.jobs import Queue, State
from reeltune.jobs.messages import Failed
from reeltune.jobs.store import _MIGRATIONS


@pytest.fixture
def running(root, monkeypatch):
    with runners(root, monkeypatch) as start:
        yield start


def add(runner):
    id = runner.queue.add("m", {"prompt": "a boat"}).id
    runner.wake()
    return id


def done(runner, id):
    until(lambda: runner.queue.get(id).state is State.DONE)


def test_nothing_is_taken_while_the_user_pauses_the_queue(running, caplog):
    caplog.set_level(logging.INFO, "reeltune.jobs")
    runner, worker = running()
    runner.pause()
    runner.pause()
    id = add(runner)
    look_in_vain(worker)
    assert (runner.queue.get(id).state, worker.tasks) == (State.QUEUED, [])
    assert runner.paused
    assert runner.trouble.message == "The queue is paused by the user."
    assert "The queue is paused by the user." in caplog.text
    runner.resume()
    done(runner, id)
    assert (runner.paused, runner.trouble) == (False, None)
    assert "The queue continues." in caplog.text


def test_the_pause_outlives_the_program(running, root, caplog):
    first, _ = running()
    first.pause()
    first.stop()
    caplog.clear()
    runner, worker = running()
    id = add(runner)
    look_in_vain(worker)
    assert worker.tasks == []
    assert "The queue is paused by the user." in caplog.text
    Queue(root).set_paused(False)  # another program may end it too
    done(runner, id)


def test_a_running_job_goes_on_to_its_end(running):
    hold = threading.Event()

    def script(worker, task):
        worker.tell(PREPARE)
        hold.wait(60)
        succeed(worker, task)

    runner, worker = running(script)
    first, second = add(runner), add(runner)
    until(lambda: worker.tasks)
    runner.pause()
    hold.set()
    done(runner, first)
    look_in_vain(worker)
    assert runner.queue.get(second).state is State.QUEUED
    runner.resume()
    done(runner, second)


def fail_at_first(worker, task):
    if len(worker.tasks) == 1:
        worker.tell(PREPARE, Failed("This computer is offline.", "Connect it.", shared=True))
    else:
        succeed(worker, task)


def both(runner):
    """Two jobs that are added before a worker can take one."""
    runner.pause()
    ids = add(runner), add(runner)
    runner.resume()
    return ids


def test_resume_ends_an_automatic_pause_at_once(running):
    runner, _ = running(fail_at_first)
    _, second = both(runner)
    until(lambda: runner.paused)
    assert "This computer is offline." in runner.trouble.message
    runner.resume()
    done(runner, second)


def test_the_users_pause_takes_the_place_of_an_automatic_one(running):
    runner, worker = running(fail_at_first)
    _, second = both(runner)
    until(lambda: runner.paused)
    runner.pause()
    assert "by the user" in runner.trouble.message
    assert len(worker.tasks) == 1
    runner.resume()
    done(runner, second)


def test_a_failure_during_the_users_pause_begins_no_other_one(running):
    hold = threading.Event()

    def script(worker, task):
        if len(worker.tasks) == 1:
            hold.wait(60)
        fail_at_first(worker, task)

    runner, worker = running(script)
    _, second = both(runner)
    until(lambda: worker.tasks)
    runner.pause()
    hold.set()
    until(lambda: not runner._attempts())
    assert "by the user" in runner.trouble.message
    runner.queue.set_paused(False)
    done(runner, second)


def test_a_queue_of_the_version_before_is_not_paused(root):
    connection = sqlite3.connect(root / "reeltune.sqlite")
    for migration in _MIGRATIONS[:4]:
        for statement in migration.split(";"):
            connection.execute(statement)
    connection.execute("PRAGMA user_version = 4")
    connection.commit()
    connection.close()
    queue = Queue(root)
    assert not queue.paused
    queue.add("m", {})
    queue.set_paused(True)
    assert queue.take("a", 60) is None
    queue.set_paused(False)
    assert queue.take("a", 60) is not None
