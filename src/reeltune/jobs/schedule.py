"""Which waiting job begins on which worker: a pure function of the jobs and the workers as they are now.

decision = schedule(waiting, workers, now=time.time())
for assignment in decision.assignments:
    print(assignment.job, assignment.reason)

A worker prefers the jobs whose weights it holds. docs/cluster.md explains the rules for users, and derives how long a
job can wait at most.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter, defaultdict, deque
from collections.abc import Collection, Hashable, Iterable, Iterator, Sequence

from reeltune.jobs.overtaking import UserOrder
from reeltune.jobs.schedule_reasons import labels_of, reason_of_match, reasons_to_wait
from reeltune.jobs.schedule_values import (
    Assignment,
    JobNeeds,
    Match,
    QueuedJob,
    Rules,
    Schedule,
    WorkerState,
)

__all__ = ["Assignment", "JobNeeds", "QueuedJob", "Rules", "Schedule", "WorkerState", "assign", "schedule"]

_DEFAULT = Rules()
_SHORTEST_JOB = 1.0  # seconds; shorter estimates would let a worker promise itself to any number of jobs


def schedule(
    waiting: Iterable[QueuedJob], workers: Iterable[WorkerState], now: float, rules: Rules = _DEFAULT
) -> Schedule:
    """The jobs that begin now, and why each of the others waits.

    `waiting`: all jobs that wait, with different ids and positions. `workers`: all workers, with different names. The
    result depends on nothing else, not even on the order of the arguments.
    """
    workers = list(workers)
    decision = _Decision(waiting, workers, now, rules)
    assignments = decision.assignments()
    return Schedule(assignments, reasons_to_wait(decision.left(), workers, assignments, decision.order.jobs, now))


def assign(
    waiting: Iterable[QueuedJob], workers: Iterable[WorkerState], now: float, rules: Rules = _DEFAULT
) -> tuple[Assignment, ...]:
    """The assignments of `schedule` without the reasons of the jobs that wait, which take most of its time."""
    return _Decision(waiting, list(workers), now, rules).assignments()


class _Group:
    """The waiting jobs of one model, in the user's order."""

    def __init__(self) -> None:
        self.jobs: list[QueuedJob] = []
        self.first = 0
        self.left = 0
        self.largest = 0
        self.oldest = math.inf

    def add(self, job: QueuedJob) -> None:
        self.jobs.append(job)
        self.left += 1
        self.largest = max(self.largest, job.needs.bytes_needed)
        self.oldest = min(self.oldest, job.created)

    def head(self, capacity: float, started: set[int]) -> QueuedJob | None:
        """The first job that waits and fits into this memory."""
        while self.first < len(self.jobs) and self.jobs[self.first].id in started:
            self.first += 1
        if self.largest <= capacity:
            return self.jobs[self.first] if self.left else None
        for index in range(self.first, len(self.jobs)):
            job = self.jobs[index]
            if job.id not in started and job.needs.bytes_needed <= capacity:
                return job
        return None


_Entry = tuple[int, int, Match, _Group]  # the position of the next job of a group, the group's number, a match for it


class _Decision:
    """One decision while it is made."""

    def __init__(self, waiting: Iterable[QueuedJob], workers: Sequence[WorkerState], now: float, rules: Rules) -> None:
        self._now, self._rules = now, rules
        usable = [worker for worker in workers if not worker.draining]
        self.order = UserOrder(waiting, [worker.capacity for worker in usable], rules)
        self._groups: dict[Hashable, _Group] = defaultdict(_Group)
        largest = max((worker.capacity for worker in usable), default=0.0)
        for job in self.order.jobs:
            if job.needs.bytes_needed <= largest:
                self._groups[job.needs.model].add(job)
        self._labels = labels_of(workers)
        wanted = {_key(job.needs, Match.MODEL) for job in self.order.jobs}
        self._free = _FreeWorkers(usable, wanted, now - rules.spare_seconds)
        self._busy: dict[Hashable, list[WorkerState]] = defaultdict(list)  # by the weights that they hold
        for worker in usable:
            if not worker.free and worker.holds is not None:
                self._busy[_key(worker.holds, Match.MODEL)].append(worker)
        self._soon: dict[tuple[Hashable, Match, float], int] = {}
        self._capacities = {worker.capacity for worker in usable}
        self._refused: list[_Entry] = []  # a heap of those that would have overtaken too far
        self._too_far = False  # whether the last job that was tried is one of them
        self._forced = False  # whether the jobs that are in the way of others may not wait for busy workers
        self._made: list[Assignment] = []

    def assignments(self) -> tuple[Assignment, ...]:
        """What begins now: the best matches first, each kind in the user's order."""
        while self._free.count:
            self._refused = []
            if self._round():
                self._forced = False
            elif self._refused and not self._forced:
                self._forced = True
            else:
                break
        return tuple(self._made)

    def _round(self) -> bool:
        """Try each kind of match once; returns whether a job began."""
        found = False
        for match in sorted(Match, reverse=True):
            found = self._fill(match) or found
        return found

    def left(self) -> list[QueuedJob]:
        """The jobs that go on waiting, in the user's order."""
        return [job for job in self.order.jobs if job.id not in self.order.started]

    def _fill(self, match: Match) -> bool:
        """Let jobs begin on workers with this match; returns whether one did."""
        heads: list[_Entry] = []
        for number, group in enumerate(self._groups.values()):
            job = group.head(math.inf, self.order.started)
            if job is not None and self._free.any(job.needs, match):
                heads.append((job.position, number, match, group))
        heapq.heapify(heads)
        found = False
        while heads and self._free.count:
            found = self._try(heads, self._refused) or found
        return found

    def _try(self, entries: list[_Entry], refused: list[_Entry]) -> bool:
        """Let the first job of a heap begin where possible; returns whether it did. Its model may be tried again then.

        One that would overtake too far is added to `refused`.
        """
        _, number, match, group = entry = heapq.heappop(entries)
        self._too_far = False
        if not self._place(group, match):
            if self._too_far:
                heapq.heappush(refused, entry)
            return False
        job = group.head(math.inf, self.order.started)
        if job is not None:
            heapq.heappush(entries, (job.position, number, match, group))
        if match is not Match.MODEL:
            self._try_refused(match)
        return True

    def _try_refused(self, match: Match) -> None:
        """Let jobs with better matches begin where the one that just began was in their way."""
        limit = max(self.order.limit(capacity)[0] for capacity in self._capacities)
        still: list[_Entry] = []
        worse: list[_Entry] = []
        while self._refused and self._refused[0][0] <= limit:
            if self._refused[0][2] > match:
                self._try(self._refused, still)
            else:
                worse.append(heapq.heappop(self._refused))
        for entry in (*still, *worse):
            heapq.heappush(self._refused, entry)

    def _place(self, group: _Group, match: Match) -> bool:
        """Let the next job of a group begin on a worker with this match, if there is one for it."""
        first = group.head(math.inf, self.order.started)
        if first is None:
            return False
        for worker in self._free.choices(first.needs, match):
            job = group.head(worker.capacity, self.order.started)
            if job is None or (match > Match.EMPTY and _key(job.needs, match) != _key(first.needs, match)):
                continue
            limit, urgent = self.order.limit(worker.capacity)
            if job.position > limit:
                self._too_far = True
                continue
            forced = self._forced and urgent is not None and urgent.needs.model == job.needs.model
            if match is not Match.MODEL and not forced and self._waits(group, job, worker, match):
                continue
            self._begin(group, job, worker, match)
            return True
        return False

    def _begin(self, group: _Group, job: QueuedJob, worker: WorkerState, match: Match) -> None:
        self.order.start(job)
        group.left -= 1
        self._free.take(worker)
        self._made.append(Assignment(job.id, worker.name, reason_of_match(self._labels[worker.name], match)))

    # --- waiting for a busy worker ----------------------------------------------------------------------------------

    def _waits(self, group: _Group, job: QueuedJob, worker: WorkerState, match: Match) -> bool:
        """Whether busy workers that hold the weights are expected to run all waiting jobs of the model soon enough."""
        if self._now - group.oldest > self._rules.hold_seconds:
            return False
        cost = self._cost(job.needs, worker, match)
        key = (_key(job.needs, Match.MODEL), match, cost)
        if key not in self._soon:
            busy = self._busy.get(key[0], ())
            fitting = (worker for worker in busy if job.needs.bytes_needed <= worker.capacity)
            self._soon[key] = sum(self._starts_within(worker, cost) for worker in fitting)
        return group.left <= self._soon[key]

    def _cost(self, needs: JobNeeds, worker: WorkerState, match: Match) -> float:
        """What it costs to load on a worker with this match, in seconds: waiting for less is better."""
        rules = self._rules
        shares = {
            Match.TRANSFORMERS: rules.lora_share,
            Match.COMPONENTS: rules.component_share * (1 + rules.replace_cost),
            Match.EMPTY: 1.0,
        }
        load = rules.seconds_to_load(needs)
        if self._now - worker.last_used > rules.idle_loads * load:
            load *= rules.idle_cost
        return load * shares.get(match, 1 + rules.replace_cost)

    def _starts_within(self, worker: WorkerState, seconds: float) -> int:
        """How many jobs a busy worker is expected to begin within so many seconds."""
        if worker.busy_until is None:
            return 0
        left = abs(worker.busy_until - self._now)  # one that is late is expected to be late by as much again
        if left > seconds:
            return 0
        usual = max(_SHORTEST_JOB, worker.busy_until - worker.last_used)
        return 1 + int((seconds - left) / usual)


class _FreeWorkers:
    """Free workers by what they hold, those first whose weights are of the least use.

    Of the workers that hold a job's weights, the one that was used last is taken first. So the workers that a model
    doesn't need any more become the least recently used ones. `wanted`: the weights that waiting jobs need.
    `spared_since`: the only copy of a model that was used since then is replaced late.
    """

    def __init__(self, workers: Sequence[WorkerState], wanted: Collection[Hashable], spared_since: float) -> None:
        keys = {worker.name: _key(worker.holds, Match.MODEL) for worker in workers if worker.holds is not None}
        copies = Counter(keys.values())

        def worth(worker: WorkerState) -> tuple[bool, bool, float, str]:
            key = keys.get(worker.name)
            spared = copies[key] == 1 and worker.last_used >= spared_since
            return key in wanted, spared, worker.last_used, worker.name

        self._worth = worth
        self._queues: dict[tuple[Match, Hashable], dict[float, deque[WorkerState]]] = {}
        self._taken: set[str] = set()
        self.count = 0
        for worker in sorted((worker for worker in workers if worker.free), key=worth):
            self.count += 1
            if worker.holds is None:
                self._add(Match.EMPTY, None, worker)
                continue
            for match in (Match.MODEL, Match.TRANSFORMERS, Match.COMPONENTS):
                if (key := _key(worker.holds, match)) is not None:
                    self._add(match, key, worker)
            self._add(Match.OTHER, None, worker)

    def _add(self, match: Match, key: Hashable, worker: WorkerState) -> None:
        self._queues.setdefault((match, key), {}).setdefault(worker.capacity, deque()).append(worker)

    def any(self, needs: JobNeeds, match: Match) -> bool:
        """Whether there may be a worker with this match."""
        return (match, _key(needs, match)) in self._queues

    def choices(self, needs: JobNeeds, match: Match) -> Iterator[WorkerState]:
        """The best worker of each size of memory, the best of all first."""
        key = _key(needs, match)
        if key is None and match > Match.EMPTY:
            return
        newest = match is Match.MODEL
        found = []
        for queue in self._queues.get((match, key), {}).values():
            end = -1 if newest else 0
            while queue and queue[end].name in self._taken:
                queue.pop() if newest else queue.popleft()
            if queue:
                found.append(queue[end])
        yield from sorted(found, key=self._worth, reverse=newest)

    def take(self, worker: WorkerState) -> None:
        """The worker is free no more."""
        self._taken.add(worker.name)
        self.count -= 1


def _key(needs: JobNeeds, match: Match) -> Hashable:
    """Where two needs have the same key that isn't None, their weights have this match; None for the other matches."""
    if match is Match.MODEL:
        return needs.definition, needs.loras, needs.transformer_files
    if match is Match.TRANSFORMERS:
        return needs.transformer_files or None
    if match is Match.COMPONENTS:
        return (needs.family, needs.component_files) if needs.component_files else None
    return None
