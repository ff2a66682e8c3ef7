"""The thread of one worker: it takes one job after the other from the queue, and stores how each of them ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection
from dataclasses import replace
from functools import partial

from reeltune.errors import QueueError, WorkerDied
from reeltune.events import LatentsStored
from reeltune.jobs.crash import explained
from reeltune.jobs.crew import Crew
from reeltune.jobs.ends import how_far, store_outcome, tried_again
from reeltune.jobs.handle import WorkerHandle
from reeltune.jobs.idle import IdleLimit
from reeltune.jobs.job import Attempt, Job, State
from reeltune.jobs.job_log import JobLog, log
from reeltune.jobs.leases import LEASE_SECONDS
from reeltune.jobs.live import Live, Outcome
from reeltune.jobs.messages import Done, Ending, Failed, RunTask, Saved, Stopped, WorkerEvent
from reeltune.jobs.pauses import Pauses
from reeltune.jobs.queue import INTERRUPTED, INTERRUPTED_HINT, Queue
from reeltune.jobs.totals import Totals
from reeltune.jobs.written import unreported_videos

JobListener = Callable[[int, WorkerEvent], None]  # called with the id of a job and what happened
_LOOK_SECONDS = 1.0  # other processes may add jobs too
_MOST_DEATHS = 2  # of workers in a row, until a job is not tried again
_STORE_SECONDS = 2.0  # how often the progress of a job is stored


class WorkerThread:
    """One worker of a runner. Whatever happens to a job, it ends with a reason, which is stored before another job is
    taken. `worker`: its name in the queue. `only`: the ids of the jobs that it may take; None for all. `listener` is
    called for each event, by this thread.
    """

    def __init__(
        self,
        worker: str,
        handle: WorkerHandle,
        queue: Queue,
        pauses: Pauses,
        totals: Totals,
        crew: Crew,
        idle: IdleLimit,
        *,
        only: Collection[int] | None = None,
        listener: JobListener | None = None,
    ) -> None:
        self.only = only
        self._listener = listener
        self.worker = worker
        self._handle = handle
        self._queue = queue
        self._pauses = pauses
        self._totals = totals
        self._crew = crew
        self._idle = idle
        self._live: Live | None = None
        self._ended: Live | None = None  # what the last job did, until its end is stored
        self._unstored: Outcome | None = None  # how the last job ended, until that is stored
        self._trouble: QueueError | None = None
        self._guard = threading.Lock()
        self._woken = threading.Event()
        self._stopped = threading.Event()
        self._retired = threading.Event()
        self._interrupted = threading.Event()
        self._thread = threading.Thread(target=self._loop, name=f"reeltune-{handle.name}", daemon=True)

    # --- for the runner ---------------------------------------------------------------------------------------------

    @property
    def live(self) -> Live | None:
        """What its job does now, until its end is stored; None while it runs none."""
        return self._live or self._ended

    @property
    def trouble(self) -> QueueError | None:
        """Why it can't take or store a job at the moment; None where all is well."""
        return self._trouble

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    @property
    def attempt(self) -> Attempt | None:
        """What it runs, or has run without its end being stored yet."""
        with self._guard:
            if self._live is not None:
                return Attempt(self._live.job, self._live.attempt)
            return self._unstored.job.attempt if self._unstored is not None else None

    def start(self) -> None:
        """Begin to take jobs."""
        self._thread.start()

    def wake(self) -> None:
        """Look for a job at once."""
        self._woken.set()

    def stop(self) -> None:
        """End the worker, whatever it does; a job it was at becomes `interrupted`. Doesn't wait for the thread."""
        self._stopped.set()
        self._woken.set()
        self._handle.close()

    def retire(self) -> None:
        """Take no more jobs, and end once the job that runs has ended. Doesn't wait for the thread."""
        self._retired.set()
        self._woken.set()

    def interrupt(self) -> None:
        """Take no more jobs, and stop the one that runs at its next step: it becomes `interrupted`."""
        with self._guard:
            self._interrupted.set()
            if self._live is not None and not self._live.cancelling:
                self._live = replace(self._live, cancelling=True)
                self._handle.cancel(Attempt(self._live.job, self._live.attempt))

    def join(self) -> None:
        """Wait for the end of the thread."""
        if self.alive:
            self._thread.join()

    def cancel(self, id: int, attempt: int | None) -> bool:
        """Stop a job at its next step, or at once where it was asked before; False where it isn't running here."""
        with self._guard:
            live = self._live
            if live is None or live.job != id or attempt not in (None, live.attempt):
                return False
            self._live = replace(live, cancelling=True)
            if live.cancelling:
                self._handle.kill()  # inside the lock, so that it never ends the worker's next job
            else:
                self._handle.cancel(Attempt(id, live.attempt))
            return True

    # --- the thread -------------------------------------------------------------------------------------------------

    def _loop(self) -> None:
        while not self._stopped.is_set() and not (self._retired.is_set() and self._unstored is None):
            self._woken.clear()
            try:
                busy = self._next()
                self._trouble = None
            except QueueError as error:  # a locked file or a full disk, say: shown on the page, and tried again
                busy = self._troubled(error)
            except Exception as error:  # the boundary of the thread: the page must go on
                log.exception("The queue met an unexpected error")
                busy = self._troubled(
                    QueueError(f"The queue met an error: {type(error).__name__}.", hint="See the log.")
                )
            if not busy:
                self._woken.wait(_LOOK_SECONDS)
        self._store_at_the_end()

    def _troubled(self, error: QueueError) -> bool:
        if self._trouble is None or self._trouble.message != error.message:
            log.error("%s", error)
        self._trouble = error
        return False

    def _next(self) -> bool:
        """Store the end of the last job, then run the next one; returns whether there was one. Raises QueueError."""
        if self._unstored is not None:
            self._store(self._unstored)
        waits = self._pauses.current is not None or self._interrupted.is_set() or self._retired.is_set()
        job = None if waits else self._take()
        if job is None:
            self._rest()
            return False
        self._trouble = None
        self._run(job)
        return True

    def _take(self) -> Job | None:
        """The next job for this worker. Raises QueueError."""
        name = self._handle.name
        waiting = self._queue.waiting(self.only)
        self._crew.prepare(waiting)
        with self._crew.turn(name):
            if not waiting:
                return None
            with self._guard:  # nobody may see a job that runs and can't be cancelled yet
                job = self._queue.take(
                    self.worker, LEASE_SECONDS, only=self.only, choose=lambda waiting: self._crew.choose(name, waiting)
                )
                self._live = None if job is None else self._begun(job)
            if job is not None:
                self._crew.begin(name, job)
            return job

    def _begun(self, job: Job) -> Live:
        """What a job does when it begins."""
        return Live(
            job.id,
            time.time(),
            outputs=job.outputs,
            latents=job.latents,
            notices=job.notices,
            attempt=job.attempts,
            worker=self.worker,
        )

    def _rest(self) -> None:
        """Look after a worker that has nothing to do: it may have died, and it ends after some time."""
        name = self._handle.name
        death = self._handle.check()
        if death is not None:
            self._crew.empty(name, death)
            log.warning(
                "The worker %s ended while it was idle: %s It is started for its next job.", name, death.message
            )
        member = self._crew.member(name)
        if member is None:  # it has left
            return
        if (member.ending or self._idle.is_over(member.since)) and self._handle.release():
            self._crew.empty(name)
            log.info("The worker %s was ended: %s.", name, "as asked" if member.ending else "it was idle")

    def _run(self, job: Job) -> None:
        """Run a job to its end, whatever that is, and store it."""
        job_log = JobLog(job, self._totals)
        if self._interrupted.is_set():  # it was taken just before
            self.interrupt()
        outcome = self._run_to_end(job, job_log)
        with self._guard:
            self._ended = live = self._live
            self._live = None
            if live is not None:
                notices = (*live.notices, *outcome.notices)
                outcome = replace(outcome, outputs=live.outputs, latents=live.latents, notices=notices)
            self._unstored = outcome
        job_log.ended(outcome)
        self._report_to_crew(outcome, live, job_log)
        self._pause_after(outcome)
        self._store(outcome)

    def _report_to_crew(self, outcome: Outcome, live: Live | None, job_log: JobLog) -> None:
        """What the worker holds now, and how long its job took."""
        loaded = live is not None and live.using is not None
        self._crew.end(
            self._handle.name,
            outcome.job.id,
            loaded=loaded,
            completed=outcome.state is State.DONE,
            load_seconds=job_log.seconds_of("load"),
        )

    def _run_to_end(self, job: Job, job_log: JobLog) -> Outcome:
        try:
            ending = self._follow(job, job_log)
        except WorkerDied as death:
            self._crew.died(self._handle.name, death)
            return self._after_death(job, death)
        except Exception as error:  # the boundary of a job: it ends with a reason, and the next one gets a new worker
            log.exception("Job %d met an unexpected error", job.id)
            self._handle.kill()
            self._crew.died(self._handle.name, WorkerDied("It was ended after an unexpected error."))
            hint = "The terminal of the program shows more."
            return Outcome(job, State.FAILED, f"An unexpected error: {type(error).__name__}.", hint)
        match ending:
            case Done():
                return Outcome(job, State.DONE)
            case Stopped() if self._interrupted.is_set():
                return Outcome(job, State.INTERRUPTED, INTERRUPTED, INTERRUPTED_HINT)
            case Stopped():
                return Outcome(job, State.CANCELLED)
            case Failed(error=words, hint=hint, shared=shared):
                return Outcome(job, State.FAILED, words, hint, shared=shared)

    def _after_death(self, job: Job, death: WorkerDied) -> Outcome:
        live = self._with_unreported_videos(job)
        if self._stopped.is_set() or self._interrupted.is_set():
            return Outcome(job, State.INTERRUPTED, INTERRUPTED, INTERRUPTED_HINT)
        if live is not None and live.cancelling:
            return Outcome(job, State.CANCELLED)
        if live is not None:
            death = explained(death, live.using)
        deaths = job.deaths + 1
        if deaths < _MOST_DEATHS:
            return Outcome(job, State.QUEUED, death.message, death.hint, notices=(tried_again(death, live),))
        begun = live is not None and live.progress is not None
        hint = f"It isn't tried again, as {deaths} workers in a row have ended while they ran it. {death.hint}".strip()
        return Outcome(job, State.FAILED, death.message, hint, shared=not begun)

    def _with_unreported_videos(self, job: Job) -> Live | None:
        """The current state, with the videos that the worker has written but didn't report before it died."""
        with self._guard:
            live = self._live
            if live is None:
                return None
            written = unreported_videos(self._queue.root, replace(job, outputs=live.outputs), self._queue.outputs)
            if written:
                live = self._live = replace(live, outputs=(*live.outputs, *written), latents="")
            return live

    def _follow(self, job: Job, job_log: JobLog) -> Ending:
        """Let the worker run a job, and return its last event. Raises WorkerDied."""
        task = RunTask(job.attempt, job.definition, job.settings, len(job.outputs), job.latents, job.confined)
        ending: Ending | None = None
        stored = time.monotonic()
        for event in self._handle.run(task):
            if isinstance(event, Done | Stopped | Failed):
                ending = event
                continue
            self._handle_event(job, event, job_log)
            if time.monotonic() - stored > _STORE_SECONDS:
                stored = time.monotonic()
                self._try_to_store(partial(self._queue.store_progress, job.attempt, how_far(self._live)))
        if ending is None:
            raise WorkerDied("The worker ended without a result.", hint="Run it again.")
        return ending

    def _handle_event(self, job: Job, event: WorkerEvent, job_log: JobLog) -> None:
        with self._guard:
            assert self._live is not None
            live = self._live = self._live.after(event)
        job_log.event(event)
        if self._listener is not None:
            self._listener(job.id, event)
        if isinstance(event, Saved | LatentsStored):
            self._try_to_store(partial(self._queue.store_outputs, job.attempt, live.outputs, live.latents))

    # --- the ends of jobs -------------------------------------------------------------------------------------------

    def _store(self, outcome: Outcome) -> None:
        """Store how a job ended. Raises QueueError; it is tried again, and nothing is lost meanwhile."""
        job = outcome.job
        try:
            counts = store_outcome(self._queue, outcome)
        except QueueError as error:
            videos = f" Its videos: {', '.join(outcome.outputs)}." if outcome.outputs else ""
            message = f"Job {job.id} is {outcome.state}, and this can't be stored: {error.message}{videos}"
            raise QueueError(message, hint=f"{error.hint} It is tried again every second.") from error
        if not counts:
            log.warning("Job %d was begun again meanwhile: the end of try %d changes nothing", job.id, job.attempts)
        with self._guard:
            self._unstored = self._ended = None

    def _store_at_the_end(self) -> None:
        if self._unstored is not None:
            try:
                self._store(self._unstored)
            except QueueError as error:
                log.error("%s", error.message)

    def _try_to_store(self, store: Callable[[], None]) -> None:
        """Store what is stored again when the job ends: that it fails now ends nothing."""
        try:
            store()
        except QueueError as error:
            log.debug("%s", error)

    def _pause_after(self, outcome: Outcome) -> None:
        """Pause after a failure that every job shares, longer each time; any other end of a job starts anew."""
        if outcome.state is State.QUEUED:
            return
        if outcome.state is not State.FAILED or not outcome.shared:
            self._pauses.start_over()
            return
        try:
            # a queue that the user pauses doesn't continue by itself, so it needs no other pause
            jobs_wait = not self._queue.paused and any(job.waiting for job in self._queue.jobs())
        except QueueError as error:
            log.debug("%s", error)
            return
        pause = self._pauses.begin(outcome.error, outcome.hint, jobs_wait=jobs_wait)
        if pause is not None:
            log.warning("%s", pause.trouble)
