"""`/api/workers`: what each worker does and holds, and asking it to run no more jobs."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Path

from reeltune.api.dependencies import Here
from reeltune.api.private import values_for_others
from reeltune.api.schema import WorkerList, WorkerObject
from reeltune.jobs.roster import WorkerRequest
from reeltune.service.workers import ask_worker, workers_of
from reeltune.service.workspace import Workspace

routes = APIRouter(prefix="/api", tags=["Workers"])
_Name = Annotated[str, Path(description="The name of a worker.", examples=["cuda-0"])]


def _list(workspace: Workspace) -> WorkerList:
    rows = [values_for_others(workspace, asdict(row)) for row in workers_of(workspace)]
    return WorkerList(workers=[WorkerObject(**row) for row in rows])


def _asked(workspace: Workspace, name: str, request: WorkerRequest) -> WorkerList:
    ask_worker(workspace, name, request)
    return _list(workspace)


@routes.get("/workers", summary="The workers")
def list_workers(workspace: Here) -> WorkerList:
    """All workers of the server: the device, the state, what it holds, its job and its memory."""
    return _list(workspace)


@routes.post("/workers/{name}/drain", summary="Drain a worker")
def drain_worker(workspace: Here, name: _Name) -> WorkerList:
    """The worker runs no job after its current one. It keeps what it holds."""
    return _asked(workspace, name, WorkerRequest.DRAIN)


@routes.post("/workers/{name}/end", summary="End a worker")
def end_worker(workspace: Here, name: _Name) -> WorkerList:
    """The worker runs no job after its current one, and then releases its memory."""
    return _asked(workspace, name, WorkerRequest.END)


@routes.post("/workers/{name}/resume", summary="Resume a worker")
def resume_worker(workspace: Here, name: _Name) -> WorkerList:
    """A worker that was drained or ended runs jobs again."""
    return _asked(workspace, name, WorkerRequest.RESUME)
