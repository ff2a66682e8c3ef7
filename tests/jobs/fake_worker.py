"""A worker that does what a script says, in the runner's own process: no torch, no waiting."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from typing import Any

from reeltune.errors import WorkerDied
from reeltune.jobs import wire
from reeltune.jobs.process import WorkerProcess

Script = Callable[["FakeWorker", dict[str, Any]], None]


class FakeWorker(WorkerProcess):
    """`script(worker, request)` is called for each request, and answers with `worker.tell(event=…)`."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.requests: list[dict[str, Any]] = []
        self.cancels: list[dict[str, Any]] = []
        self.dead = False
        self._messages: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()

    @property
    def pid(self) -> int:
        return 1

    @property
    def alive(self) -> bool:
        return not self.dead

    def tell(self, **message: Any) -> None:
        """Answer the last request, by way of a line as a pipe carries it."""
        request = self.requests[-1]
        values = {"job": request["job"], "attempt": request["attempt"]} | message
        self._messages.put(wire.parse(wire.line(values)))

    def send(self, **message: Any) -> None:
        message = wire.parse(wire.line(message))
        if message["do"] == "cancel":
            self.cancels.append(message)
            return
        self.requests.append(message)
        self.script(self, message)

    def events(self) -> Iterator[dict[str, Any]]:
        while not self.dead and (message := self._messages.get()) is not None:
            yield message

    def death(self) -> WorkerDied:
        return WorkerDied("The worker process was killed.", hint="Again.")

    def kill(self) -> None:
        self.dead = True
        self._messages.put(None)

    def close(self) -> None:
        self.kill()
