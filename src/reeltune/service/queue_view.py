"""The queue as values: every job with what can be done with it, and the actions themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from reeltune.errors import QueueError
from reeltune.files import is_file, read_bytes
from reeltune.jobs import Job, State
from reeltune.jobs.exchange import left_out_settings
from reeltune.service.uploads import MAX_JSON_BYTES, discard_json_upload, uploaded_file
from reeltune.service.workspace import Workspace
from reeltune.settings import listed
from reeltune.untrusted import decode_text

_OPEN_STATES = (State.RUNNING, State.QUEUED, State.INTERRUPTED)


class JobAction(StrEnum):
    """What can be done with a job, or, the last three, with the queue."""

    MOVE_UP = "up"
    MOVE_DOWN = "down"
    EDIT = "edit"
    REUSE = "reuse"
    RUN_AGAIN = "again"
    CANCEL = "cancel"
    REMOVE = "remove"
    PAUSE_QUEUE = "pause"
    RESUME_QUEUE = "resume"
    CLEAR_FINISHED = "clear"


@dataclass(frozen=True)
class JobView:
    """A job and the actions that are possible now.

    `place`: its place among the waiting jobs, counted from 1. `where`: why it waits, or where it runs, in words; empty
    if there is nothing to say.
    """

    job: Job
    place: int | None
    actions: tuple[JobAction, ...]
    where: str = ""


@dataclass(frozen=True)
class QueueView:
    """All jobs: `active` ones are running, waiting or were interrupted; `finished` ones have ended."""

    active: tuple[JobView, ...]
    finished: tuple[JobView, ...]

    @property
    def waiting(self) -> int:
        """The number of waiting jobs."""
        return sum(view.job.waiting for view in self.active)

    @property
    def failed(self) -> int:
        """The number of jobs that failed."""
        return sum(view.job.state is State.FAILED for view in self.finished)


def queue_view(jobs: list[Job], where: Mapping[int, str] | None = None) -> QueueView:
    """The jobs of a queue, in its order. `where`: see `JobView`, by the ids of the jobs."""
    waiting_ids = [job.id for job in jobs if job.waiting]
    views = [replace(_job_view(job, waiting_ids), where=(where or {}).get(job.id, "")) for job in jobs]
    active = tuple(view for view in views if view.job.state in _OPEN_STATES)
    finished = tuple(view for view in views if view.job.state not in _OPEN_STATES)
    return QueueView(active, finished)


def _job_view(job: Job, waiting_ids: list[int]) -> JobView:
    if job.state is State.RUNNING:
        return JobView(job, None, (JobAction.CANCEL,))
    if not job.waiting:
        return JobView(job, None, (JobAction.RUN_AGAIN, JobAction.REUSE, JobAction.REMOVE))
    place = waiting_ids.index(job.id) + 1
    actions = [JobAction.EDIT, JobAction.REMOVE]
    if place < len(waiting_ids):
        actions.insert(0, JobAction.MOVE_DOWN)
    if place > 1:
        actions.insert(0, JobAction.MOVE_UP)
    return JobView(job, place, tuple(actions))


def videos_of(workspace: Workspace, job: Job) -> list[Path]:
    """The videos that a job has made and that still exist."""
    paths = [workspace.confined(name) for name in job.outputs]
    return [path for path in paths if path is not None and is_file(path)]


def perform(workspace: Workspace, action: str, id: int) -> None:
    """Perform an action on a job or, where it needs none, on the queue. Raises QueueError."""
    queue, runner = workspace.queue, workspace.runner
    match action:
        case JobAction.MOVE_UP:
            queue.shift(id, -1)
        case JobAction.MOVE_DOWN:
            queue.shift(id, 1)
        case JobAction.REMOVE:
            queue.remove(id)
        case JobAction.RUN_AGAIN:
            queue.retry(id)
            runner.wake()
        case JobAction.CANCEL:
            runner.cancel(id)
        case JobAction.PAUSE_QUEUE:
            runner.pause()
        case JobAction.RESUME_QUEUE:
            runner.resume()
        case JobAction.CLEAR_FINISHED:
            queue.clear_finished()
        case _:
            raise QueueError(f"Unknown action {action[:40]!r}.")


def import_queue(workspace: Workspace, path: str) -> tuple[int, list[str]]:
    """Add the jobs of an uploaded queue file, which is deleted afterwards.

    Returns their number, and notices about settings that aren't used. Raises QueueError, MediaError.
    """
    upload = uploaded_file(workspace, path)
    try:
        jobs = workspace.queue.import_text(decode_text(read_bytes(upload, MAX_JSON_BYTES)))
    finally:
        discard_json_upload(workspace, upload)
    workspace.runner.wake()
    left_out = sorted({key for job in jobs for key in left_out_settings(job)})
    return len(jobs), [f"Unknown or invalid settings are not used: {listed(left_out)}."] if left_out else []
