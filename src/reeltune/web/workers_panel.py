"""The workers as HTML: what each of them does and holds, with buttons. Nothing is shown for a single worker."""

from __future__ import annotations

from reeltune.jobs.roster import WorkerRequest, WorkerRow
from reeltune.service.workers import memory_in_words, requests_for, state_in_words, workers_of
from reeltune.service.workspace import Workspace
from reeltune.web.markup import button, hint, text

_MAX_SHOWN = 60
_LABELS = {
    WorkerRequest.DRAIN: ("Drain", "Let {name} run no jobs after the current one"),
    WorkerRequest.END: ("End", "Also release the memory of {name} then"),
    WorkerRequest.RESUME: ("Resume", "Let {name} run jobs again"),
}


def workers_panel(workspace: Workspace) -> str:
    """All workers; empty if there is only one."""
    workers = workers_of(workspace)
    if len(workers) < 2:
        return ""
    items = "".join(_item(worker) for worker in workers[:_MAX_SHOWN])
    hidden = len(workers) - _MAX_SHOWN
    more = hint(f"and {hidden:,} more") if hidden > 0 else ""
    return f'<h3>Workers</h3><ul class="rt-jobs rt-workers">{items}</ul>{more}'


def _item(worker: WorkerRow) -> str:
    facts = [f"holds {worker.holds}" if worker.holds else "holds no weights", memory_in_words(worker), worker.node]
    details = text(" · ".join(fact for fact in facts if fact))
    problem = hint(f"It was started again: {worker.problem}") if worker.problem else ""
    device = f' <span class="rt-model-id">{text(worker.device)}</span>' if worker.device else ""
    return (
        f'<li class="rt-job rt-worker rt-{text(worker.state)}" data-worker="{text(worker.name)}"><div class="rt-line">'
        f'<span class="rt-place">{text(worker.name)}</span><span class="rt-what">{text(state_in_words(worker))}</span>'
        f'{device}</div><p class="rt-hint">{details}</p>{problem}<div class="rt-acts">{_buttons(worker)}</div></li>'
    )


def _buttons(worker: WorkerRow) -> str:
    buttons = []
    for request in requests_for(worker):
        label, title = _LABELS[request]
        buttons.append(button(request, label, title=title.format(name=worker.name), worker=worker.name))
    return "".join(buttons)
