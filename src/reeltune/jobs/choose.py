"""Which waiting job a worker runs next: a pure function, the one place to change where jobs prefer certain workers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class WaitingJob:
    """What the choice may depend on. `position`: in the user's order. `created`: in seconds since 1970."""

    id: int
    definition: str
    position: int
    created: float


@dataclass(frozen=True)
class FreeWorker:
    """A worker that asks for a job. `warm_files`: paths of the files whose weights it holds in memory."""

    name: str
    warm_files: frozenset[str] = frozenset()


def choose_job(waiting: Iterable[WaitingJob], worker: FreeWorker) -> WaitingJob | None:
    """The job that `worker` runs next: the first in the user's order, whichever worker asks; None where none waits."""
    return min(waiting, key=_place, default=None)


def _place(job: WaitingJob) -> tuple[int, int]:
    return job.position, job.id
