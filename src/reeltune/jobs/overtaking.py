"""The user's order of the waiting jobs, and how far it may be left so that weights are loaded less often.

Each job has a limit: the last position in the order from which another job may begin before it. The limit depends only
on the jobs that wait, so it needs no memory of earlier decisions. Each job that overtakes has left the queue, so no
more jobs can overtake than there are positions up to the limit.
"""

from __future__ import annotations

import heapq
import math
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from operator import attrgetter

from reeltune.jobs.schedule_values import QueuedJob, Rules

_PLACE = attrgetter("position", "id")
_AGE = attrgetter("created", "id")


class UserOrder:
    """Waiting jobs in the user's order. `capacities`: the memory of the workers that may get jobs, in bytes."""

    def __init__(self, waiting: Iterable[QueuedJob], capacities: Iterable[float], rules: Rules) -> None:
        self.jobs = sorted(waiting, key=_PLACE)
        self.started: set[int] = set()
        limits = _limits(self.jobs, sorted(capacities), rules)
        self._urgent = sorted(zip(limits, self.jobs, strict=True), key=lambda row: (row[0], row[1].position, row[1].id))
        self._next: dict[float, int] = {}  # by capacity: where the search in `_urgent` continues

    def start(self, job: QueuedJob) -> None:
        """The job waits no more."""
        self.started.add(job.id)

    def limit(self, capacity: float) -> tuple[float, QueuedJob | None]:
        """The last position from which a worker with this memory may take a job, and the job that sets this limit."""
        index = self._next.get(capacity, 0)
        while index < len(self._urgent):
            limit, job = self._urgent[index]
            if job.id not in self.started and job.needs.bytes_needed <= capacity:
                self._next[capacity] = index
                return limit, job
            index += 1
        self._next[capacity] = index
        return math.inf, None


def _limits(jobs: Sequence[QueuedJob], capacities: Sequence[float], rules: Rules) -> list[float]:
    """The limit of each job. `jobs` in the user's order, `capacities` in ascending order."""
    ahead = _places_moved_ahead(jobs)
    limits: list[float] = []
    open_until: list[tuple[float, int]] = []  # a heap: the newest job that may overtake, and the index of a job
    for index, job in enumerate(jobs):
        while open_until and open_until[0][0] < job.created:  # this job is too new, so no job from here on overtakes
            _, earlier = heapq.heappop(open_until)
            limits[earlier] = min(limits[earlier], job.position - 1)
        newest = job.created + max(rules.newer_seconds, rules.newer_loads * rules.seconds_to_load(job.needs))
        heapq.heappush(open_until, (newest, index))
        workers = len(capacities) - bisect_left(capacities, job.needs.bytes_needed)
        overtakes = max(rules.fewest_overtakes * workers, rules.overtakes * workers - ahead[index])
        limits.append(job.position + overtakes)
    return limits


def _places_moved_ahead(jobs: Sequence[QueuedJob]) -> list[int]:
    """How many places each job is ahead of where its age would put it."""
    places = {job.id: place for place, job in enumerate(sorted(jobs, key=_AGE))}
    return [max(0, places[job.id] - index) for index, job in enumerate(jobs)]
