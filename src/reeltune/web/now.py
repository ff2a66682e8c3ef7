"""What is being made right now, and the last video that was."""

from __future__ import annotations

import base64
from pathlib import Path

from reeltune._text import size
from reeltune.events import Progress
from reeltune.jobs import Job, Live, State
from reeltune.web.markup import button, notes, problem, text, video
from reeltune.web.studio import Studio

_STAGES = {
    "prepare": "Getting ready",
    "download": "Fetching",
    "verify": "Checking",
    "load": "Loading",
    "encode": "Reading the prompt",
    "denoise": "Denoising",
    "decode": "Decoding",
    "write": "Writing",
}
_EMPTY = "Your video appears here."


def panel(studio: Studio, jobs: list[Job]) -> str:
    """The running job with its preview; else the last one that ended; else an invitation."""
    live = studio.runner.live
    trouble = studio.runner.trouble
    told = problem(trouble) if trouble is not None else ""
    if studio.runner.paused:
        told += f'<div class="rt-line"><span></span>{button("resume", "Continue now")}</div>'
    running = next((job for job in jobs if live is not None and job.id == live.job), None)
    if live is not None and running is not None:
        return told + _running(running, live)
    last = next((job for job in jobs if job.state not in (State.QUEUED, State.RUNNING)), None)
    return told + (_ended(studio, last) if last is not None else f'<div class="rt-stage rt-empty">{_EMPTY}</div>')


def _running(job: Job, live: Live) -> str:
    words, share = how_far(live.progress)
    picture = _EMPTY if live.progress is None else f"{text(words)} …"
    if live.preview is not None:
        data = base64.b64encode(live.preview.image).decode("ascii")
        picture = f'<img alt="The video as it looks so far" src="data:image/webp;base64,{data}">'
    value = "" if share is None else f' value="{share:.3f}"'
    stop = "Stop now" if live.cancelling else "Cancel"
    stopping = "<span>It stops after this step.</span>" if live.cancelling else ""
    return (
        f'<div class="rt-stage rt-live">{picture}</div>'
        f'<progress max="1"{value} aria-label="{text(words)}"></progress>'
        f'<div class="rt-line"><span class="rt-words">{text(words)}</span>'
        f'<span class="rt-time">{_clock(live.seconds)}</span>{stopping}'
        f"{button('cancel', stop, kind='rt-stop', job=job.id)}</div>"
        f'<p class="rt-prompt">{text(job.prompt)}</p>' + notes([*_planned(live), *live.notices])
    )


def _planned(live: Live) -> list[str]:
    """What is about to be fetched, as a whole."""
    if live.planned is None:
        return []
    to_fetch, files = size(live.planned.to_fetch), len(live.planned.files)
    return [f"To fetch: {to_fetch} in {files} files; {size(live.planned.free)} free on the disk."]


def how_far(progress: Progress | None) -> tuple[str, float | None]:
    """A stage in words, and the share of it that is done, None while nobody knows."""
    if progress is None:
        return "Starting the worker", None
    words = _STAGES.get(progress.stage, progress.stage.capitalize())
    share = progress.done / progress.total if progress.total else None
    if progress.stage == "denoise":
        return f"{words}: step {progress.done} of {progress.total}", share
    if progress.unit == "bytes":
        return f"{words} {progress.subject}: {size(progress.done)} of {size(progress.total)}", share
    return f"{words} {progress.subject}".strip(), share if progress.total != 1 else None


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}:{rest:02d}"


def _ended(studio: Studio, job: Job) -> str:
    if job.state is State.DONE:
        films = [Path(name) for name in job.outputs if studio.confined(name) and Path(name).is_file()]
        shown = "".join(f'<div class="rt-stage">{video(path)}</div>' for path in films[-4:]) or _stage(
            "Made, and moved."
        )
        took = f"Made in {_clock(job.seconds)}."
        again = button("reuse", "Use these settings", job=job.id)
        return f'{shown}<div class="rt-line"><span>{took}</span>{again}</div>{_caption(job)}{notes(job.notices)}'
    again = button("again", "Resume" if job.resumable else "Run again", job=job.id)
    if job.state is State.CANCELLED:
        return f'{_stage("Cancelled.")}<div class="rt-line"><span></span>{again}</div>{_caption(job)}'
    return problem(job.error, job.hint) + f'<div class="rt-line"><span></span>{again}</div>{_caption(job)}'


def _stage(words: str) -> str:
    return f'<div class="rt-stage rt-empty">{text(words)}</div>'


def _caption(job: Job) -> str:
    return f'<p class="rt-prompt">{text(job.prompt)}</p>'
