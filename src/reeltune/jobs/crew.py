"""The workers of a runner as they are now: what each of them runs, holds and waits for, and which job it gets next."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from reeltune.errors import WorkerDied
from reeltune.jobs.handle import WorkerHandle, WorkerPlace
from reeltune.jobs.job import Job, WaitingJob
from reeltune.jobs.needs import NeedsCache
from reeltune.jobs.rows import loras_of
from reeltune.jobs.schedule import assign, schedule
from reeltune.jobs.schedule_values import JobNeeds, QueuedJob, WorkerState

_Model = tuple[str, tuple[str, ...]]


@dataclass(frozen=True)
class Member:
    """One worker. Times in seconds since 1970.

    `holds`: the needs of the job whose weights it holds; None for none. `held`: what it held before its job began.
    `job`: the id of the job that it runs. `why`: the job runs on this worker, in words. `looking`: whether it asks for
    a job. `busy_until`: when the job is expected to end; None if unknown. `since`: when the job began, or the last one
    ended. `draining`: it gets no more jobs. `ending`: it also releases its memory, once it is free. `leaving`: it is
    forgotten then. `died`: during its job. `problem`: why it has ended by itself, the last time. `ended`: how many jobs
    have ended on it. `loads`: for how many of them it loaded another model or other LoRAs than it held.
    """

    name: str
    place: WorkerPlace
    holds: JobNeeds | None = None
    held: JobNeeds | None = None
    job: int | None = None
    why: str = ""
    looking: bool = False
    busy_until: float | None = None
    since: float = 0.0
    draining: bool = False
    ending: bool = False
    leaving: bool = False
    died: bool = False
    problem: str = ""
    ended: int = 0
    loads: int = 0

    @property
    def free(self) -> bool:
        """Whether it could begin a job."""
        return self.looking and self.job is None

    @property
    def state(self) -> str:
        """One word for users: "busy", "free", "draining" (its last job), or "drained"."""
        if self.job is not None:
            return "draining" if self.draining else "busy"
        return "drained" if self.draining else "free"


class Crew:
    """The registry of the workers. All methods may be called from any thread.

    One worker runs all jobs in the user's order. Several workers prefer jobs whose weights they hold.
    """

    def __init__(self, handles: Sequence[WorkerHandle], needs: NeedsCache) -> None:
        now = time.time()
        self._members = {handle.name: Member(handle.name, handle.place, since=now) for handle in handles}
        self._needs = needs
        self._guard = threading.Lock()
        self._turn = threading.Lock()
        self._seconds: dict[_Model, float] = {}  # how long the last job of a model took

    # --- who belongs to it --------------------------------------------------------------------------------------------

    def join(self, handle: WorkerHandle) -> None:
        """Another worker takes part from now on."""
        with self._guard:
            self._members[handle.name] = Member(handle.name, handle.place, since=time.time())

    def leave(self, name: str) -> None:
        """A worker takes no more jobs. It is forgotten now, or when its job has ended."""
        with self._guard:
            member = self._members.get(name)
            if member is not None and member.job is None:
                del self._members[name]
            elif member is not None:
                self._members[name] = replace(member, draining=True, leaving=True)

    # --- what the threads do ----------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def turn(self, name: str) -> Iterator[None]:
        """Inside, a worker asks for a job, and no other does: each decides on what the one before has taken."""
        with self._turn:
            self._change(name, lambda member: replace(member, looking=True))
            yield

    def prepare(self, waiting: Sequence[WaitingJob]) -> None:
        """Find out what waiting jobs need, before a worker asks for one. It may take a while."""
        self._needs.prepare(waiting if len(self._members) > 1 else waiting[:1])

    def choose(self, name: str, waiting: Sequence[WaitingJob]) -> int | None:
        """The id of the job that a worker begins now; None for none."""
        members = self.members()
        if len(members) == 1:
            return waiting[0].id if waiting and not members[0].draining else None
        jobs = self._queued(waiting, members)
        assignments = {assignment.worker: assignment for assignment in assign(jobs, _states(members), time.time())}
        own = assignments.get(name)
        if own is None:
            return None
        self._change(name, lambda member: replace(member, why=own.reason))
        return own.job

    def begin(self, name: str, job: Job) -> None:
        """A worker begins a job."""
        now = time.time()
        loras = loras_of(job.settings.get("activated_loras"))
        needs = self._needs.of(WaitingJob(job.id, job.definition, loras, job.position, job.created))
        seconds = self._seconds.get(needs.model)
        until = now + seconds if seconds is not None else None
        self._change(
            name,
            lambda member: replace(
                member, job=job.id, held=member.holds, holds=needs, since=now, looking=False, busy_until=until
            ),
        )

    def died(self, name: str, death: WorkerDied) -> None:
        """A worker ended while it ran a job: it holds nothing any more."""
        self._change(name, lambda member: replace(member, died=True, problem=death.message))

    def end(self, name: str, job: int, *, loaded: bool, completed: bool, load_seconds: float = 0.0) -> None:
        """A job of a worker has ended.

        `loaded`: whether it got as far as using weights. `completed`: whether all its videos were made. `load_seconds`:
        the part of its time for loading.
        """
        now = time.time()
        with self._guard:
            member = self._members.get(name)
            if member is None or member.job != job:  # a worker that left and joined again
                return
            if completed and member.holds is not None:
                self._seconds[member.holds.model] = now - member.since
                if load_seconds and member.held is None:
                    self._needs.loaded(member.holds.definition, load_seconds)
            holds = member.holds if loaded else member.held
            changed = (
                loaded and member.holds is not None and (not member.held or member.held.model != member.holds.model)
            )
            if member.leaving:
                del self._members[name]
                return
            self._members[name] = replace(
                member,
                job=None,
                why="",
                held=None,
                holds=None if member.died else holds,
                died=False,
                since=now,
                busy_until=None,
                ended=member.ended + 1,
                loads=member.loads + changed,
            )

    def empty(self, name: str, death: WorkerDied | None = None) -> None:
        """A worker holds nothing any more: it was ended, or it has ended by itself."""
        self._change(
            name,
            lambda member: replace(
                member, holds=None, held=None, problem=death.message if death is not None else member.problem
            ),
        )

    # --- what the user does -----------------------------------------------------------------------------------------

    def drain(self, name: str, *, end: bool = False) -> None:
        """Let a worker run no more jobs after its current one. `end`: also release what it holds."""
        self._change(name, lambda member: replace(member, draining=True, ending=end))

    def resume(self, name: str) -> None:
        """Let a worker run jobs again."""
        self._change(name, lambda member: replace(member, draining=False, ending=False))

    # --- as it is now -----------------------------------------------------------------------------------------------

    def members(self) -> list[Member]:
        """All workers, in the order in which they were given."""
        with self._guard:
            return list(self._members.values())

    def member(self, name: str) -> Member | None:
        """One worker; None where it has left."""
        with self._guard:
            return self._members.get(name)

    def waits(self, waiting: Sequence[WaitingJob]) -> Mapping[int, str]:
        """Why each job waits, in words, by its id."""
        members = self.members()
        return schedule(self._queued(waiting, members), _states(members), time.time()).waits

    def _queued(self, waiting: Sequence[WaitingJob], members: Sequence[Member]) -> list[QueuedJob]:
        """Waiting jobs with their needs. One that is too large for all workers may run on the largest: it reports why
        it fails, or manages with less memory.
        """
        sizes = [member.place.memory_bytes for member in members if not member.draining]
        largest = None if None in sizes else max((size for size in sizes if size is not None), default=None)
        jobs = []
        for job in waiting:
            needs = self._needs.of(job)
            if largest is not None and needs.bytes_needed > largest:
                needs = replace(needs, bytes_needed=largest)
            jobs.append(QueuedJob(job.id, needs, job.position, job.created))
        return jobs

    def _change(self, name: str, changed: Callable[[Member], Member]) -> None:
        """Change a worker, unless it has left."""
        with self._guard:
            if name in self._members:
                self._members[name] = changed(self._members[name])


def _states(members: Sequence[Member]) -> list[WorkerState]:
    return [
        WorkerState(
            name=member.name,
            device=member.place.device or member.name,
            free=member.free,
            holds=member.holds,
            running=member.job,
            busy_until=member.busy_until,
            last_used=member.since,
            capacity_bytes=member.place.memory_bytes,
            draining=member.draining,
        )
        for member in members
    ]
