"""The queue on the page: every job with what can be done with it."""

from __future__ import annotations

from collections.abc import Iterable

from reeltune._text import counted, shortened
from reeltune.errors import QueueError
from reeltune.jobs import Job, State
from reeltune.service.studio import Studio
from reeltune.web.markup import button, problem, text, video
from reeltune.web.now import films_of

_MOST_SHOWN = 60
_MOST_CHARACTERS = 300  # of a prompt, or of a model's id
_EMPTY = '<p class="rt-hint">Nothing is waiting. Videos are made one after the other.</p>'
_OPEN = (State.RUNNING, State.QUEUED, State.INTERRUPTED)
_ENDED = {
    State.DONE: "done",
    State.FAILED: "failed",
    State.CANCELLED: "cancelled",
    State.INTERRUPTED: "interrupted",
    State.RUNNING: "running",
}


def panel(studio: Studio, jobs: list[Job]) -> str:
    """The job that runs, those that wait and those that can be resumed; the others that ended are folded away."""
    waiting = [job.id for job in jobs if job.waiting]
    open_jobs = [job for job in jobs if job.state in _OPEN]
    ended = [job for job in jobs if job.state not in _OPEN]
    listed = _list((_row(job, waiting) for job in open_jobs[:_MOST_SHOWN]), len(open_jobs))
    tools = button("export", "Export", title="Save the waiting jobs as a file") if waiting else ""
    return f'{listed if open_jobs else _EMPTY}<div class="rt-tools">{tools}</div>{_folded(studio, ended)}'


def _list(rows: Iterable[str], count: int) -> str:
    hidden = count - _MOST_SHOWN
    more = f'<p class="rt-hint">and {hidden:,} more</p>' if hidden > 0 else ""
    return f'<ol class="rt-jobs">{"".join(rows)}</ol>{more}'


def _row(job: Job, waiting: list[int]) -> str:
    state = f"{waiting.index(job.id) + 1}." if job.waiting else _ENDED[job.state]
    error = problem(job.error, job.hint) if job.error else ""
    return (
        f'<li class="rt-job rt-{job.state}" data-job="{job.id}"><div class="rt-line">'
        f'<span class="rt-place">{state}</span>{_what(job)}<span class="rt-model-id">{_model(job)}</span>'
        f'</div>{error}<div class="rt-acts">{"".join(_acts(job, waiting))}</div></li>'
    )


def _what(job: Job) -> str:
    prompt = shortened(job.prompt, _MOST_CHARACTERS)
    prompt = text(prompt.splitlines()[0] if prompt.strip() else "(no prompt)")
    return f'<span class="rt-what" title="{prompt}">{prompt}</span>'


def _model(job: Job) -> str:
    return text(shortened(job.definition, _MOST_CHARACTERS))


# --- those that ended -------------------------------------------------------------------------------------------


def _folded(studio: Studio, jobs: list[Job]) -> str:
    """The jobs that ended, behind one line that counts them."""
    if not jobs:
        return ""
    failed = sum(job.state is State.FAILED for job in jobs)
    bad = f' · <span class="rt-bad">{failed:,} failed</span>' if failed else ""
    rows = _list((_ended_row(studio, job) for job in jobs[:_MOST_SHOWN]), len(jobs))
    clear = button("clear", "Clear the list", title="Forget these jobs; their videos stay")
    return (
        f'<details class="rt-ended" data-key="ended"><summary>{counted(len(jobs), "earlier job")}{bad}</summary>'
        f'{rows}<div class="rt-tools">{clear}</div></details>'
    )


def _ended_row(studio: Studio, job: Job) -> str:
    error = problem(job.error, job.hint) if job.error else ""
    return (
        f'<li class="rt-job rt-past rt-{job.state}" data-job="{job.id}">{_thumbnail(studio, job)}<div>'
        f'<div class="rt-line">{_what(job)}</div>'
        f'<div class="rt-hint"><span class="rt-place">{_ENDED[job.state]}</span> · {_model(job)}</div>'
        f'{error}<div class="rt-acts">{"".join(_acts(job, []))}</div></div></li>'
    )


def _thumbnail(studio: Studio, job: Job) -> str:
    films = films_of(studio, job)
    inside = video(films[-1], poster=True) if films else ""
    return f'<div class="rt-thumbnail" data-film>{inside}</div>'


# --- what can be done -------------------------------------------------------------------------------------------


def _acts(job: Job, waiting: list[int]) -> list[str]:
    if job.state is State.RUNNING:
        return [button("cancel", "Cancel", job=job.id)]
    remove = button("remove", "Remove", title=f"Remove job {job.id}", job=job.id)
    if not job.waiting:
        again = "Resume" if job.resumable else "Run again"
        return [button("again", again, job=job.id), button("reuse", "Use settings", job=job.id), remove]
    place = waiting.index(job.id)
    acts = [button("edit", "Edit", job=job.id), remove]
    if place < len(waiting) - 1:
        acts.insert(0, button("down", "↓", title="Later", job=job.id))
    if place > 0:
        acts.insert(0, button("up", "↑", title="Earlier", job=job.id))
    return acts


def act(studio: Studio, do: str, id: int) -> None:
    """What a button of the queue does. Raises QueueError."""
    queue, runner = studio.queue, studio.runner
    match do:
        case "up" | "down":
            queue.shift(id, -1 if do == "up" else 1)
        case "remove":
            queue.remove(id)
        case "again":
            queue.retry(id)
            runner.wake()
        case "cancel":
            runner.cancel(id)
        case "resume":
            runner.resume()
        case "clear":
            queue.clear_finished()
        case _:
            raise QueueError(f"There is no such button: {do}.")
