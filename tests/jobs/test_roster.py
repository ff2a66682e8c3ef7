"""The table of workers in the queue's file: what it shows, and what other programs ask by it."""

import sqlite3

import pytest
from fake_worker import PREPARE, FakeWorker, runners, until

from reeltune.errors import WorkerDied, WorkerNotFound
from reeltune.events import FilesUsed, UsedFile
from reeltune.jobs import Queue, State
from reeltune.jobs.handle import WorkerPlace
from reeltune.jobs.messages import Done
from reeltune.jobs.roster import Roster, WorkerRequest, WorkerRow, held_in_words
from reeltune.jobs.schedule_values import JobNeeds

ROWS = [
    WorkerRow("a", "cuda:0", "here", "busy", "m + x.safetensors", 7, 5, 9, 1.5, "It was killed."),
    WorkerRow("b", "cpu", "there", "free"),
]
USING = FilesUsed((UsedFile("x.safetensors", 5),))


@pytest.fixture
def running(root, monkeypatch):
    monkeypatch.setattr("reeltune.jobs.roster._LOOK_SECONDS", 0.02)
    monkeypatch.setattr("reeltune.jobs.roster._MEMORY_SECONDS", 0.0)
    with runners(root, monkeypatch) as start:
        yield start


def two(script):
    workers = [FakeWorker(script, name) for name in ("one", "two")]
    workers[0].place = WorkerPlace("cuda:0", "here", 24 * 2**30)
    return workers


def test_rows_are_read_as_they_were_written_and_requests_stay_until_they_are_obeyed(root):
    roster = Roster.of(root)
    roster.write(ROWS)
    assert roster.rows() == ROWS
    roster.ask("a", WorkerRequest.END)
    roster.write(ROWS[:1])
    assert roster.requests() == {"a": WorkerRequest.END}
    roster.obeyed({"a": WorkerRequest.DRAIN})  # another one than was asked last
    assert roster.requests() == {"a": WorkerRequest.END}
    roster.obeyed(roster.requests())
    assert roster.requests() == {}
    with pytest.raises(WorkerNotFound, match="no worker 'b'") as caught:
        roster.ask("b", WorkerRequest.DRAIN)
    assert caught.value.hint == "There are: a."


def test_odd_rows_and_unknown_requests_hide_nothing(root):
    roster = Roster.of(root)
    roster.write(ROWS)
    with sqlite3.connect(root / "reeltune.sqlite") as connection:
        connection.execute("UPDATE workers SET request = 'explode', job = 'x', since = 'y' WHERE name = 'a'")
    connection.close()
    assert roster.requests() == {}
    assert (roster.rows()[0].job, roster.rows()[0].since) == (None, 0.0)


def test_what_a_worker_holds_in_words():
    needs = JobNeeds("m", ("/x/y.safetensors",), frozenset(), frozenset(), "", 0, None)
    assert held_in_words(needs) == "m + y.safetensors"


def test_a_running_program_shows_its_workers_and_a_stopped_one_none(running, root):
    workers = two(lambda worker, task: worker.tell(PREPARE, USING))
    runner, _ = running(workers=workers)
    roster = Roster.of(root)
    assert [(row.name, row.device, row.node, row.state) for row in roster.rows()] == [
        ("one", "cuda:0", "here", "free"),
        ("two", "cpu", "here", "free"),
    ]
    id = runner.queue.add("m", {}).id
    runner.wake()
    until(lambda: any(row.job == id for row in roster.rows()))
    (busy,) = (row for row in roster.rows() if row.job == id)
    assert (busy.state, busy.holds) == ("busy", "m")
    until(lambda: any(worker.tasks for worker in workers))  # its row says so a moment before
    worker = next(worker for worker in workers if worker.tasks)
    worker.used_bytes = 5
    until(lambda: any(row.used_bytes == 5 for row in roster.rows()))
    worker.tell(Done())
    until(lambda: all(row.job is None for row in roster.rows()))
    worker.idle_death = WorkerDied("The worker process was killed.")
    until(lambda: any("killed" in row.problem for row in roster.rows()))
    runner.stop()
    assert roster.rows() == []


def test_another_program_drains_ends_and_resumes_a_worker(running, root):
    workers = two(lambda worker, task: worker.tell(PREPARE, USING, Done()))
    runner, _ = running(workers=workers)
    other = Roster.of(root)
    for name in ("one", "two"):
        other.ask(name, WorkerRequest.END)
    until(lambda: {row.state for row in other.rows()} == {"drained"})
    assert other.requests() == {}
    id = Queue(root).add("m", {}).id
    runner.wake()
    assert "drained" in runner.waits()[id]
    assert not any(worker.tasks for worker in workers)
    other.ask("two", WorkerRequest.RESUME)
    until(lambda: runner.queue.get(id).state is State.DONE)
    assert runner.queue.get(id).worker.endswith("/two")


def test_a_request_to_an_earlier_program_is_dropped(running, root):
    roster = Roster.of(root)
    roster.write([WorkerRow("fake", "", "", "free")])  # as after kill -9
    roster.ask("fake", WorkerRequest.DRAIN)
    runner, _ = running()
    assert [row.state for row in roster.rows()] == ["free"]
    assert not runner.crew.member("fake").draining


def test_a_worker_of_another_name_is_refused(running):
    runner, _ = running()
    with pytest.raises(WorkerNotFound, match="'b'"):
        runner.ask("b", WorkerRequest.DRAIN)
