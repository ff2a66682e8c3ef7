"""One worker of a Ray cluster, in the process that is connected to it: its actor, and the task that runs there.

An actor is never restarted by Ray (`max_restarts=0`) and a task never repeated (`max_task_retries=0`): whatever ends
one is reported, and the runner decides. The next task starts a new actor.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reeltune.errors import Cancelled, ReeltuneError, WorkerDied
from reeltune.events import Notice
from reeltune.jobs.codec import pack_event, pack_task, unpack_event
from reeltune.jobs.job import Attempt
from reeltune.jobs.messages import Done, Ending, Failed, RunTask, Stopped, WorkerEvent
from reeltune.jobs.ray_actor import RayActor
from reeltune.jobs.ray_lines import RayNode, told_death
from reeltune.jobs.ray_parcel import Returned, contents, pack
from reeltune.jobs.worker import is_shared

_LOOK_SECONDS = 0.5
_START_SECONDS = 300.0  # until an actor is there; other programs may use the cluster too
_PATIENCE_SECONDS = 5.0
_CONTROL = "control"  # group of the methods that are called while `run` runs
Answer = Callable[[str, str, bytes | dict[str, object]], None]


@dataclass(frozen=True)
class RaySite:
    """What all workers share. `root`: of the runner. `outputs`: the folder of videos, in place of the preference's.
    `folder`: the root of each node; empty for that of its environment.
    """

    root: Path
    outputs: Path | None
    folder: str


class RaySlot:
    """`node`: the worker as the runner knows it. `node_id`: Ray's own. `threads`: CPU threads of its process.

    `answer` sends a line to the runner. One task runs at a time, in a thread of its own.
    """

    def __init__(self, site: RaySite, node: RayNode, node_id: str, threads: int, answer: Answer) -> None:
        self.node = node
        self.node_id = node_id
        self.lost = False  # its node has left the cluster
        self._site = site
        self._threads = threads
        self._answer = answer
        self._guard = threading.Lock()
        self._actor: Any = None  # a Ray actor handle
        self._task: RunTask | None = None  # that runs
        self._cancelled: Attempt | None = None
        self._killed_at = 0.0  # when it was asked to end at once; 0 if it wasn't

    @property
    def running(self) -> bool:
        """Whether a task runs."""
        return self._task is not None

    # --- called by the thread that reads the runner's lines ---------------------------------------------------------

    def start(self, task: RunTask) -> None:
        """Run a task; how it ends is answered."""
        if self._task is not None:
            death = told_death(task.attempt, "The worker is busy.", "Run it again.")
            self._answer("died", self.node.name, death)
            return
        self._task = task
        self._killed_at = 0.0
        threading.Thread(target=self._run, args=(task,), name=f"ray-{self.node.name}", daemon=True).start()

    def cancel(self, attempt: Attempt) -> None:
        """Stop an attempt at its next step."""
        with self._guard:
            self._cancelled = attempt
            if self._actor is not None:
                self._control("cancel", attempt.job, attempt.number)

    def kill(self) -> None:
        """End what runs at once; where the node doesn't answer, the whole actor ends after some seconds."""
        with self._guard:
            self._killed_at = time.monotonic()
            if self._actor is not None:
                self._control("kill")

    def end_idle(self) -> None:
        """End the actor where it is idle, so that its node may be released."""
        with self._guard:
            actor = self._actor
            if actor is None or self._task is not None:
                return
            self._actor = None
        self._answer("ended", self.node.name, b"")
        threading.Thread(target=_end, args=(actor,), daemon=True).start()

    def _control(self, method: str, *arguments: object) -> None:
        with contextlib.suppress(Exception):  # an actor that is gone: whoever runs the task notices
            getattr(self._actor, method).options(concurrency_group=_CONTROL).remote(*arguments)

    # --- the task ---------------------------------------------------------------------------------------------------

    def _run(self, task: RunTask) -> None:
        kind: str
        content: bytes | dict[str, object]
        try:
            kind, content = "event", self._to_end(task)
        except WorkerDied as death:
            self._drop()
            kind, content = "died", told_death(task.attempt, death.message, death.hint)
        except Exception as error:  # the boundary of a task: the runner waits for its end
            traceback.print_exc()
            self._drop()
            words = f"The connection to {self.node.node} failed: {type(error).__name__}."
            kind, content = "died", told_death(task.attempt, words, "The terminal of the program shows more.")
        with self._guard:
            self._task = None  # before the answer: the next task may follow at once
        self._answer(kind, self.node.name, content)

    def _to_end(self, task: RunTask) -> bytes:
        """Run a task and answer its events, but the last, which is returned as a line. Raises WorkerDied."""
        ending: Ending
        try:
            for event in self._events(task):
                if isinstance(event, Done | Stopped | Failed):
                    return pack_event(task.attempt, event)
                self._answer("event", self.node.name, pack_event(task.attempt, event))
            raise WorkerDied(f"The worker on {self.node.node} ended without a result.", hint=_AGAIN)
        except WorkerDied:
            raise
        except Cancelled:  # before it began
            ending = Stopped()
        except ReeltuneError as error:
            ending = Failed(error.message, error.hint, is_shared(error))
        return pack_event(task.attempt, ending)

    def _events(self, task: RunTask) -> Iterator[WorkerEvent]:
        """The events of a task as this machine has them. Raises WorkerDied; ReeltuneError for failures on this side."""
        import ray

        parcel = pack(self._site.root, task, self._site.outputs)
        for notice in parcel.notices:
            yield Notice(notice)
        try:
            actor = self._started(task.attempt)
            places = self._answer_of(actor.places.remote(), _START_SECONDS)
            names = self._answer_of(actor.missing.remote(list(parcel.files.items())), _START_SECONDS)
            self._check_cancelled()
            line = pack_task(parcel.task)
            files = contents(parcel, names)
            stream = actor.run.options(num_returns="streaming").remote(
                line, dict(parcel.texts), dict(parcel.preferences), files, list(parcel.files)
            )
            del files
            returned = Returned(self._site.root, self._site.outputs, places, task.latents)
            yield from self._received(stream, returned)
        except ray.exceptions.RayError as error:
            raise self._death(error) from error

    def _received(self, stream: Any, returned: Returned) -> Iterator[WorkerEvent]:
        """The events of a stream, with their files written. Raises WorkerDied, RayError."""
        import ray

        while True:
            self._wait_for(stream)
            try:
                line, content = ray.get(next(stream))
            except StopIteration:
                return
            if not line:
                values = json.loads(content)
                raise WorkerDied(str(values["message"]), hint=str(values["hint"]))
            event = unpack_event(line).event
            if event is None:
                continue
            try:
                yield returned.stored(event, content)
            except ReeltuneError:  # a full disk, say: the worker must not go on with what nobody keeps
                self._drop()
                raise

    def _started(self, attempt: Attempt) -> Any:
        """The actor, which is started where there is none. Raises RayError, Cancelled."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        card = self.node.device == "cuda"
        with self._guard:
            if self._actor is None:
                actor_class = ray.remote(
                    num_gpus=1 if card else 0,
                    num_cpus=0 if card else 1,
                    max_restarts=0,
                    max_task_retries=0,
                    concurrency_groups={_CONTROL: 1},
                )(RayActor)
                strategy = NodeAffinitySchedulingStrategy(self.node_id, soft=False)
                self._actor = actor_class.options(scheduling_strategy=strategy).remote(
                    self.node.name, self._site.folder, self.node.device, self._threads
                )
            if self._cancelled == attempt:
                raise Cancelled("Stopped by request.")
            return self._actor

    def _answer_of(self, ref: Any, seconds: float) -> Any:
        """The answer of the actor, for which a cancel doesn't wait. Raises WorkerDied, RayError, Cancelled."""
        import ray

        self._wait_for(ref, time.monotonic() + seconds, cancels=True)
        return ray.get(ref)

    def _check_cancelled(self) -> None:
        with self._guard:
            if self._task is not None and self._cancelled == self._task.attempt:
                raise Cancelled("Stopped by request.")

    def _wait_for(self, ref: Any, end: float | None = None, *, cancels: bool = False) -> None:
        """Wait until something is there. Raises WorkerDied where the node is lost, or it takes too long."""
        import ray

        while not ray.wait([ref], timeout=_LOOK_SECONDS)[0]:
            now = time.monotonic()
            if self.lost:
                raise WorkerDied(f"The node {self.node.node} was lost.", hint=_AGAIN)
            if self._killed_at and now - self._killed_at > _PATIENCE_SECONDS:
                raise WorkerDied(f"The worker on {self.node.node} didn't answer and was ended.", hint=_AGAIN)
            if cancels:
                self._check_cancelled()
            if end is not None and now > end:
                message = f"The node {self.node.node} had no room for a worker for {_START_SECONDS:.0f} seconds."
                raise WorkerDied(message, hint="Check what else uses the cluster: `ray status`.")

    def _death(self, error: Exception) -> WorkerDied:
        """A failure of Ray in words."""
        import ray

        text = " ".join(str(error).split())
        node = self.node.node
        if isinstance(error, ray.exceptions.OutOfMemoryError) or "OutOfMemory" in text:
            return WorkerDied(f"The node {node} ran out of memory, and Ray ended the worker.", hint=_SMALLER)
        if isinstance(error, ray.exceptions.RayTaskError):
            traceback.print_exception(error)
            cause = type(error.cause).__name__ if error.cause is not None else "unknown"
            return WorkerDied(f"The worker on {node} failed: {cause}.", hint="The log of the program shows more.")
        lost = isinstance(error, ray.exceptions.NodeDiedError | ray.exceptions.ActorUnschedulableError)
        if self.lost or lost or "node has died" in text or "node is dead" in text:
            return WorkerDied(f"The node {node} was lost.", hint=_AGAIN)
        if isinstance(error, ray.exceptions.ActorUnavailableError):
            return WorkerDied(f"The node {node} can't be reached any more.", hint=_AGAIN)
        return WorkerDied(f"The worker on {node} ended unexpectedly ({type(error).__name__}).", hint=_AGAIN)

    def _drop(self) -> None:
        """Give up the actor, whatever it still does."""
        import ray

        with self._guard:
            actor, self._actor = self._actor, None
        if actor is not None:
            with contextlib.suppress(Exception):
                ray.kill(actor, no_restart=True)


def _end(actor: Any) -> None:
    """Let an actor clean up, then end it."""
    import ray

    with contextlib.suppress(Exception):
        ray.wait([actor.close.options(concurrency_group=_CONTROL).remote()], timeout=_PATIENCE_SECONDS)
    with contextlib.suppress(Exception):
        ray.kill(actor, no_restart=True)


_AGAIN = "Run it again: it can be made on any other worker."
_SMALLER = "Try a smaller resolution, fewer frames, or an int8 version of the model; then run it again."
