"""The queue as HTML: every job with buttons for what can be done with it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from reeltune._text import counted, shortened
from reeltune.jobs import Job, State
from reeltune.service.labels import loras_in_words
from reeltune.service.queue_view import JobAction, JobView, queue_view, videos_of
from reeltune.service.workers import where_jobs_are
from reeltune.service.workspace import Workspace
from reeltune.web.markup import button, hint, problem, text, video

_MAX_SHOWN = 60
_MAX_CHARACTERS = 300  # of a prompt, or of a model's id
_EMPTY = hint("No jobs are waiting. Jobs run one after the other.")
_STATES = {
    State.DONE: "done",
    State.FAILED: "failed",
    State.CANCELLED: "cancelled",
    State.INTERRUPTED: "interrupted",
    State.RUNNING: "running",
}
_LABELS = {
    JobAction.MOVE_UP: ("↑", "Move up"),
    JobAction.MOVE_DOWN: ("↓", "Move down"),
    JobAction.EDIT: ("Edit", ""),
    JobAction.REUSE: ("Use settings", ""),
    JobAction.RUN_AGAIN: ("Run again", ""),
    JobAction.CANCEL: ("Cancel", ""),
    JobAction.REMOVE: ("Remove", "Remove job {id}"),
}


def queue_panel(workspace: Workspace, jobs: list[Job]) -> str:
    """The jobs that are running, waiting or interrupted; those that ended are folded away."""
    view = queue_view(jobs, where_jobs_are(workspace, jobs))
    items = (_active_item(job_view) for job_view in view.active[:_MAX_SHOWN])
    active = _list(items, len(view.active)) if view.active else _EMPTY
    export = button("export", "Export", title="Save the waiting jobs to a file") if view.waiting else ""
    tools = f'<div class="rt-tools">{_pause_button(workspace.queue.paused)}{export}</div>'
    return f"{active}{tools}{_finished(workspace, view.finished, view.failed)}"


def _pause_button(paused: bool) -> str:
    """The button that pauses the queue or ends the user's pause."""
    if paused:
        return button(JobAction.RESUME_QUEUE, "Resume the queue", key="pause")
    return button(JobAction.PAUSE_QUEUE, "Pause the queue", key="pause")


def _list(items: Iterable[str], count: int) -> str:
    hidden = count - _MAX_SHOWN
    more = hint(f"and {hidden:,} more") if hidden > 0 else ""
    return f'<ol class="rt-jobs">{"".join(items)}</ol>{more}'


def _active_item(view: JobView) -> str:
    job = view.job
    state = f"{view.place}." if view.place is not None else _STATES[job.state]
    return (
        f'<li class="rt-job rt-{job.state}" data-job="{job.id}"><div class="rt-line">'
        f'<span class="rt-place">{state}</span>{_prompt(job)}<span class="rt-model-id">{_model(job)}</span>'
        f"</div>{_where(view)}{_error(job)}{_buttons(view)}</li>"
    )


def _where(view: JobView) -> str:
    """Why a job waits, or where it runs."""
    return f'<p class="rt-hint rt-where">{text(view.where)}</p>' if view.where else ""


def _finished(workspace: Workspace, views: Sequence[JobView], failed: int) -> str:
    """The jobs that ended, folded away behind a line with their number."""
    if not views:
        return ""
    items = (_finished_item(workspace, view) for view in views[:_MAX_SHOWN])
    failures = f' · <span class="rt-bad">{failed:,} failed</span>' if failed else ""
    clear = button(JobAction.CLEAR_FINISHED, "Clear the list", title="Remove these jobs; their videos are not deleted")
    return (
        f'<details class="rt-ended" data-key="ended"><summary>{counted(len(views), "earlier job")}{failures}</summary>'
        f'{_list(items, len(views))}<div class="rt-tools">{clear}</div></details>'
    )


def _finished_item(workspace: Workspace, view: JobView) -> str:
    job = view.job
    videos = videos_of(workspace, job)
    thumbnail = video(videos[-1], poster=True) if videos else ""
    return (
        f'<li class="rt-job rt-past rt-{job.state}" data-job="{job.id}">'
        f'<div class="rt-thumbnail" data-film>{thumbnail}</div><div><div class="rt-line">{_prompt(job)}</div>'
        f'<div class="rt-hint"><span class="rt-place">{_STATES[job.state]}</span> · {_model(job)}</div>'
        f"{_error(job)}{_buttons(view)}</div></li>"
    )


def _prompt(job: Job) -> str:
    prompt = shortened(job.prompt, _MAX_CHARACTERS)
    first_line = text(prompt.splitlines()[0] if prompt.strip() else "(no prompt)")
    return f'<span class="rt-what" title="{first_line}">{first_line}</span>'


def _model(job: Job) -> str:
    """The model of a job, and its LoRAs."""
    loras = loras_in_words(job.settings)
    model = shortened(job.definition, _MAX_CHARACTERS)
    return text(f"{model} + {loras}" if loras else model)


def _error(job: Job) -> str:
    return problem(job.error, job.hint) if job.error else ""


def _buttons(view: JobView) -> str:
    return f'<div class="rt-acts">{"".join(_button(view.job, action) for action in view.actions)}</div>'


def _button(job: Job, action: JobAction) -> str:
    label, title = _LABELS[action]
    if action is JobAction.RUN_AGAIN and job.resumable:
        label = "Resume"
    return button(action, label, title=title.format(id=job.id), job=job.id)
