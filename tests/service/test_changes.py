"""What clients that follow the queue are told, and that nothing of it is lost."""

from types import SimpleNamespace

import pytest

from reeltune.errors import QueueError
from reeltune.jobs import Queue, State
from reeltune.service import changes
from reeltune.service.changes import ChangeKind, QueueLooks, Watcher


@pytest.fixture
def workspace(root):
    runner = SimpleNamespace(paused=False, trouble=None, running=list)
    return SimpleNamespace(runner=runner, queue=Queue(root))


@pytest.fixture(autouse=True)
def _not_shared(monkeypatch):
    monkeypatch.setattr(changes, "_SHARED_SECONDS", -1)


def kinds(changes):
    return [(change.kind, change.job) for change in changes]


def test_everything_is_new_at_first_and_then_only_what_changes(workspace):
    job = workspace.queue.add("any", {"prompt": "x"})
    watcher = Watcher(QueueLooks(workspace))
    first = [(ChangeKind.QUEUE, None), (ChangeKind.JOB, job.id)]
    assert kinds(watcher.changes()) == first
    assert kinds(watcher.changes()) == first  # the client has not got it
    watcher.accept()
    assert watcher.changes() == []
    workspace.queue.cancel(job.id)
    assert kinds(watcher.changes()) == [(ChangeKind.JOB, job.id)]


def test_a_change_is_reported_again_after_a_look_that_failed(workspace, monkeypatch):
    watcher = Watcher(QueueLooks(workspace))
    watcher.changes()
    watcher.accept()
    job = workspace.queue.add("any", {"prompt": "x"})
    workspace.runner.paused = True
    with monkeypatch.context() as patched:
        patched.setattr(workspace.queue, "states", lambda: (_ for _ in ()).throw(QueueError("locked")))
        with pytest.raises(QueueError):
            watcher.changes()
    assert kinds(watcher.changes()) == [(ChangeKind.QUEUE, None), (ChangeKind.JOB, job.id)]


def test_one_job_is_watched_alone(workspace):
    first, second = (workspace.queue.add("any", {"prompt": text}) for text in "ab")
    watcher = Watcher(QueueLooks(workspace), second.id)
    assert (ChangeKind.JOB, first.id) not in kinds(watcher.changes())


def test_the_notices_of_a_job_that_ran_between_two_looks_are_reported(workspace):
    job = workspace.queue.add("any", {"prompt": "x"})
    watcher = Watcher(QueueLooks(workspace))
    watcher.changes()
    watcher.accept()
    attempt = workspace.queue.take("a", 60).attempt
    workspace.queue.finish(attempt, State.DONE, notices=("12 steps become 9.",))
    reported = watcher.changes()
    assert kinds(reported) == [(ChangeKind.NOTICE, job.id), (ChangeKind.JOB, job.id)]
    assert reported[0].text == "12 steps become 9."


def test_clients_share_a_look(workspace, monkeypatch):
    monkeypatch.setattr(changes, "_SHARED_SECONDS", 60)
    asked = []
    states = workspace.queue.states
    monkeypatch.setattr(workspace.queue, "states", lambda: asked.append(1) or states())
    shared = QueueLooks(workspace)
    for _ in range(3):
        Watcher(shared).changes()
    assert len(asked) == 1
