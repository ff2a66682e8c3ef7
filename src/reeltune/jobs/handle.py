"""What the runner needs of a worker, whatever it is: a process here, or a process on another machine.

A new kind of worker is one class with these members; nothing else of the program changes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from reeltune.jobs.job import Attempt
from reeltune.jobs.messages import RunTask, WorkerEvent


@dataclass(frozen=True)
class WorkerPlace:
    """Where a worker computes.

    `device`: as users write it, such as "cuda:1" or "cpu"; empty if unknown. `node`: the name of its machine.
    `memory_bytes`: memory of the device; None if unknown.
    """

    device: str = ""
    node: str = ""
    memory_bytes: int | None = None


class WorkerHandle(Protocol):
    """A worker as the runner uses it: `run` from one thread, everything else from any.

    The worker is started when it is first needed, and again after it has died.
    """

    @property
    def name(self) -> str:
        """Its name among the workers of a runner, the same each time the program starts."""

    @property
    def warm_files(self) -> frozenset[str]:
        """Paths of the files whose weights it holds in memory."""

    def run(self, task: RunTask) -> Iterator[WorkerEvent]:
        """Run a task: the events of this attempt and of no other, the last one `Done`, `Stopped` or `Failed`.

        Raises WorkerDied where the worker can't be started, ends, or is ended.
        """

    def cancel(self, attempt: Attempt) -> None:
        """Stop an attempt at its next step, also where `run` is only about to begin; never waits for the worker."""

    def kill(self) -> None:
        """End what it runs at once: `run` raises WorkerDied."""

    def close(self) -> None:
        """End it for good, and release what belongs to it: `run` raises WorkerDied, now and later."""
