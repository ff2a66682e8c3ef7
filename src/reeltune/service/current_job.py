"""The job that is running, or the one that ended last, as values: its stage, progress, speed and remaining time."""

from __future__ import annotations

import time
from dataclasses import dataclass

from reeltune._text import counted, duration, size
from reeltune.errors import ReeltuneError
from reeltune.events import Progress
from reeltune.jobs import Job, Live, State
from reeltune.jobs.speed import StageSpeed
from reeltune.service.workspace import Workspace

_STAGES = {
    "prepare": "Preparing",
    "download": "Downloading",
    "verify": "Verifying",
    "quantize": "Quantizing",
    "load": "Loading",
    "encode": "Encoding the prompt",
    "denoise": "Denoising",
    "decode": "Decoding the video",
    "write": "Writing the video",
}


@dataclass(frozen=True)
class RunningJob:
    """A job that is running.

    `status`: its stage in words. `fraction`: how much of the stage is done, None if unknown. `timing`: elapsed time,
    speed and remaining time in words, as far as they are known. `video`: number of the current video and of all
    videos, if there are several. `preview`: a WebP image of the unfinished video. `notices`: what the user should know.
    """

    job: Job
    status: str
    fraction: float | None
    timing: tuple[str, ...]
    video: tuple[int, int] | None
    preview: bytes | None
    cancelling: bool
    notices: tuple[str, ...]


@dataclass(frozen=True)
class CurrentJob:
    """What the runner is doing: the `running` job or, if there is none, the `last` one that ended.

    `problem`: what stops every job. `waits`: whether the runner continues by itself after a pause because of it.
    """

    running: RunningJob | None = None
    last: Job | None = None
    problem: ReeltuneError | None = None
    waits: bool = False


def current_job(workspace: Workspace, jobs: list[Job]) -> CurrentJob:
    """The current job among all jobs of the queue."""
    runner = workspace.runner
    live = next(iter(runner.running()), None)
    waits = runner.paused and not workspace.queue.paused
    running = next((job for job in jobs if live is not None and job.id == live.job), None)
    if live is not None and running is not None:
        return CurrentJob(_running_job(running, live), None, runner.trouble, waits)
    last = next((job for job in jobs if job.state not in (State.QUEUED, State.RUNNING)), None)
    return CurrentJob(None, last, runner.trouble, waits)


def _running_job(job: Job, live: Live) -> RunningJob:
    status, fraction = progress_in_words(live.progress)
    download = [_download_in_words(live)] if live.planned is not None else []
    return RunningJob(
        job=job,
        status=status,
        fraction=fraction,
        timing=_timing(live),
        video=(live.batch.number, live.batch.total) if live.batch is not None else None,
        preview=live.preview.image if live.preview is not None else None,
        cancelling=live.cancelling,
        notices=(*download, *live.notices),
    )


def progress_in_words(progress: Progress | None) -> tuple[str, float | None]:
    """A stage in words, and the fraction of it that is done; None where that is unknown."""
    if progress is None:
        return "Starting", None
    stage = _STAGES.get(progress.stage, progress.stage.capitalize())
    fraction = min(1.0, progress.done / progress.total) if progress.total else None
    if progress.stage == "denoise":
        return f"{stage}: step {progress.done} of {progress.total}", fraction
    if progress.unit == "bytes":
        amount = f"{size(progress.done)} of {size(progress.total)}" if progress.total else size(progress.done)
        return f"{stage} {progress.subject}: {amount}", fraction
    if progress.total == 1:  # one indivisible step, which takes a while
        fraction = None
    return f"{stage} {progress.subject}".strip(), fraction


def _timing(live: Live) -> tuple[str, ...]:
    if live.cancelling:
        return ("Stops after the current step.",)
    elapsed = f"{_clock(live.seconds)} so far"
    if live.progress is None or live.speed is None:
        return (elapsed,)
    return elapsed, *speed_in_words(live.progress, live.speed, time.monotonic())


def speed_in_words(progress: Progress, speed: StageSpeed, now: float) -> list[str]:
    """The speed of a transfer, and the remaining time of the stage, as far as they are known."""
    words = []
    if progress.unit == "bytes" and speed.rate is not None:
        words.append(f"{size(round(speed.rate))}/s")
    remaining = speed.seconds_left(progress.total, now)
    if remaining is not None and progress.done != progress.total:
        words.append(f"about {duration(remaining)} left")
    return words


def _download_in_words(live: Live) -> str:
    """The whole download of a job."""
    if live.planned is None:
        return ""
    files = counted(len(live.planned.files), "file")
    return f"{size(live.planned.to_fetch)} to download in {files}; {size(live.planned.free)} free on this disk."


def _clock(seconds: float) -> str:
    minutes, remaining_seconds = divmod(max(0, int(seconds)), 60)
    return f"{minutes}:{remaining_seconds:02d}"
