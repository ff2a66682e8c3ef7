"""The queue on the page: every job with what can be done with it."""

from __future__ import annotations

from reeltune.errors import QueueError
from reeltune.jobs import Job, State
from reeltune.web.markup import button, problem, text
from reeltune.web.studio import Studio

_SHOWN = 60
_ENDED = {
    State.DONE: "done",
    State.FAILED: "failed",
    State.CANCELLED: "cancelled",
    State.INTERRUPTED: "interrupted",
    State.RUNNING: "running",
}


def panel(jobs: list[Job]) -> str:
    """The jobs: the running one, those that wait, those that ended."""
    waiting = [job.id for job in jobs if job.waiting]
    rows = "".join(_row(job, waiting) for job in jobs[:_SHOWN])
    hidden = len(jobs) - _SHOWN
    more = f'<p class="rt-hint">and {hidden} more</p>' if hidden > 0 else ""
    empty = '<p class="rt-hint">Nothing waits. What you generate while a video is being made queues here.</p>'
    tools = button("export", "Export", title="Save the waiting jobs as a file") if waiting else ""
    if len(jobs) - len(waiting) > (1 if any(job.state is State.RUNNING for job in jobs) else 0):
        tools += button("clear", "Clear ended")
    return f'<ol class="rt-jobs">{rows}</ol>{more if rows else empty}<div class="rt-tools">{tools}</div>'


def _row(job: Job, waiting: list[int]) -> str:
    prompt = text(job.prompt.splitlines()[0] if job.prompt.strip() else "(no prompt)")
    state = f"{waiting.index(job.id) + 1}." if job.waiting else _ENDED[job.state]
    error = problem(job.error, job.hint) if job.error else ""
    return (
        f'<li class="rt-job rt-{job.state}" data-job="{job.id}"><div class="rt-line">'
        f'<span class="rt-place">{state}</span>'
        f'<span class="rt-what" title="{prompt}">{prompt}</span><span class="rt-model-id">{text(job.definition)}</span>'
        f'</div>{error}<div class="rt-acts">{"".join(_acts(job, waiting))}</div></li>'
    )


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
            queue.again(id)
            runner.wake()
        case "cancel":
            runner.cancel(id)
        case "resume":
            runner.resume()
        case "clear":
            queue.clear_finished()
        case _:
            raise QueueError(f"There is no such button: {do}.")
