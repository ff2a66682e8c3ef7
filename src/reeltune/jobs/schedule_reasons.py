"""Why a job runs on its worker, and why a job waits, in sentences for users (without the period at the end)."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from reeltune._text import counted, duration, size
from reeltune.jobs.schedule_values import Assignment, JobNeeds, Match, QueuedJob, WorkerState

_MATCHES = {
    Match.MODEL: "holds its weights",
    Match.TRANSFORMERS: "holds the weights of its model and only changes LoRAs",
    Match.COMPONENTS: "holds the text encoder and the VAE that it needs",
    Match.EMPTY: "holds no weights yet",
    Match.OTHER: "was used least recently",
}
_Model = tuple[str, tuple[str, ...], frozenset[str]]


def labels_of(workers: Iterable[WorkerState]) -> dict[str, str]:
    """What to call each worker, by its name: its device, or its name where several have that device."""
    workers = list(workers)
    devices = Counter(worker.device for worker in workers)
    return {worker.name: worker.device if devices[worker.device] == 1 else worker.name for worker in workers}


def reason_of_match(label: str, match: Match) -> str:
    """Why a job runs on a worker: "runs on cuda:1, which holds its weights"."""
    return f"runs on {label}, which {_MATCHES[match]}"


@dataclass(frozen=True)
class _Holder:
    """A busy worker that holds the weights of a model. `seconds`: until it is expected to be free; else infinite."""

    label: str
    seconds: float
    starting: bool  # with a job of this decision


def reasons_to_wait(
    left: Sequence[QueuedJob],
    workers: Sequence[WorkerState],
    assignments: Iterable[Assignment],
    jobs: Iterable[QueuedJob],
    now: float,
) -> Mapping[int, str]:
    """Why each job in `left` waits, by its id. `left` in the user's order; `jobs`: all that waited before."""
    usable = [worker for worker in workers if not worker.draining]
    begun = {assignment.worker: assignment.job for assignment in assignments}
    needs = {job.id: job.needs for job in jobs}
    holders = _holders(workers, {worker: needs[id] for worker, id in begun.items()}, now)
    next_free = min((_seconds(worker, now) for worker in usable if worker.name not in begun), default=math.inf)
    largest = max((worker.capacity for worker in usable), default=0.0)
    same: Counter[_Model] = Counter()
    waits = {}
    for ahead, job in enumerate(left):
        model = _model(job.needs)
        before, same[model] = same[model], same[model] + 1
        if not usable or job.needs.bytes_needed > largest:
            waits[job.id] = _why_none(job.needs, workers, largest)
        elif (holder := holders.get(model)) is not None and _likely(holder, job, next_free):
            waits[job.id] = _for_holder(holder, before)
        else:
            waits[job.id] = _for_any(ahead, next_free)
    return waits


def _holders(workers: Iterable[WorkerState], begun: Mapping[str, JobNeeds], now: float) -> dict[_Model, _Holder]:
    """For each model the busy worker with its weights that is free first."""
    labels = labels_of(workers)
    found: dict[_Model, list[tuple[float, bool, str]]] = defaultdict(list)
    for worker in workers:
        if worker.draining:
            continue
        holds = begun.get(worker.name) or (None if worker.free else worker.holds)
        if holds is not None:
            starting = worker.name in begun
            seconds = math.inf if starting else _seconds(worker, now)
            found[_model(holds)].append((seconds, starting, labels[worker.name]))
    firsts = {model: min(rows) for model, rows in found.items()}
    return {model: _Holder(label, seconds, starting) for model, (seconds, starting, label) in firsts.items()}


def _model(needs: JobNeeds) -> _Model:
    return needs.definition, needs.loras, needs.transformer_files


def _seconds(worker: WorkerState, now: float) -> float:
    """Until a worker is expected to be free."""
    if worker.free:
        return 0.0
    return math.inf if worker.busy_until is None else max(0.0, worker.busy_until - now)


def _likely(holder: _Holder, job: QueuedJob, next_free: float) -> bool:
    """Whether this worker is likely to run the job before any other worker does."""
    return holder.starting or holder.seconds <= next_free + (job.needs.load_seconds or 0.0)


def _why_none(needs: JobNeeds, workers: Sequence[WorkerState], largest: float) -> str:
    if not workers:
        return "waits for a worker; there is none at the moment"
    if any(worker.draining and needs.bytes_needed <= worker.capacity for worker in workers):
        return "waits for a worker; those that could run it get no more jobs, because they are being drained"
    return f"needs {size(needs.bytes_needed)}; no worker has more than {size(int(largest))}"


def _for_holder(holder: _Holder, before: int) -> str:
    after = f", after {counted(before, 'other job')} with the same weights" if before else ""
    if holder.starting or math.isinf(holder.seconds):
        return f"waits for {holder.label}, which holds its weights{after}"
    return f"waits for {holder.label}, which holds its weights and is free in about {duration(holder.seconds)}{after}"


def _for_any(ahead: int, next_free: float) -> str:
    queue = f"; {counted(ahead, 'job')} {'waits' if ahead == 1 else 'wait'} before it" if ahead else ""
    if math.isinf(next_free) or next_free == 0:
        return f"waits for a free worker{queue}"
    return f"waits for a free worker, expected in about {duration(next_free)}{queue}"
