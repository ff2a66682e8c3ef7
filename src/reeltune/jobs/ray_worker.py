"""A worker on a node of a Ray cluster, as the runner uses it. Ray itself runs in another process (`ray_driver`)."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator

from reeltune.errors import WorkerDied
from reeltune.events import FilesUsed
from reeltune.jobs.codec import pack_task, unpack_event
from reeltune.jobs.handle import WorkerPlace
from reeltune.jobs.job import Attempt
from reeltune.jobs.job_log import log
from reeltune.jobs.messages import CancelTask, Done, Failed, RunTask, Stopped, WorkerEvent
from reeltune.jobs.ray_lines import RayLine, RayNode

Send = Callable[[str, str, bytes], None]  # kind, worker, content; raises WorkerDied without a connection
_HINT = "Run it again: it can be made on any other worker."


class RayWorker:
    """A `WorkerHandle` for one actor. `send` sends a line to the process that is connected to the cluster.

    The actor is started for the first task. It ends when the program does, when its node leaves, or after being idle
    for a time, and the next task starts another one.
    """

    def __init__(self, node: RayNode, send: Send) -> None:
        self._node = node
        self._send = send
        self._guard = threading.Lock()
        self._lines: queue.SimpleQueue[RayLine | WorkerDied] = queue.SimpleQueue()
        self._attempt: Attempt | None = None  # that runs
        self._closed = False
        self._warm = False
        self._warm_files: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        """Its name among the workers of a runner."""
        return self._node.name

    @property
    def place(self) -> WorkerPlace:
        """Where it computes."""
        return WorkerPlace(self._node.device, self._node.node, self._node.memory or None)

    @property
    def warm_files(self) -> frozenset[str]:
        """Paths of the files whose weights it holds in memory, as they would be below this root."""
        return self._warm_files

    @property
    def running(self) -> bool:
        """Whether it runs a task."""
        return self._attempt is not None

    @property
    def used_bytes(self) -> int | None:
        """Memory that it uses: unknown, except that an actor which isn't started uses none."""
        return None if self._warm else 0

    def run(self, task: RunTask) -> Iterator[WorkerEvent]:
        """Run a task; see `WorkerHandle.run`."""
        with self._guard:
            if self._closed:
                raise WorkerDied("The worker was closed.")
            self._lines = queue.SimpleQueue()
            self._attempt = task.attempt
        try:
            self._send("run", self.name, pack_task(task))
            self._warm = True
            yield from self._events(task.attempt)
        finally:
            self._attempt = None

    def _events(self, attempt: Attempt) -> Iterator[WorkerEvent]:
        """The events of an attempt, up to its last. Raises WorkerDied."""
        while True:
            received = self._lines.get()
            if isinstance(received, WorkerDied):
                raise received
            if received.kind == "died":
                values = received.values
                if (values.get("job"), values.get("number")) == (attempt.job, attempt.number):
                    self._forget()
                    raise WorkerDied(str(values.get("message")), hint=str(values.get("hint")))
                continue
            event = self._event(received, attempt)
            if event is not None:
                yield event
            if isinstance(event, Done | Stopped | Failed):
                return

    def _event(self, line: RayLine, attempt: Attempt) -> WorkerEvent | None:
        """The event of a line; None for one of another attempt, or that can't be understood, which is logged."""
        received = unpack_event(line.content)
        for problem in received.problems:
            log.warning("The worker %s: %s", self.name, problem)
        if isinstance(received.event, FilesUsed):
            self._warm_files = frozenset(file.path for file in received.event.files)
        return received.event if received.attempt == attempt else None

    def cancel(self, attempt: Attempt) -> None:
        """Stop an attempt at its next step; see `WorkerHandle.cancel`."""
        self._try_to_send("cancel", pack_task(CancelTask(attempt)))

    def kill(self) -> None:
        """End the process of the node at once; the next task starts another one."""
        self._try_to_send("kill")

    def release(self) -> bool:
        """End the actor until the next task, so that its node may leave; returns whether there was one."""
        with self._guard:
            if self._attempt is not None or not self._warm:
                return False
            self._forget()
        self._try_to_send("end")
        return True

    def check(self) -> WorkerDied | None:
        """Why it has ended by itself since the last run: a lost node is reported by its cluster."""
        return None

    def close(self) -> None:
        """End it for good; see `WorkerHandle.close`."""
        with self._guard:
            self._closed = True
        self._try_to_send("kill")
        self._try_to_send("end")
        self._lines.put(WorkerDied("The program ends."))

    def _try_to_send(self, kind: str, content: bytes = b"") -> None:
        try:
            self._send(kind, self.name, content)
        except WorkerDied:  # the connection is gone, and with it the actor
            self._forget()

    # --- for the cluster --------------------------------------------------------------------------------------------

    def receive(self, line: RayLine) -> None:
        """A line about this worker."""
        if line.kind == "ended":
            self._forget()
        else:
            self._lines.put(line)

    def lose(self, reason: str) -> None:
        """The connection to the cluster is lost: what runs raises WorkerDied."""
        self._forget()
        self._lines.put(WorkerDied(reason, hint=_HINT))

    def _forget(self) -> None:
        self._warm = False
        self._warm_files = frozenset()
