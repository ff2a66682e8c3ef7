"""How a try of a job ended: stored in the queue, and in words."""

from __future__ import annotations

from reeltune._text import counted
from reeltune.errors import WorkerDied
from reeltune.jobs.job import State
from reeltune.jobs.live import Live, Outcome
from reeltune.jobs.queue import Queue


def store_outcome(queue: Queue, outcome: Outcome) -> bool:
    """Store how a try ended; returns whether it counts (see `Queue.finish`). Raises QueueError."""
    job = outcome.job
    queue.restore(job)
    if outcome.state is State.QUEUED:
        return queue.try_again(
            job.attempt,
            outputs=outcome.outputs,
            latents=outcome.latents,
            notices=outcome.notices,
            deaths=job.deaths + 1,
        )
    return queue.finish(
        job.attempt,
        outcome.state,
        error=outcome.error,
        hint=outcome.hint,
        outputs=outcome.outputs,
        latents=outcome.latents,
        notices=outcome.notices,
    )


def tried_again(death: WorkerDied, live: Live | None) -> str:
    """What the user reads of a job that is tried once more."""
    made = len(live.outputs) if live is not None else 0
    if live is not None and live.latents:
        kept = "It continues with the latents that were stored."
    elif made:
        kept = f"It continues after the {counted(made, 'video')} that it has made."
    else:
        kept = "It begins again."
    return f"{death.message} The job is tried once more. {kept}"


def how_far(live: Live | None) -> str:
    """How far a running job is."""
    progress = live.progress if live is not None else None
    if progress is None:
        return ""
    return f"{progress.stage} {progress.done}" + (f" of {progress.total}" if progress.total else "")
