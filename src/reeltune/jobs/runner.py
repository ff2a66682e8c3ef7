"""Hands the jobs of the queue to workers: one thread for each of them, which takes the next job when it is free.

with Runner(root) as runner:
    job = runner.queue.add("some_definition", {"prompt": "a paper boat"})
    runner.wake()
    runner.live(job.id)
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Self

from filelock import FileLock, Timeout

from reeltune.errors import JobStateError, QueueError, ReeltuneError
from reeltune.files import reason
from reeltune.jobs.crew import Crew
from reeltune.jobs.handle import WorkerHandle
from reeltune.jobs.idle import IdleLimit
from reeltune.jobs.job import Attempt, State, WaitingJob
from reeltune.jobs.job_log import log
from reeltune.jobs.leases import LeaseKeeper
from reeltune.jobs.live import Live
from reeltune.jobs.local import local_workers
from reeltune.jobs.needs import NeedsCache
from reeltune.jobs.pauses import Pauses, user_pause
from reeltune.jobs.queue import Queue
from reeltune.jobs.ray_cluster import ClusterAddress, RayCluster, check_address, ray_workers
from reeltune.jobs.roster import Roster, RosterKeeper, WorkerRequest, WorkerRow, row_of, unknown_worker
from reeltune.jobs.totals import Totals, TotalsNow
from reeltune.jobs.worker_thread import JobListener, WorkerThread

LOCK_NAME = ".reeltune.lock"
_LOCK_SECONDS = 1.0  # `reeltune workers` looks for an instant whether another program has the lock
_REASONS_SECONDS = 1.0  # for which the reasons to wait are kept


class Runner:
    """The threads that run the jobs of a root. Only one program may do that: raises QueueError where another does.

    What it left running when it was last killed becomes `interrupted` as it starts. `confined`, `outputs`: see `Queue`.
    `save_quantized`: the worker writes what it quantizes, whatever the preference. `workers`: by default one process on
    this machine; their names have to differ. `cluster`: whose workers are used as well, or alone if `workers` is empty.
    `only`: the ids of the jobs that are run; None for all. `listener`: called
    with the id of a job and each of its events, by the thread of its worker.

    After a failure that every job would share (no network, a full disk, a missing device) the queue pauses where
    others wait. The user's pause is stored with the queue: a runner that starts with it takes no jobs until `resume`.
    """

    def __init__(
        self,
        root: Path,
        *,
        confined: bool = False,
        save_quantized: bool = False,
        workers: Sequence[WorkerHandle] | None = None,
        cluster: ClusterAddress | None = None,
        only: Collection[int] | None = None,
        listener: JobListener | None = None,
        outputs: Path | None = None,
    ) -> None:
        self.queue = Queue(root, confined=confined, outputs=outputs)
        if workers is None:
            workers = local_workers(root, save_quantized=save_quantized)
        self._root = root
        self._lock = FileLock(root / LOCK_NAME, timeout=_LOCK_SECONDS, thread_local=False)
        self._pauses = Pauses()
        self._totals = Totals()
        if len({handle.name for handle in workers}) != len(workers):
            raise ValueError("Two workers have the same name.")
        self._handles = {handle.name: handle for handle in workers}
        self.crew = Crew(workers, NeedsCache(root))
        self._new_thread = partial(
            WorkerThread,
            queue=self.queue,
            pauses=self._pauses,
            totals=self._totals,
            crew=self.crew,
            idle=IdleLimit(root),
            listener=listener,
        )
        self._only = only
        self._outputs = outputs
        self._cluster_address = cluster
        self._cluster: RayCluster | None = None
        self._changing = threading.Lock()
        self._running = False
        self._threads = {
            queue_name(handle): self._new_thread(queue_name(handle), handle, only=only) for handle in workers
        }
        self._retired: list[WorkerThread] = []  # of workers that were removed, until their jobs have ended
        self._waits: tuple[float, list[WaitingJob], Mapping[int, str]] | None = None
        self._leases = LeaseKeeper(self.queue, self._attempts)
        self._roster = RosterKeeper(Roster(self.queue.store), self.workers, self.ask)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def start(self) -> None:
        """Begin to take jobs. Raises QueueError, and ClusterError where the cluster can't be used safely."""
        if self._cluster_address is not None:
            check_address(self._cluster_address.address, os.environ)
        try:
            self._lock.acquire()
        except Timeout as error:
            message = f"Another reeltune already makes the videos of {self._root}."
            raise QueueError(message, hint="Use its page or its API, or name another folder with --root.") from error
        except OSError as error:
            message = f"{self._root / LOCK_NAME} can't be written: {reason(error)}."
            raise QueueError(message, hint="Check the folder, or name another with --root.") from error
        try:
            self.queue.recover(machine=socket.gethostname())  # no other program can run them: it would hold the lock
            paused = self._obeys_user and self.queue.paused
            self._roster.start()
        except QueueError:
            self._lock.release()
            raise
        if paused:
            log.warning("%s", user_pause())
        with self._changing:
            self._running = True
            for thread in self._threads.values():
                thread.start()
        self._leases.start()
        if self._cluster_address is not None:
            self._cluster = ray_workers(
                self._cluster_address,
                self._root,
                joined=self.add_worker,
                left=self.remove_worker,
                outputs=self._outputs,
                demand=self._demand,
            )

    def stop(self) -> None:
        """End the workers, whatever they do; jobs they were at become `interrupted`."""
        with self._changing:
            self._running = False
            threads = self._all_threads()
        for thread in threads:
            thread.stop()
        for thread in threads:
            thread.join()
        if self._cluster is not None:
            self._cluster.close()
        self._leases.stop()
        self._roster.stop()
        with contextlib.suppress(OSError):  # the root was moved away
            self._lock.release()

    def interrupt(self) -> None:
        """Take no more jobs, and stop those that run at their next step: they become `interrupted`."""
        for thread in self._all_threads():
            thread.interrupt()

    def limit_to(self, only: Collection[int]) -> None:
        """Run the jobs with these ids from now on, and no others."""
        with self._changing:
            self._only = only
            for thread in self._threads.values():
                thread.only = only
        self.wake()

    def add_worker(self, handle: WorkerHandle) -> None:
        """Let another worker take jobs, before the start or while others run. Raises ValueError for a name in use."""
        with self._changing:
            name = queue_name(handle)
            if name in self._threads:
                raise ValueError("Two workers have the same name.")
            self.crew.join(handle)
            thread = self._new_thread(name, handle, only=self._only)
            self._handles = {**self._handles, handle.name: handle}
            self._threads = {**self._threads, name: thread}
            self._retired = [retired for retired in self._retired if retired.alive]
            if self._running:
                thread.start()

    def remove_worker(self, handle: WorkerHandle) -> None:
        """Let a worker take no more jobs. The one that it runs goes on to its end, whatever that is."""
        with self._changing:
            name = queue_name(handle)
            thread = self._threads.get(name)
            if thread is None:
                return
            self.crew.leave(handle.name)
            self._threads = {other: kept for other, kept in self._threads.items() if other != name}
            self._retired = [retired for retired in (*self._retired, thread) if retired.alive]
            thread.retire()

    def _all_threads(self) -> list[WorkerThread]:
        """The threads of all workers, and of those that were removed and still run a job."""
        return [*self._threads.values(), *self._retired]

    def wake(self) -> None:
        """Take new jobs at once, where the queue isn't paused."""
        for thread in self._threads.values():
            thread.wake()

    def pause(self) -> None:
        """Take no new jobs until `resume`, also after a restart; running jobs continue to their end.

        Raises QueueError where this can't be stored.
        """
        self.queue.set_paused(True)
        self._pauses.end()  # it would continue by itself
        log.info("%s", user_pause())

    def resume(self) -> None:
        """Let a paused queue continue now, whether the user or a failure paused it.

        Raises QueueError where this can't be stored.
        """
        self._pauses.end()
        self.queue.set_paused(False)
        log.info("The queue continues.")
        self.wake()

    def ask(self, name: str, request: WorkerRequest) -> None:
        """Drain a worker, end it after its job, or let it run jobs again. Raises WorkerNotFound."""
        if name not in self._handles:
            raise unknown_worker(name, list(self._handles))
        if request is WorkerRequest.RESUME:
            self.crew.resume(name)
        else:
            self.crew.drain(name, end=request is WorkerRequest.END)
        log.info("The worker %s was asked to %s", name, request)
        self.wake()

    # --- as it is now -----------------------------------------------------------------------------------------------

    def running(self) -> list[Live]:
        """What the running jobs do now, the one that began first at the beginning."""
        lives = [live for thread in self._all_threads() if (live := thread.live) is not None]
        return sorted(lives, key=lambda live: live.began)

    def live(self, id: int) -> Live | None:
        """What a job does now; None where it isn't running here."""
        return next((live for live in self.running() if live.job == id), None)

    def workers(self) -> list[WorkerRow]:
        """The workers as they are now."""
        return [row_of(member, self._handles[member.name].used_bytes) for member in self.crew.members()]

    def waits(self) -> Mapping[int, str]:
        """Why each waiting job waits, in words, by its id; empty while the queue is paused. Raises QueueError.

        The answer may be a second old: many clients ask, and the reasons of thousands of jobs take a while.
        """
        if self.paused:
            return {}
        waiting = self.queue.waiting()
        now, known = time.monotonic(), self._waits
        if known is None or now - known[0] > _REASONS_SECONDS or known[1] != waiting:
            known = self._waits = (now, waiting, self.crew.waits(waiting))
        return known[2]

    @property
    def totals(self) -> TotalsNow:
        """What all jobs have taken since the program began."""
        return self._totals.now()

    @property
    def alive(self) -> bool:
        """Whether all threads run that take jobs."""
        return all(thread.alive for thread in self._threads.values())

    @property
    def paused(self) -> bool:
        """Whether the queue is paused, by the user or after a failure that the next job would share.

        Raises QueueError where the queue can't be read.
        """
        return self._pauses.current is not None or self.queue.paused

    @property
    def trouble(self) -> ReeltuneError | None:
        """Why no job can be taken at the moment; None where all is well."""
        pause = self._pauses.current
        if pause is not None:
            return pause.trouble
        for thread in self._threads.values():
            if thread.trouble is not None:
                return thread.trouble
        if self._cluster is not None and self._cluster.trouble is not None:
            return self._cluster.trouble
        with contextlib.suppress(QueueError):  # a queue that can't be read is a trouble of the threads
            if self._obeys_user and self.queue.paused:
                return user_pause()
        return None

    @property
    def _obeys_user(self) -> bool:
        """Whether the user's pause stops it: not one that was started for certain jobs."""
        return self._only is None

    def cancel(self, id: int, attempt: int | None = None) -> None:
        """Stop a running job at its next step; asked a second time, by ending its worker at once.

        A waiting job is taken out of the queue. `attempt`: which try is meant, as a job may be run again. Raises
        QueueError for one that has ended, or that another program runs.
        """
        if any(thread.cancel(id, attempt) for thread in self._all_threads()):
            return
        job = self.queue.get(id)
        if job.state is State.RUNNING and job.worker not in self._threads:
            raise JobStateError(f"Job {id} is run by another program ({job.worker}).", hint="Cancel it there.")
        if job.state is State.RUNNING or attempt not in (None, job.attempts):
            raise JobStateError(f"Job {id} has ended: there is nothing to cancel.", hint="Its end is being stored.")
        if not job.waiting:
            raise JobStateError(f"Job {id} is {job.state}: there is nothing to cancel.")
        self.queue.cancel(id)

    def _demand(self) -> int:
        """The number of workers that could be used now. Raises QueueError."""
        waiting = [] if self.paused else self.queue.waiting(self._only)
        return len(waiting) + len(self.running())

    def _attempts(self) -> list[Attempt]:
        """What runs here, or has run without its end being stored yet."""
        return [attempt for thread in self._all_threads() if (attempt := thread.attempt) is not None]


def queue_name(handle: WorkerHandle) -> str:
    """The name of a worker in the queue, which programs on several machines may use."""
    return f"{socket.gethostname()}/{handle.name}"
