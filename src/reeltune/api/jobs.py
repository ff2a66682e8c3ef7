"""`/api/jobs` and `/api/queue`: the queue as it is, and everything that can be done with it."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool

from reeltune.api.bodies import read_body
from reeltune.api.dependencies import Here
from reeltune.api.errors import ApiError
from reeltune.api.examples import MOVE_JOB
from reeltune.api.private import for_others, values_for_others
from reeltune.api.schema import JobNumber, JobObject, QueueState
from reeltune.api.video_objects import content_path, video_id
from reeltune.errors import JobNotFound
from reeltune.families.vocabulary import shown
from reeltune.jobs import Job
from reeltune.service.video_jobs import followed, notices_of, percent
from reeltune.service.workspace import Workspace

LARGEST_ID = 10**18


def job_view(workspace: Workspace, job: Job, place: int | None = None, wait_reason: str = "") -> JobObject:
    """A job as the API describes it. `place`: among the waiting jobs, counted from 0. `wait_reason`: why it waits."""
    job, live = followed(workspace, job)
    progress = live.progress if live is not None else None
    return JobObject(
        id=job.id,
        video_id=video_id(job.id),
        model=job.definition,
        state=job.state.value,
        place=place,
        prompt=job.prompt,
        percent=percent(job, live),
        stage=progress.stage if progress is not None else "",
        done=progress.done if progress is not None else None,
        total=progress.total if progress is not None else None,
        unit=progress.unit if progress is not None else "",
        created_at=job.created,
        started_at=job.started or None,
        finished_at=job.finished or None,
        outputs=[content_path(job.id, number) for number in range(len(job.outputs))],
        error=for_others(workspace, job.error),
        hint=for_others(workspace, job.hint),
        notices=values_for_others(workspace, notices_of(job, live)),
        resumable=job.resumable,
        wait_reason=wait_reason,
        worker=job.worker.rpartition("/")[2],
    )


def queue_state(workspace: Workspace) -> QueueState:
    """The queue: what runs, what waits in its order, and what has ended, the latest first."""
    jobs = workspace.queue.jobs()
    places = {job.id: place for place, job in enumerate(job for job in jobs if job.waiting)}
    waits = workspace.runner.waits() if places else {}
    trouble = workspace.runner.trouble
    return QueueState(
        paused=workspace.runner.paused,
        problem=for_others(workspace, str(trouble)) if trouble is not None else "",
        counts={state.value: number for state, number in workspace.queue.counts().items()},
        jobs=[job_view(workspace, job, places.get(job.id), waits.get(job.id, "")) for job in jobs],
    )


routes = APIRouter(prefix="/api", tags=["Queue"])


def _current(workspace: Workspace, id: int) -> JobObject:
    job = workspace.queue.get(_valid(id))
    waiting = [other.id for other in workspace.queue.jobs() if other.waiting] if job.waiting else []
    reason = workspace.runner.waits().get(job.id, "") if job.waiting else ""
    return job_view(workspace, job, waiting.index(job.id) if job.id in waiting else None, reason)


@routes.get("/queue", summary="The queue")
def retrieve_queue(workspace: Here) -> QueueState:
    """All jobs in their order, and whether the queue is paused."""
    return queue_state(workspace)


@routes.post("/queue/pause", summary="Pause the queue")
def pause_queue(workspace: Here) -> QueueState:
    """No job is begun until the queue is resumed, not even after a restart. A running job goes on."""
    workspace.runner.pause()
    return queue_state(workspace)


@routes.post("/queue/resume", summary="Resume the queue")
def resume_queue(workspace: Here) -> QueueState:
    """Begin the next job now, also after a pause that followed a failure."""
    workspace.runner.resume()
    return queue_state(workspace)


@routes.get("/jobs/{id}", summary="A job")
def retrieve_job(workspace: Here, id: JobNumber) -> JobObject:
    """A job with its stage, its place, and what it has made so far."""
    return _current(workspace, id)


@routes.post("/jobs/{id}/move", summary="Move a waiting job", openapi_extra=MOVE_JOB)
async def move_job(workspace: Here, id: JobNumber, request: Request) -> JobObject:
    """Give a waiting job another place."""
    async with read_body(request, workspace) as body:
        place = body.values.get("place")
    if not isinstance(place, int) or isinstance(place, bool) or not 0 <= place <= LARGEST_ID:
        raise ApiError(400, "place: a whole number from 0 was expected.", param="place", code="invalid_value")
    await run_in_threadpool(workspace.queue.move, _valid(id), place)
    return await run_in_threadpool(_current, workspace, id)


@routes.post("/jobs/{id}/cancel", summary="Cancel a job")
def cancel_job(workspace: Here, id: JobNumber) -> JobObject:
    """Stop a running job after its current step, the second time at once. A waiting one leaves the queue."""
    workspace.runner.cancel(_valid(id))
    return _current(workspace, id)


@routes.post("/jobs/{id}/retry", summary="Run a job again")
def retry_job(workspace: Here, id: JobNumber) -> JobObject:
    """Queue a job again that has ended. An interrupted one is resumed, and keeps its finished videos."""
    workspace.queue.retry(_valid(id))
    workspace.runner.wake()
    return _current(workspace, id)


@routes.delete("/jobs/{id}", summary="Remove a job", status_code=204)
def remove_job(workspace: Here, id: JobNumber) -> None:
    """Remove a job that isn't running. Its videos stay."""
    workspace.queue.remove(_valid(id))


def _valid(id: int) -> int:
    """A number that SQLite can hold. Raises JobNotFound for any other."""
    if not 0 < id <= LARGEST_ID:
        raise JobNotFound(f"There is no job {shown(id)}.")
    return id
