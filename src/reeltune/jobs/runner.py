"""Takes one job after the other from the queue to the worker process, and keeps that process alive.

with Runner(root) as runner:
    runner.queue.add("some_definition", {"prompt": "a paper boat"})
    runner.wake()
    runner.live
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from filelock import FileLock, Timeout

from reeltune.errors import QueueError, WorkerDied
from reeltune.events import Batch, Event, Kept, Notice, Planned, Preview, Progress
from reeltune.jobs.job import Job, State
from reeltune.jobs.pace import Pace, advance
from reeltune.jobs.process import WorkerProcess
from reeltune.jobs.queue import Queue
from reeltune.jobs.wire import LAST, unpack

LOCK_NAME = ".reeltune.lock"
_LOOK_SECONDS = 1.0  # other processes may add jobs too
_NOTE_SECONDS = 2.0  # how often the progress of a job is written down
_MOST_NOTICES = 100


@dataclass(frozen=True)
class Live:
    """What the running job is doing now: the last event of each kind. `pace`: how fast its stage advances;
    `cancelling`: it was asked to stop.
    """

    job: int
    since: float
    progress: Progress | None = None
    pace: Pace | None = None
    batch: Batch | None = None
    planned: Planned | None = None
    preview: Preview | None = None
    notices: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    cancelling: bool = False

    def heard(self, event: Event) -> Live:
        """The same after one more event."""
        match event:
            case Progress():
                return replace(self, progress=event, pace=advance(self.pace, event, time.monotonic()))
            case Batch():
                return replace(self, batch=event, preview=None)
            case Planned():
                return replace(self, planned=event)
            case Preview():
                return replace(self, preview=event)
            case Notice(message=text) if text not in self.notices and len(self.notices) < _MOST_NOTICES:
                return replace(self, notices=(*self.notices, text))
        return self


class Runner:
    """The thread behind a page. Only one may run for a root: raises QueueError where another program does.

    What it left running when it was last killed becomes `interrupted` as it starts.
    """

    def __init__(self, root: Path) -> None:
        self.queue = Queue(root)
        self._root = root
        self._lock = FileLock(root / LOCK_NAME, timeout=0, thread_local=False)
        self._live: Live | None = None
        self._trouble: QueueError | None = None
        self._worker: WorkerProcess | None = None
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
        self.queue.recover()
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
        self._lock.release()

    def wake(self) -> None:
        """Say that there is a new job, so that it begins at once."""
        self._woken.set()

    @property
    def live(self) -> Live | None:
        """What the running job does now; None while none runs."""
        return self._live

    @property
    def trouble(self) -> QueueError | None:
        """Why no job can be taken at the moment; None where all is well."""
        return self._trouble

    @property
    def worker_pid(self) -> int | None:
        """Number of the worker process, while there is one."""
        worker = self._worker
        return worker.pid if worker is not None and worker.alive else None

    def cancel(self, id: int) -> None:
        """Stop a running job at its next step; asked a second time, by ending the worker process at once.

        A waiting job is taken out of the line. Raises QueueError for one that has ended.
        """
        with self._guard:
            live, worker = self._live, self._worker
            if live is not None and live.job == id and worker is not None:
                self._live = replace(live, cancelling=True)
                if live.cancelling:
                    worker.kill()
                else:
                    worker.send(do="cancel", job=id)
                return
        job = self.queue.get(id)
        if not job.waiting:
            raise QueueError(f"Job {id} is {job.state}: there is nothing to cancel.")
        self.queue.finish(id, State.CANCELLED)

    # --- the thread -----------------------------------------------------------------------------------------

    def _loop(self) -> None:
        while not self._stopped.is_set():
            self._woken.clear()
            try:
                job = self.queue.take()
                if job is not None:
                    self._run(job)
                self._trouble = None
            except QueueError as error:  # a full disk, say: told on the page, and tried again
                self._trouble, job = error, None
            if job is None:
                self._woken.wait(_LOOK_SECONDS)

    def _run(self, job: Job) -> None:
        with self._guard:
            self._live = Live(job.id, time.time(), outputs=job.outputs)
        state, error, hint = State.FAILED, "", ""
        try:
            last = self._talk(job)
            state = State(last["event"])
            error, hint = str(last.get("error", "")), str(last.get("hint", ""))
        except WorkerDied as death:
            state, error, hint = self._after_death(death)
        live = self._live
        assert live is not None
        self.queue.finish(job.id, state, error=error, hint=hint, outputs=live.outputs, notices=live.notices)
        with self._guard:
            self._live = None

    def _after_death(self, death: WorkerDied) -> tuple[State, str, str]:
        with self._guard:
            if self._worker is not None:
                self._worker.close()
            self._worker = None
        if self._stopped.is_set():
            return State.INTERRUPTED, "The program ended while it ran.", "Resume it, or remove it."
        if self._live is not None and self._live.cancelling:
            return State.CANCELLED, "", ""
        return State.FAILED, death.message, death.hint

    def _talk(self, job: Job) -> dict[str, Any]:
        """Let the worker do a job, and return the last it says of it. Raises WorkerDied."""
        worker = self._ready()
        left = {"made": len(job.outputs), "latents": job.latents}
        worker.send(do="generate", job=job.id, definition=job.definition, settings=dict(job.settings), **left)
        noted = time.monotonic()
        for message in worker.events():
            if message.get("job") != job.id:
                continue
            if message["event"] in LAST:
                return message
            self._hear(message)
            if time.monotonic() - noted > _NOTE_SECONDS:
                noted = time.monotonic()
                self.queue.note(job.id, _how_far(self._live))
        raise worker.death()

    def _ready(self) -> WorkerProcess:
        with self._guard:
            if self._stopped.is_set():
                raise WorkerDied("The program ends.")
            if self._worker is None or not self._worker.alive:
                self._worker = WorkerProcess(self._root)
            return self._worker

    def _hear(self, message: dict[str, Any]) -> None:
        event = unpack(message)
        with self._guard:
            live = self._live
            assert live is not None
            saved = message["event"] == "saved"
            if saved:
                live = replace(live, outputs=(*live.outputs, str(message["path"])))
            self._live = live.heard(event) if event is not None else live
        if saved or isinstance(event, Kept):
            self.queue.keep(live.job, live.outputs, event.path if isinstance(event, Kept) else "")


def _how_far(live: Live | None) -> str:
    progress = live.progress if live is not None else None
    if progress is None:
        return ""
    return f"{progress.stage} {progress.done}" + (f" of {progress.total}" if progress.total else "")
