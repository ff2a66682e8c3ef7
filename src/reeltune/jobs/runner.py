"""Takes one job after the other from the queue to the worker process, and keeps that process alive.

with Runner(root) as runner:
    runner.queue.add("some_definition", {"prompt": "a paper boat"})
    runner.wake()
    runner.live
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Self

from filelock import FileLock, Timeout

from reeltune.errors import QueueError, WorkerDied
from reeltune.events import LatentsStored
from reeltune.files import reason
from reeltune.jobs.crash import explained
from reeltune.jobs.job import Job, State
from reeltune.jobs.live import Ended, Live
from reeltune.jobs.process import WorkerLike, WorkerProcess
from reeltune.jobs.queue import Queue
from reeltune.jobs.report import Report, log
from reeltune.jobs.wire import LAST, unpack

LOCK_NAME = ".reeltune.lock"
SAVE_QUANTIZED = "--save-quantized"
_LOOK_SECONDS = 1.0  # other processes may add jobs too
_NOTE_SECONDS = 2.0  # how often the progress of a job is written down
_PAUSE_SECONDS = (60.0, 120.0, 300.0, 900.0)  # after one failure that every job shares, after two in a row …


@dataclass(frozen=True)
class Pause:
    """The queue waits, as the next job would fail like the last. `until` in seconds of the monotonic clock."""

    error: str
    hint: str
    until: float

    @property
    def trouble(self) -> QueueError:
        """What to show."""
        minutes = max(1, round((self.until - time.monotonic()) / 60))
        again = f"It continues by itself in about {minutes} minute{'s' if minutes > 1 else ''}."
        return QueueError(f"The queue is paused: {self.error}", hint=f"{self.hint} {again}".strip())


class Runner:
    """The thread behind a page. Only one may run for a root: raises QueueError where another program does.

    What it left running when it was last killed becomes `interrupted` as it starts. `confined`: see `Queue`.
    `save_quantized`: the worker keeps what it quantizes, whatever the preference. `start_worker` is for tests.

    Whatever happens to a job, it ends with words; its end is stored before another one is taken. After a failure that
    every job would share (no network, a full disk, a missing device) the queue pauses where others wait.
    """

    def __init__(
        self,
        root: Path,
        *,
        confined: bool = False,
        save_quantized: bool = False,
        start_worker: Callable[[], WorkerLike] | None = None,
    ) -> None:
        self.queue = Queue(root, confined=confined)
        self._root = root
        self._start_worker = start_worker or partial(WorkerProcess, root, [SAVE_QUANTIZED] if save_quantized else [])
        self._lock = FileLock(root / LOCK_NAME, timeout=0, thread_local=False)
        self._live: Live | None = None
        self._sent = False  # whether the worker knows of the running job
        self._ended: Ended | None = None  # and not yet stored
        self._pause: Pause | None = None
        self._pauses = 0
        self._trouble: QueueError | None = None
        self._worker: WorkerLike | None = None
        self._guard = threading.Lock()
        self._woken, self._stopped = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._loop, name="reeltune-runner", daemon=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def start(self) -> None:
        """Begin to take jobs."""
        try:
            self._lock.acquire()
        except Timeout as error:
            message = f"Another reeltune already makes the videos of {self._root}."
            raise QueueError(message, hint="Use its page, or name another folder with --root.") from error
        except OSError as error:
            message = f"{self._root / LOCK_NAME} can't be written: {reason(error)}."
            raise QueueError(message, hint="Check the folder, or name another with --root.") from error
        try:
            self.queue.recover()
        except QueueError:
            self._lock.release()
            raise
        self._thread.start()

    def stop(self) -> None:
        """End the worker, whatever it does; a job it was at becomes `interrupted`."""
        self._stopped.set()
        self._woken.set()
        with self._guard:
            worker = self._worker
        if worker is not None:
            worker.kill()
        if self._thread.is_alive():
            self._thread.join()
        if worker is not None:
            worker.close()
        with contextlib.suppress(OSError):  # the root was moved away
            self._lock.release()

    def wake(self) -> None:
        """Take a new job at once, where the queue isn't paused."""
        self._woken.set()

    def resume(self) -> None:
        """Let a paused queue continue now."""
        self._pause = None
        self._woken.set()

    @property
    def live(self) -> Live | None:
        """What the running job does now; None while none runs."""
        return self._live

    @property
    def paused(self) -> bool:
        """Whether the queue waits after a failure that the next job would share."""
        return self._pause is not None

    @property
    def trouble(self) -> QueueError | None:
        """Why no job can be taken at the moment; None where all is well."""
        pause = self._pause
        return pause.trouble if pause is not None else self._trouble

    @property
    def worker_pid(self) -> int | None:
        """Number of the worker process, while there is one."""
        worker = self._worker
        return worker.pid if worker is not None and worker.alive else None

    def cancel(self, id: int, attempt: int | None = None) -> None:
        """Stop a running job at its next step; asked a second time, by ending the worker process at once.

        A waiting job is taken out of the line. `attempt`: which one is meant, as a job may be run again. Raises
        QueueError for one that has ended.
        """
        with self._guard:
            live, worker, sent = self._live, self._worker, self._sent
            if live is not None and live.job == id and attempt in (None, live.attempt):
                self._live = replace(live, cancelling=True)
                if worker is not None and live.cancelling:
                    worker.kill()
                elif worker is not None and sent:
                    worker.send(do="cancel", job=id, attempt=live.attempt)
                return
        job = self.queue.get(id)
        if job.state is State.RUNNING or attempt not in (None, job.attempt):
            raise QueueError(f"Job {id} has ended: there is nothing to cancel.", hint="Its end is being stored.")
        if not job.waiting:
            raise QueueError(f"Job {id} is {job.state}: there is nothing to cancel.")
        self.queue.cancel(id)

    # --- the thread -----------------------------------------------------------------------------------------

    def _loop(self) -> None:
        while not self._stopped.is_set():
            self._woken.clear()
            try:
                busy = self._next()
                self._trouble = None
            except QueueError as error:  # a locked file or a full disk, say: shown on the page, and tried again
                busy = self._troubled(error)
            except Exception as error:  # the boundary of the thread: the page must go on
                log.exception("The queue met an error that was not expected")
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
        if self._ended is not None:
            self._store(self._ended)
        pause = self._pause
        if pause is not None and time.monotonic() < pause.until:
            return False
        self._pause = None
        job = self.queue.take()
        if job is None:
            return False
        self._run(job)
        return True

    def _run(self, job: Job) -> None:
        """Run a job to its end, whatever that is, and store it."""
        report = Report(job)
        with self._guard:
            self._live = Live(job.id, time.time(), outputs=job.outputs, latents=job.latents, attempt=job.attempt)
        ended = self._outcome(job, report)
        with self._guard:
            live, self._live, self._sent = self._live, None, False
        if live is not None:
            ended = replace(ended, outputs=live.outputs, latents=live.latents, notices=live.notices)
        self._ended = ended
        report.ended(ended)
        self._pause_after(ended)
        self._store(ended)

    def _outcome(self, job: Job, report: Report) -> Ended:
        try:
            last = self._talk(job, report)
        except WorkerDied as death:
            return self._after_death(job, death)
        except Exception as error:  # the boundary of a job: it ends with words, and the next one gets a new worker
            log.exception("Job %d met an error that was not expected", job.id)
            self._discard_worker()
            hint = "The terminal of the program shows more."
            return Ended(job, State.FAILED, f"An error that was not expected: {type(error).__name__}.", hint)
        words = str(last.get("error", "")), str(last.get("hint", ""))
        return Ended(job, State(last["event"]), *words, shared=bool(last.get("shared")))

    def _after_death(self, job: Job, death: WorkerDied) -> Ended:
        live = self._live
        self._discard_worker()
        if self._stopped.is_set():
            return Ended(job, State.INTERRUPTED, "The program ended while it ran.", "Resume it, or remove it.")
        if live is not None and live.cancelling:
            return Ended(job, State.CANCELLED)
        if live is not None:
            death = explained(death, live.using)
        begun = live is not None and live.progress is not None
        return Ended(job, State.FAILED, death.message, death.hint, shared=not begun)

    def _discard_worker(self) -> None:
        with self._guard:
            worker, self._worker = self._worker, None
        if worker is not None:
            worker.kill()
            worker.close()

    def _talk(self, job: Job, report: Report) -> dict[str, Any]:
        """Let the worker do a job, and return its last message of it. Raises WorkerDied."""
        worker = self._ready()
        request = {"definition": job.definition, "settings": dict(job.settings), "confined": job.confined}
        made = {"made": len(job.outputs), "latents": job.latents}
        with self._guard:
            worker.send(do="generate", job=job.id, attempt=job.attempt, **request, **made)
            self._sent = True
            if self._live is not None and self._live.cancelling:  # before the worker knew of it
                worker.send(do="cancel", job=job.id, attempt=job.attempt)
        noted = time.monotonic()
        for message in worker.events():
            if (message.get("job"), message.get("attempt")) != (job.id, job.attempt):
                continue
            if message.get("event") in LAST:
                return message
            self._hear(message, report)
            if time.monotonic() - noted > _NOTE_SECONDS:
                noted = time.monotonic()
                self._try_to_store(partial(self.queue.note, job.id, _how_far(self._live)))
        raise worker.death()

    def _ready(self) -> WorkerLike:
        with self._guard:
            if self._stopped.is_set():
                raise WorkerDied("The program ends.")
            if self._worker is None or not self._worker.alive:
                self._worker = self._start_worker()
                log.debug("The worker process is %d", self._worker.pid)
            return self._worker

    def _hear(self, message: dict[str, Any], report: Report) -> None:
        event = unpack(message)
        saved = str(message.get("path", "")) if message.get("event") == "saved" else ""
        with self._guard:
            live = self._live
            assert live is not None
            if event is not None:
                live = live.heard(event)
            if saved:
                live = live.saved(saved)
            self._live = live
        report.heard(event)
        if saved:
            report.saved(saved)
        if saved or isinstance(event, LatentsStored):
            self._try_to_store(partial(self.queue.keep, live.job, live.outputs, live.latents))

    # --- the ends of jobs -----------------------------------------------------------------------------------

    def _store(self, ended: Ended) -> None:
        """Store how a job ended. Raises QueueError; it is tried again, and nothing is lost meanwhile."""
        id = ended.job.id
        try:
            self.queue.restore(ended.job)
            self.queue.keep(id, ended.outputs, ended.latents)
            self.queue.finish(id, ended.state, error=ended.error, hint=ended.hint, notices=ended.notices)
        except QueueError as error:
            videos = f" Its videos: {', '.join(ended.outputs)}." if ended.outputs else ""
            message = f"Job {id} is {ended.state}, and this can't be stored: {error.message}{videos}"
            raise QueueError(message, hint=f"{error.hint} It is tried again every second.") from error
        self._ended = None

    def _store_at_the_end(self) -> None:
        if self._ended is not None:
            try:
                self._store(self._ended)
            except QueueError as error:
                log.error("%s", error.message)

    def _try_to_store(self, store: Callable[[], None]) -> None:
        """Store what is stored again when the job ends: that it fails now ends nothing."""
        try:
            store()
        except QueueError as error:
            log.debug("%s", error)

    def _pause_after(self, ended: Ended) -> None:
        """Pause after a failure that every job shares, longer each time; any other end of a job starts anew."""
        if ended.state is not State.FAILED or not ended.shared:
            self._pauses = 0
            return
        seconds = _PAUSE_SECONDS[min(self._pauses, len(_PAUSE_SECONDS) - 1)]
        self._pauses += 1
        with contextlib.suppress(QueueError):
            if any(job.waiting for job in self.queue.jobs()):
                self._pause = Pause(ended.error, ended.hint, time.monotonic() + seconds)
                log.warning("%s", self._pause.trouble)


def _how_far(live: Live | None) -> str:
    progress = live.progress if live is not None else None
    if progress is None:
        return ""
    return f"{progress.stage} {progress.done}" + (f" of {progress.total}" if progress.total else "")
