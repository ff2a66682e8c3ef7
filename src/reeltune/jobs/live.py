"""What a running job is doing now, and how it ended."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace

from reeltune.events import Batch, FilesUsed, LatentsStored, Notice, Planned, Preview, Progress
from reeltune.jobs.job import Job, State
from reeltune.jobs.messages import Saved, WorkerEvent
from reeltune.jobs.speed import StageSpeed, advance

_MOST_NOTICES = 100


@dataclass(frozen=True)
class Live:
    """What a running job is doing now: the last event of each kind. `denoised`: the last progress of the denoising of
    this video, whatever stage has come since; `speed`: how fast the stage advances; `cancelling`: it was asked to stop;
    `attempt`: which try of the job it is; `worker`: the name of the worker that runs it.

    `since` in seconds since 1970, by the clock; `seconds` counts however the clock is set.
    """

    job: int
    since: float
    progress: Progress | None = None
    denoised: Progress | None = None
    speed: StageSpeed | None = None
    batch: Batch | None = None
    planned: Planned | None = None
    using: FilesUsed | None = None
    preview: Preview | None = None
    notices: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    latents: str = ""
    cancelling: bool = False
    attempt: int = 0
    worker: str = ""
    began: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """How long it has been running."""
        return time.monotonic() - self.began

    def after(self, event: WorkerEvent) -> Live:
        """The same after one more event."""
        match event:
            case Progress():
                denoised = event if event.stage == "denoise" else self.denoised
                speed = advance(self.speed, event, time.monotonic())
                return replace(self, progress=event, denoised=denoised, speed=speed)
            case Batch():
                return replace(self, batch=event, denoised=None, preview=None)
            case Planned():
                return replace(self, planned=event)
            case FilesUsed():
                return replace(self, using=event)
            case Preview():
                return replace(self, preview=event)
            case LatentsStored(path=path):
                return replace(self, latents=path)
            case Saved(path=path):  # its latents aren't needed any more
                return replace(self, outputs=(*self.outputs, path), latents="")
            case Notice(message=text) if text not in self.notices and len(self.notices) < _MOST_NOTICES:
                return replace(self, notices=(*self.notices, text))
        return self


@dataclass(frozen=True)
class Outcome:
    """How a try of a job ended. `state`: `QUEUED` where its worker died and it is tried once more. `shared`: whether
    every other job would fail in the same way.
    """

    job: Job
    state: State
    error: str = ""
    hint: str = ""
    shared: bool = False
    outputs: tuple[str, ...] = ()
    latents: str = ""
    notices: tuple[str, ...] = ()
