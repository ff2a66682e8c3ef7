"""One job as a value: what is to be made, how far it is, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from reeltune.families.values import Settings
from reeltune.untrusted import JsonObject


class State(StrEnum):
    """Where a job stands. `INTERRUPTED`: it was running when the program ended."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"


CHECKED = "checked"  # key of a job's `extra`: what a check found out about its settings, until they are edited
BATCH = "batch"  # key in `extra` of a job that belongs to an unfinished batch; never exported or imported
ENDED = frozenset({State.DONE, State.FAILED, State.CANCELLED, State.INTERRUPTED})  # states to try it again from


@dataclass(frozen=True, order=True)
class Attempt:
    """One try of a job; `number` counts them from 1. What comes late for one of them never counts for the next."""

    job: int
    number: int


@dataclass(frozen=True)
class WaitingJob:
    """What decides when a waiting job runs, and where.

    `loras`: those of its settings; None where it has those of its definition. `position`: in the user's order.
    `created`: in seconds since 1970.
    """

    id: int
    definition: str
    loras: tuple[str, ...] | None
    position: int
    created: float


@dataclass(frozen=True)
class Job:
    """A job of the queue.

    `settings` as they were added: what they leave out comes from the definition when the job runs. `position` orders
    the waiting ones. Times in seconds since 1970, 0 while it hasn't happened. `progress`: words on how far it came.
    `error`: what went wrong and why; `hint`: the next step. `outputs`: the videos made. `latents`: the file with those
    of the next one, where it was denoised and not written. `notices`: what the user should know of it. `extra`: fields
    of an imported job that this version doesn't know. `attempts`: how often it was begun. `worker`: the name of the
    worker that runs it, or ran it last. `lease`: until when that worker may keep it, unless it renews this time.
    `deaths`: how many workers in a row have died while they ran it.
    `confined`: whether it may use no files outside the root, the folder of videos and the model folders. `damaged`:
    whether its row in the queue's file can't be read as a job, so that it can only be removed.
    """

    id: int
    definition: str
    settings: Settings
    state: State
    position: int
    created: float
    started: float = 0.0
    finished: float = 0.0
    progress: str = ""
    error: str = ""
    hint: str = ""
    outputs: tuple[str, ...] = ()
    latents: str = ""
    notices: tuple[str, ...] = ()
    extra: JsonObject = field(default_factory=dict)
    attempts: int = 0
    worker: str = ""
    lease: float = 0.0
    deaths: int = 0
    confined: bool = False
    damaged: bool = False

    @property
    def attempt(self) -> Attempt:
        """The try that runs, or the last one."""
        return Attempt(self.id, self.attempts)

    @property
    def prompt(self) -> str:
        """Its prompt, as it was given."""
        return str(self.settings.get("prompt", ""))

    @property
    def seconds(self) -> float:
        """How long it took; 0 while it hasn't ended, never less."""
        return max(0.0, self.finished - self.started) if self.started else 0.0

    @property
    def resumable(self) -> bool:
        """Whether a new try goes on where this one ended: what is made already stays as it is."""
        if self.state is State.INTERRUPTED or (self.state is State.FAILED and self.outputs):
            return True
        return self.state in ENDED and bool(self.latents)

    @property
    def waiting(self) -> bool:
        """Whether it may still be moved and edited."""
        return self.state is State.QUEUED
