"""A worker that does what a script says, in the runner's own process: no torch, no waiting. A second `WorkerHandle`."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from reeltune.errors import WorkerDied
from reeltune.events import Progress
from reeltune.jobs import Runner
from reeltune.jobs.codec import pack_event, pack_task, unpack_event, unpack_task
from reeltune.jobs.handle import WorkerPlace
from reeltune.jobs.job import Attempt
from reeltune.jobs.messages import Done, Failed, RunTask, Saved, Stopped, WorkerEvent

Script = Callable[["FakeWorker", RunTask], None]
PREPARE = Progress("prepare", 0, None)


def succeed(worker: FakeWorker, task: RunTask) -> None:
    """A script: one video."""
    worker.tell(PREPARE, Saved("a.mp4"), Done())


def until(true: Callable[[], object], seconds: float = 300) -> None:
    """Wait until something is true."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


def look_in_vain(worker: FakeWorker) -> None:
    """Wait until a worker has looked for a job several times, and found none."""
    enough = worker.checks + 3
    until(lambda: worker.checks >= enough)


@contextlib.contextmanager
def runners(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., tuple[Runner, FakeWorker]]]:
    """Start runners whose one worker follows a script, or with other workers: each with its first worker."""
    monkeypatch.setattr("reeltune.jobs.worker_thread._LOOK_SECONDS", 0.01)
    started = []

    def start(
        script: Script = succeed, workers: Sequence[FakeWorker] = (), **options: Any
    ) -> tuple[Runner, FakeWorker]:
        workers = workers or [FakeWorker(script)]
        runner = Runner(root, workers=workers, **options)
        runner.start()
        started.append(runner)
        return runner, workers[0]

    try:
        yield start
    finally:
        for runner in started:
            runner.stop()


class FakeWorker:
    """`script(worker, task)` is called for each task, and answers with `worker.tell(event, …)`."""

    def __init__(self, script: Script = succeed, name: str = "fake") -> None:
        self.script = script
        self.name = name
        self.warm_files: frozenset[str] = frozenset()
        self.place = WorkerPlace("cpu", "here")
        self.used_bytes: int | None = None
        self.idle_death: WorkerDied | None = None  # what `check` finds
        self.releases = 0
        self.checks = 0  # looks for a job that found none
        self.started = False
        self.death = WorkerDied("The worker process was killed.", hint="Again.")
        self.tasks: list[RunTask] = []
        self.cancels: list[Attempt] = []
        self.kills = 0
        self._closed = threading.Event()
        self._events: queue.SimpleQueue[WorkerEvent | None] = queue.SimpleQueue()

    def tell(self, *events: WorkerEvent) -> None:
        """Answer the last task, by way of lines as a pipe carries them."""
        for event in events:
            received = unpack_event(pack_event(self.tasks[-1].attempt, event))
            assert received.event == event
            assert not received.problems
            self._events.put(event)

    def run(self, task: RunTask) -> Iterator[WorkerEvent]:
        if self._closed.is_set():
            raise self.death
        assert unpack_task(pack_task(task)).task == task
        self._events = queue.SimpleQueue()
        self.started = True
        script = self.script  # a test that sees the task may replace it for the next one
        self.tasks.append(task)
        script(self, task)
        while (event := self._events.get()) is not None:
            yield event
            if isinstance(event, Done | Stopped | Failed):
                return
        raise self.death

    def cancel(self, attempt: Attempt) -> None:
        self.cancels.append(attempt)

    def release(self) -> bool:
        started, self.started = self.started, False
        self.releases += started
        return started

    def check(self) -> WorkerDied | None:
        self.checks += 1
        death, self.idle_death = self.idle_death, None
        return death

    def kill(self) -> None:
        self.kills += 1
        self._events.put(None)

    def close(self) -> None:
        self._closed.set()
        self._events.put(None)
