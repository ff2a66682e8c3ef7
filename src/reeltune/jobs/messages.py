"""The messages between the runner and a worker: what a worker is asked to do, and what it reports.

A worker gets tasks and answers with events: those of `reeltune.events`, and the ones below. The last event of an
attempt is a `Done`, `Stopped` or `Failed`. `reeltune.jobs.codec` writes them as lines of JSON, for workers in another
process.
"""

from __future__ import annotations

from dataclasses import dataclass

from reeltune.events import Event
from reeltune.families.values import Settings
from reeltune.jobs.job import Attempt


@dataclass(frozen=True)
class RunTask:
    """Run a job.

    `settings`: as the job has them. `made`: how many of its videos earlier attempts have made. `latents`: the file with
    the latents of the next one; empty where there is none. `confined`: see `Job`.
    """

    attempt: Attempt
    definition: str
    settings: Settings
    made: int = 0
    latents: str = ""
    confined: bool = False


@dataclass(frozen=True)
class CancelTask:
    """Stop an attempt at its next step; nothing happens where it has ended."""

    attempt: Attempt


Task = RunTask | CancelTask


@dataclass(frozen=True)
class Ready:
    """The worker waits for tasks. `version`: of the program it runs."""

    version: str = ""


@dataclass(frozen=True)
class Saved:
    """A video was written to the file `path`."""

    path: str


@dataclass(frozen=True)
class Done:
    """All videos of the job are made."""


@dataclass(frozen=True)
class Stopped:
    """The attempt was cancelled, as asked."""


@dataclass(frozen=True)
class Failed:
    """The attempt failed. `error`: what went wrong and why; `hint`: the next step. `shared`: whether every other job
    would fail in the same way.
    """

    error: str = ""
    hint: str = ""
    shared: bool = False


Ending = Done | Stopped | Failed
WorkerEvent = Event | Ready | Saved | Ending
