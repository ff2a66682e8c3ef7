"""A worker on this machine: one process, which is started when it is needed and stays warm from job to job."""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import psutil

from reeltune.errors import WorkerDied
from reeltune.events import FilesUsed
from reeltune.jobs.devices import WorkerSpec, one_worker, parse_workers
from reeltune.jobs.handle import WorkerPlace
from reeltune.jobs.job import Attempt
from reeltune.jobs.job_log import log
from reeltune.jobs.messages import CancelTask, Done, Failed, Ready, RunTask, Stopped, WorkerEvent
from reeltune.jobs.process import WorkerProcess
from reeltune.machine import probe
from reeltune.preferences import load_preferences


def local_workers(
    root: Path, chosen: str | None = None, *, save_quantized: bool = False, outputs: Path | None = None
) -> list[LocalProcess]:
    """The workers of this machine that `chosen` asks for (see `parse_workers`); one if it is None.

    Other arguments: see `worker_command`. Raises WorkersError, DeviceMissing.
    """
    machine, preferred = probe(), load_preferences(root)[0].device
    if chosen is None:
        specs: Sequence[WorkerSpec] = [one_worker(machine, preferred)]
    else:
        specs = parse_workers(chosen, machine, os.environ, preferred=preferred)
    node = socket.gethostname()
    return [
        LocalProcess(
            spec.name,
            worker_command(root, save_quantized=save_quantized, outputs=outputs, spec=spec),
            environment=spec.environment,
            place=WorkerPlace(spec.device, node, spec.memory_bytes),
        )
        for spec in specs
    ]


def worker_command(
    root: Path, *, save_quantized: bool = False, outputs: Path | None = None, spec: WorkerSpec | None = None
) -> list[str]:
    """The command that starts a worker process of a root.

    `save_quantized`: it writes what it quantizes. `outputs`: the folder of videos, in place of the preference's.
    `spec`: its device and its threads, in place of the preference's.
    """
    options = ["--save-quantized"] if save_quantized else []
    if spec is not None and spec.option:
        options += ["--device", spec.option]
    if spec is not None and spec.threads:
        options += ["--threads", str(spec.threads)]
    if outputs is not None:
        options += ["--outputs", str(outputs.absolute())]
    return [sys.executable, "-m", "reeltune.jobs.worker", "--root", str(root), *options]


class LocalProcess:
    """A `WorkerHandle` for a process on this machine, which `command` starts (see `worker_command`).

    `environment`: variables of the process, besides those of this program. `place`: where it computes.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        place: WorkerPlace | None = None,
    ) -> None:
        self._name = name
        self._command = command
        self._environment = environment
        self._place = place or WorkerPlace(node=socket.gethostname())
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
    def place(self) -> WorkerPlace:
        """Where it computes."""
        return self._place

    @property
    def used_bytes(self) -> int | None:
        """Memory of the process; 0 while there is none."""
        pid = self.pid
        if pid is None:
            return 0
        try:
            return int(psutil.Process(pid).memory_info().rss)
        except psutil.Error:  # it has just ended
            return 0

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
                self._process = WorkerProcess(self._command, self._environment)
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

    def release(self) -> bool:
        """End the process until the next task; see `WorkerHandle.release`."""
        with self._guard:
            process = self._process
            if process is None or self._running:
                return False
            self._discard(process)
            return True

    def check(self) -> WorkerDied | None:
        """Why the process has ended by itself; see `WorkerHandle.check`."""
        with self._guard:
            process = self._process
            if process is None or self._running or self._closed or process.alive:
                return None
            death = process.death()
            self._discard(process)
            return death

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
