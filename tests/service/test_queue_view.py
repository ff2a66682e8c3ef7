"""The queue as values: places, possible actions, and what the actions do."""

import json
from types import SimpleNamespace

import pytest

from reeltune.errors import QueueError
from reeltune.jobs import Job, Queue, State
from reeltune.service.queue_view import JobAction, import_queue, perform, queue_view, videos_of
from reeltune.service.workspace import Workspace


def job(id, state, **facts):
    return Job(id, "any", {"prompt": "x"}, state, id, 0.0, **facts)


@pytest.fixture
def workspace(root):
    (root / "outputs").mkdir()
    calls = []
    runner = SimpleNamespace(
        queue=Queue(root),
        calls=calls,
        wake=lambda: calls.append("wake"),
        cancel=lambda id: calls.append(id),
        pause=lambda: calls.append("pause"),
        resume=lambda: calls.append("resume"),
    )
    return Workspace(root, runner)


def test_each_job_has_its_place_and_the_actions_that_are_possible():
    jobs = [
        job(1, State.RUNNING),
        job(2, State.QUEUED),
        job(3, State.QUEUED),
        job(4, State.INTERRUPTED),
        job(5, State.FAILED),
        job(6, State.DONE),
    ]
    view = queue_view(jobs)
    assert [(item.job.id, item.place) for item in view.active] == [(1, None), (2, 1), (3, 2), (4, None)]
    assert [item.job.id for item in view.finished] == [5, 6]
    assert (view.waiting, view.failed) == (2, 1)
    actions = {item.job.id: item.actions for item in (*view.active, *view.finished)}
    assert actions[1] == (JobAction.CANCEL,)
    assert JobAction.MOVE_UP not in actions[2]
    assert JobAction.MOVE_DOWN in actions[2]
    assert JobAction.MOVE_UP in actions[3]
    assert JobAction.MOVE_DOWN not in actions[3]
    assert JobAction.RUN_AGAIN in actions[5]


def test_actions_change_the_queue_and_unknown_ones_are_errors(workspace):
    first, second = (workspace.queue.add("any", {"prompt": str(number)}) for number in range(2))
    perform(workspace, "down", first.id)
    assert [waiting.id for waiting in workspace.queue.jobs()] == [second.id, first.id]
    perform(workspace, "remove", second.id)
    assert [waiting.id for waiting in workspace.queue.jobs()] == [first.id]
    perform(workspace, "cancel", first.id)
    perform(workspace, "pause", 0)
    perform(workspace, "resume", 0)
    assert workspace.runner.calls == [first.id, "pause", "resume"]
    with pytest.raises(QueueError, match="Unknown action 'explode'"):
        perform(workspace, "explode", first.id)


def test_videos_of_a_job_are_those_that_still_exist_in_the_outputs(workspace, root):
    (root / "outputs" / "a.mp4").write_bytes(b"x")
    done = job(1, State.DONE, outputs=("outputs/a.mp4", "outputs/deleted.mp4", "/etc/passwd"))
    assert videos_of(workspace, done) == [root / "outputs" / "a.mp4"]


def test_an_import_reports_the_settings_that_it_leaves_out(workspace):
    def imported(*settings):
        folder = workspace.uploads / "queue"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "queue.json"
        path.write_text(json.dumps({"jobs": [{"definition": "any", "settings": values} for values in settings]}))
        return import_queue(workspace, str(path))

    assert imported({"prompt": "a"}, {"prompt": "b", "seed": 5}) == (2, [])
    count, notices = imported({"prompt": "a", "seed": "x"}, {"prompt": "b", "of_later": 5}, {"prompt": "c"})
    assert count == 3
    assert notices == ["Unknown or invalid settings are not used: of_later, seed."]
