"""The workers as values, and in words: what each of them does, why a job waits, and where a job runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from reeltune._text import size
from reeltune.errors import QueueError
from reeltune.jobs import Job, Live, State
from reeltune.jobs.crew import Member
from reeltune.jobs.roster import WorkerRequest, WorkerRow
from reeltune.service.current_job import progress_in_words
from reeltune.service.workspace import Workspace

_STATES = {
    "busy": "runs job {job}",
    "draining": "runs job {job}, and no more after it",
    "drained": "runs no jobs",
    "free": "free",
}


def workers_of(workspace: Workspace) -> list[WorkerRow]:
    """The workers of the program."""
    return workspace.runner.workers()


def ask_worker(workspace: Workspace, name: str, request: str) -> None:
    """Drain or end a worker, or let it run jobs again. Raises WorkerNotFound, and QueueError for another request."""
    if request not in set(WorkerRequest):
        raise QueueError(f"Unknown request {request[:40]!r}.")
    workspace.runner.ask(name, WorkerRequest(request))


def requests_for(row: WorkerRow) -> tuple[WorkerRequest, ...]:
    """What can be asked of a worker now."""
    if row.state in ("draining", "drained"):
        return (WorkerRequest.RESUME,)
    return (WorkerRequest.DRAIN, WorkerRequest.END)


def state_in_words(row: WorkerRow) -> str:
    """What a worker does: "runs job 7"."""
    return _STATES.get(row.state, row.state).format(job=row.job)


def memory_in_words(row: WorkerRow) -> str:
    """The memory of a worker: "1.2 GB in use, 24 GB on cuda:0"; empty if unknown."""
    parts = [f"{size(row.used_bytes)} in use"] if row.used_bytes else []
    if row.memory_bytes:
        parts.append(f"{size(row.memory_bytes)} on {row.device}" if row.device else size(row.memory_bytes))
    return ", ".join(parts)


def _run_in_words(member: Member, live: Live | None) -> str:
    """Where a job runs and how far it is: "runs on cuda:1, which holds its weights · step 7 of 20"."""
    where = member.why or f"runs on {member.name}"
    return f"{where} · {progress_in_words(live.progress)[0]}" if live is not None else where


def where_jobs_are(workspace: Workspace, jobs: Sequence[Job]) -> Mapping[int, str]:
    """Why each waiting job waits, and where each running job runs; empty with one worker, which runs them in order.

    Raises QueueError.
    """
    runner = workspace.runner
    if len(workers_of(workspace)) < 2:
        return {}
    runs = {
        member.job: _run_in_words(member, runner.live(member.job))
        for member in runner.crew.members()
        if member.job is not None
    }
    waits = runner.waits() if any(job.waiting for job in jobs) else {}
    return {
        job.id: (runs if job.state is State.RUNNING else waits).get(job.id, "")
        for job in jobs
        if job.waiting or job.state is State.RUNNING
    }
