"""A worker on this machine: one process, which is started when it is needed and stays warm from job to job."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from reeltune.errors import WorkerDied
from reeltune.events import FilesUsed
from reeltune.jobs.job import Attempt
from reeltune.jobs.job_log import log
from reeltune.jobs.messages import CancelTask, Done, Failed, Ready, RunTask, Stopped, WorkerEvent
from reeltune.jobs.process import WorkerProcess


def worker_command(root: Path, *, save_quantized: bool = False, outputs: Path | None = None) -> list[str]:
    """The command that starts the worker process of a root.

    `save_quantized`: it writes what it quantizes. `outputs`: the folder of videos, in place of the preference's.
    """
    options = ["--save-quantized"] if save_quantized else []
    if outputs is not None:
        options += ["--outputs", str(outputs.absolute())]
    return [sys.executable, "-m", "reeltune.jobs.worker", "--root", str(root), *options]


class LocalProcess:
    """A `WorkerHandle` for a process on this machine, which `command` starts (see `worker_command`)."""

    def __init__(self, name: str, command: Sequence[str]) -> None:
        self._name = name
        self._command = command
        self._guard = threading.Lock()
        self._process: WorkerProcess | None = None
        self._attempt: Attempt | None = None  # that the process was told to run
        self._cancelled: Attempt | None = None  # that was cancelled last, perhaps before the process knew of it
        self._running = False
        self._closed = False
        self._warm_files: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        """Its name among the workers of a runner."""
        return self._name

    @property
    def warm_files(self) -> frozenset[str]:
        """Paths of the files whose weights the process holds in memory: those of its last video."""
        return self._warm_files

    @property
    def pid(self) -> int | None:
        """Number of the process, while there is one."""
        process = self._process
        return process.pid if process is not None and process.alive else None

    def run(self, task: RunTask) -> Iterator[WorkerEvent]:
        """Run a task; see `WorkerHandle.run`."""
        process = self._begin(task)
        try:
            yield from self._events(process, task.attempt)
        finally:
            self._end(process)

    def _events(self, process: WorkerProcess, attempt: Attempt) -> Iterator[WorkerEvent]:
        """The events of an attempt, up to its last. Raises WorkerDied."""
        for received in process.events():
            match received.event:
                case None:
                    continue
                case Ready(version=version):
                    log.debug("The worker process %d is ready (version %s)", process.pid, version)
                    continue
                case FilesUsed(files=files):
                    self._warm_files = frozenset(file.path for file in files)
            if received.attempt != attempt:  # it comes late
                continue
            yield received.event
            if isinstance(received.event, Done | Stopped | Failed):
                return
        raise process.death()

    def _begin(self, task: RunTask) -> WorkerProcess:
        """Send the task to the process, which is started where it doesn't run. Raises WorkerDied."""
        with self._guard:
            if self._closed:
                raise WorkerDied("The program ends.")
            if self._process is not None and not self._process.alive:
                self._discard(self._process)
            if self._process is None:
                self._process = WorkerProcess(self._command)
                log.debug("The worker process %d was started", self._process.pid)
            self._process.send(task)
            self._attempt = task.attempt
            self._running = True
            if self._cancelled == task.attempt:
                self._process.send(CancelTask(task.attempt))
            return self._process

    def _end(self, process: WorkerProcess) -> None:
        """The process runs nothing any more; one that is gone is discarded."""
        with self._guard:
            if self._process is not process:  # it was replaced before the run that it died in was given up
                return
            self._running = False
            if self._closed or not process.alive:
                self._discard(process)

    def _discard(self, process: WorkerProcess) -> None:
        self._process = None
        self._warm_files = frozenset()
        process.kill()
        process.close()

    def cancel(self, attempt: Attempt) -> None:
        """Stop an attempt at its next step; see `WorkerHandle.cancel`."""
        with self._guard:
            self._cancelled = attempt
            if self._process is not None and self._attempt == attempt:
                self._process.send(CancelTask(attempt))

    def kill(self) -> None:
        """End the process at once; the next task starts another one."""
        with self._guard:
            if self._process is not None:
                self._process.kill()

    def close(self) -> None:
        """End the process for good; see `WorkerHandle.close`."""
        with self._guard:
            self._closed = True
            process = self._process
            if process is None:
                return
            process.kill()
            if not self._running:
                self._discard(process)
