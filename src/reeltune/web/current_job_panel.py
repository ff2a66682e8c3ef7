"""The running job as HTML, with its preview and remaining time; if there is none, the job that ended last."""

from __future__ import annotations

import base64

from reeltune._text import counted, duration, shortened
from reeltune.errors import QueuePaused, ReeltuneError
from reeltune.jobs import Job, State
from reeltune.service.current_job import RunningJob, current_job
from reeltune.service.gallery import sound_of
from reeltune.service.labels import loras_in_words
from reeltune.service.queue_view import JobAction, videos_of
from reeltune.service.workspace import Workspace
from reeltune.web.markup import button, calm, hint, notices_list, problem, prompt_text, text, video

_EMPTY = "Your video appears here."
_MAX_VIDEOS = 4  # of one job
_MAX_WEIGHTS = 100  # characters


def current_job_panel(workspace: Workspace, jobs: list[Job]) -> str:
    """The running job, the last job, or an invitation to make a video."""
    current = current_job(workspace, jobs)
    html = _problem(current.problem) if current.problem is not None else ""
    if current.waits:
        html += f'<div class="rt-line"><span></span>{button(JobAction.RESUME_QUEUE, "Continue now")}</div>'
    if current.running is not None:
        return html + _running(current.running)
    if current.last is not None:
        return html + _ended(workspace, current.last)
    return html + _stage(_EMPTY)


def _problem(error: ReeltuneError) -> str:
    """What stops every job. That the user has paused the queue is no fault."""
    return calm(error.message, error.hint) if isinstance(error, QueuePaused) else problem(error)


def _running(running: RunningJob) -> str:
    status = text(running.status)
    if running.preview is not None:
        data = base64.b64encode(running.preview).decode("ascii")
        picture = f'<img alt="Preview of the video" src="data:image/webp;base64,{data}">'
    else:
        picture = f"{status} …"
    value = "" if running.fraction is None else f' value="{running.fraction:.3f}"'
    cancel = button(
        JobAction.CANCEL, "Stop now" if running.cancelling else "Cancel", kind="rt-stop", job=running.job.id
    )
    number = f"<b>Video {running.video[0]} of {running.video[1]}</b> " if running.video is not None else ""
    return (
        f'<div class="rt-stage rt-live">{picture}</div>'
        f'<progress max="1"{value} aria-label="{status}"></progress>'
        f'<div class="rt-line"><span class="rt-words">{number}{status}</span>{cancel}</div>'
        f'<p class="rt-time">{text(" · ".join(running.timing))}</p>'
        f"{_prompt(running.job)}{notices_list(running.notices)}"
    )


def _ended(workspace: Workspace, job: Job) -> str:
    if job.state is State.DONE:
        return _done(workspace, job)
    again = button(JobAction.RUN_AGAIN, "Resume" if job.resumable else "Run again", job=job.id)
    outcome = _stage("Cancelled.") if job.state is State.CANCELLED else problem(job.error, job.hint)
    return f'{outcome}<div class="rt-line"><span></span>{again}</div>{_prompt(job)}'


def _done(workspace: Workspace, job: Job) -> str:
    paths = videos_of(workspace, job)[-_MAX_VIDEOS:]
    players = (video(path, sound=sound_of(path) is not None) for path in paths)
    videos = "".join(f'<div class="rt-stage">{player}</div>' for player in players)
    reuse = button(JobAction.REUSE, "Use these settings", job=job.id)
    line = f'<div class="rt-line"><span>Made in {duration(job.seconds)}.</span>{reuse}</div>'
    return f"{videos or _stage('The video was moved or deleted.')}{line}{_prompt(job)}{_notices(job)}"


def _notices(job: Job) -> str:
    """The notices of a job that ended, folded away because they were shown while it ran."""
    notices = notices_list(job.notices)
    if not notices:
        return ""
    return f'<details data-key="notes"><summary>{counted(len(job.notices), "notice")}</summary>{notices}</details>'


def _stage(message: str) -> str:
    return f'<div class="rt-stage rt-empty">{text(message)}</div>'


def _prompt(job: Job) -> str:
    """The prompt of a job, and its LoRAs with their weights."""
    loras = loras_in_words(job.settings)
    weights = str(job.settings.get("loras_multipliers") or "")
    words = f"LoRAs: {loras}" + (f" · weights {shortened(weights, _MAX_WEIGHTS)}" if weights else "")
    return f'<p class="rt-prompt">{prompt_text(job.prompt)}</p>' + (hint(words) if loras else "")
