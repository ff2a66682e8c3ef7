"""How far a job is for programs, and what they are told of it."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from reeltune.errors import JobNotFound, JobStateError
from reeltune.events import Batch, Progress
from reeltune.jobs import Job, Live, State
from reeltune.service.video_jobs import (
    failure_code,
    failure_text,
    finished_video,
    followed,
    notices_of,
    percent,
    video_status,
)
from reeltune.service.workspace import Workspace

RUNNING = Job(7, "any", {"prompt": "x"}, State.RUNNING, 1, 0.0)


def live(stage=None, done=0, total=None, batch=None):
    progress = Progress(stage, done, total) if stage else None
    now = Live(7, 0.0).after(Batch(*batch)) if batch else Live(7, 0.0)
    return now.after(progress) if progress else now


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (None, 0),
        (live(), 0),
        (live("download", 99, 100), 0),
        (live("encode", 1, 1), 0),
        (live("denoise", 0, 20), 5),
        (live("denoise", 10, 20), 48),
        (live("denoise", 20, 20), 90),
        (live("decode", 0, 1), 90),
        (live("write", 1, 1), 90),
        (live("denoise", 0, 20, batch=(2, 2)), 52),
        (live("load", 0, 20, batch=(4, 4)), 75),
        (live("denoise", 30, 20), 90),
    ],
)
def test_percent_grows_with_the_stages_of_a_job(now, expected):
    assert percent(RUNNING, now) == expected
    assert percent(replace(RUNNING, state=State.DONE), now) == 100


def test_percent_stays_where_the_second_transformer_is_loaded_between_two_steps():
    now = live("denoise", 10, 20)
    shown = [percent(RUNNING, now)]
    for event in (Progress("load", 3, 100), Progress("denoise", 11, 20), Progress("decode", 0, 1)):
        now = now.after(event)
        shown.append(percent(RUNNING, now))
    assert shown == [48, 48, 52, 90]
    assert percent(RUNNING, now.after(Batch(2, 2)).after(Progress("encode", 0, 1))) == 50


def test_a_video_keeps_its_number_when_another_one_is_deleted(root):
    (root / "outputs").mkdir()
    paths = [root / "outputs" / name for name in ("a.mp4", "b.mp4")]
    for path in paths:
        path.write_bytes(b"video")
    workspace = Workspace(root, SimpleNamespace(queue=None))
    outside = root.parent / "c.mp4"
    outside.write_bytes(b"video")
    job = replace(RUNNING, state=State.DONE, outputs=(*map(str, paths), str(outside)))
    paths[0].unlink()
    assert finished_video(workspace, job, 1) == paths[1].resolve()
    for number, words in (
        (0, "was deleted"),
        (2, "outside the folder of videos"),
        (3, "has made 3"),
        (-1, "has made 3"),
    ):
        with pytest.raises(JobStateError, match=words):
            finished_video(workspace, job, number)


def test_each_state_has_its_status_and_a_reason():
    cancelled = replace(RUNNING, state=State.CANCELLED)
    interrupted = replace(RUNNING, state=State.INTERRUPTED, error="The program ended while it ran.", hint="Resume it.")
    failed = replace(RUNNING, state=State.FAILED, error="Out of memory.")
    assert [video_status(job) for job in (RUNNING, cancelled, interrupted, failed)] == [
        "in_progress",
        "failed",
        "failed",
        "failed",
    ]
    assert [failure_code(job) for job in (cancelled, interrupted, failed)] == [
        "cancelled",
        "interrupted",
        "generation_failed",
    ]
    assert failure_text(interrupted) == "The program ended while it ran. Resume it."
    assert failure_text(cancelled) == "The job was cancelled."
    assert failure_text(replace(failed, error="")) == "No reason is known."


def test_notices_are_each_told_once_and_odd_ones_are_left_out():
    job = replace(RUNNING, notices=("b", "c"), extra={"checked": {"notices": ["a", 3, "b"]}})
    assert notices_of(job, replace(live(), notices=("c", "d"))) == ["a", "b", "c", "d"]
    assert notices_of(replace(RUNNING, extra={"checked": "odd"})) == []


def test_a_job_that_ended_after_it_was_read_is_read_again():
    done = replace(RUNNING, state=State.DONE)
    jobs = {7: done}

    def get(id):
        if id not in jobs:
            raise JobNotFound("gone")
        return jobs[id]

    workspace = SimpleNamespace(runner=SimpleNamespace(live=lambda id: None), queue=SimpleNamespace(get=get))
    assert followed(workspace, RUNNING) == (done, None)
    jobs.clear()
    assert followed(workspace, RUNNING) == (RUNNING, None)
