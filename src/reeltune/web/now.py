"""The job that runs now with its preview and its remaining time, or the last one that ended."""

from __future__ import annotations

import base64
import time
from pathlib import Path

from reeltune._text import counted, duration, size
from reeltune.events import Progress
from reeltune.jobs import Job, Live, State
from reeltune.jobs.speed import StageSpeed
from reeltune.service.studio import Studio
from reeltune.web.markup import button, notes, problem, prompt_text, text, video

_STAGES = {
    "prepare": "Getting ready",
    "download": "Downloading",
    "verify": "Checking",
    "quantize": "Quantizing",
    "load": "Loading",
    "encode": "Encoding the prompt",
    "denoise": "Denoising",
    "decode": "Decoding the video",
    "write": "Writing the video",
}
_EMPTY = "Your video appears here."
_MOST_SHOWN = 4  # videos of one job


def panel(studio: Studio, jobs: list[Job]) -> str:
    """The running job with its preview; else the last one that ended; else an invitation."""
    trouble = studio.runner.trouble
    live = next(iter(studio.runner.running()), None)
    shown = problem(trouble) if trouble is not None else ""
    if studio.runner.paused:
        shown += f'<div class="rt-line"><span></span>{button("resume", "Continue now")}</div>'
    running = next((job for job in jobs if live is not None and job.id == live.job), None)
    if live is not None and running is not None:
        return shown + _running(running, live)
    last = next((job for job in jobs if job.state not in (State.QUEUED, State.RUNNING)), None)
    return shown + (_ended(studio, last) if last is not None else _stage(_EMPTY))


def _running(job: Job, live: Live) -> str:
    words, share = how_far(live.progress)
    if live.preview is not None:
        data = base64.b64encode(live.preview.image).decode("ascii")
        picture = f'<img alt="The video as it looks so far" src="data:image/webp;base64,{data}">'
    else:
        picture = f"{text(words)} …"
    value = "" if share is None else f' value="{share:.3f}"'
    stop = "Stop now" if live.cancelling else "Cancel"
    lines = [_planned(live), *live.notices]
    return (
        f'<div class="rt-stage rt-live">{picture}</div>'
        f'<progress max="1"{value} aria-label="{text(words)}"></progress>'
        f'<div class="rt-line"><span class="rt-words">{_which(live)}{text(words)}</span>'
        f"{button('cancel', stop, kind='rt-stop', job=job.id)}</div>"
        f'<p class="rt-time">{text(_times(live))}</p>'
        f'<p class="rt-prompt">{prompt_text(job.prompt)}</p>' + notes(row for row in lines if row)
    )


def _which(live: Live) -> str:
    """Which video of several it is."""
    return f"<b>Video {live.batch.number} of {live.batch.total}</b> " if live.batch is not None else ""


def _times(live: Live) -> str:
    """Time since the start, speed and remaining time, as far as they are known."""
    parts = [f"{_clock(live.seconds)} so far"]
    if live.progress is not None and live.speed is not None:
        parts += speed_words(live.progress, live.speed, time.monotonic())
    if live.cancelling:
        parts = ["It stops after this step."]
    return " · ".join(parts)


def speed_words(progress: Progress, speed: StageSpeed, now: float) -> list[str]:
    """Speed of what is measured in bytes, and the time that is left of this stage."""
    parts = []
    if progress.unit == "bytes" and speed.rate is not None:
        parts.append(f"{size(round(speed.rate))}/s")
    left = speed.seconds_left(progress.total, now)
    if left is not None and progress.done != progress.total:
        parts.append(f"about {duration(left)} left")
    return parts


def _planned(live: Live) -> str:
    """What is about to be downloaded, as a whole."""
    if live.planned is None:
        return ""
    files = counted(len(live.planned.files), "file")
    return f"{size(live.planned.to_fetch)} to download in {files}; {size(live.planned.free)} free on this disk."


def how_far(progress: Progress | None) -> tuple[str, float | None]:
    """A stage in words, and the share of it that is done, None while nobody knows."""
    if progress is None:
        return "Starting", None
    words = _STAGES.get(progress.stage, progress.stage.capitalize())
    share = min(1.0, progress.done / progress.total) if progress.total else None
    if progress.stage == "denoise":
        return f"{words}: step {progress.done} of {progress.total}", share
    if progress.unit == "bytes":
        amount = f"{size(progress.done)} of {size(progress.total)}" if progress.total else size(progress.done)
        return f"{words} {progress.subject}: {amount}", share
    return f"{words} {progress.subject}".strip(), share if progress.total != 1 else None


def _clock(seconds: float) -> str:
    minutes, rest = divmod(max(0, int(seconds)), 60)
    return f"{minutes}:{rest:02d}"


def _ended(studio: Studio, job: Job) -> str:
    if job.state is State.DONE:
        return _done(studio, job)
    again = button("again", "Resume" if job.resumable else "Run again", job=job.id)
    shown = _stage("Cancelled.") if job.state is State.CANCELLED else problem(job.error, job.hint)
    return f'{shown}<div class="rt-line"><span></span>{again}</div>{_caption(job)}'


def _done(studio: Studio, job: Job) -> str:
    films = films_of(studio, job)[-_MOST_SHOWN:]
    shown = "".join(f'<div class="rt-stage">{video(path)}</div>' for path in films)
    took = f"Made in {duration(job.seconds)}."
    again = button("reuse", "Use these settings", job=job.id)
    line = f'<div class="rt-line"><span>{took}</span>{again}</div>'
    return f"{shown or _stage('The video was moved or deleted.')}{line}{_caption(job)}{_folded(job)}"


def _folded(job: Job) -> str:
    """What was noted of a job, folded away: it was shown while the job ran."""
    rows = notes(job.notices)
    summary = counted(len(job.notices), "note")
    return f'<details data-key="notes"><summary>{summary}</summary>{rows}</details>' if rows else ""


def films_of(studio: Studio, job: Job) -> list[Path]:
    """The videos a job has made that are still there."""
    return [path for name in job.outputs if (path := studio.confined(name)) is not None and path.is_file()]


def _stage(words: str) -> str:
    return f'<div class="rt-stage rt-empty">{text(words)}</div>'


def _caption(job: Job) -> str:
    return f'<p class="rt-prompt">{prompt_text(job.prompt)}</p>'
