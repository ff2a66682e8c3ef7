"""The jobs of a batch: added to the queue once, however often an interrupted batch is run again.

jobs = add_jobs(workspace.queue, plan)
runner.limit_to(jobs.ids)

Each job of a batch has a mark: the file and the position that it is from, and a hash of what it makes. The marks are
removed when the batch has come to its end. So a marked job belongs to a batch that was interrupted: one that is done is
not made again, and any other is continued.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from reeltune.jobs import Job, Queue, State
from reeltune.jobs.exchange import NewJob
from reeltune.jobs.job import BATCH
from reeltune.service.batches import BatchEntry, BatchPlan
from reeltune.untrusted import JsonObject, clean_text

_UNFINISHED = (State.QUEUED, State.INTERRUPTED)


@dataclass(frozen=True)
class BatchMark:
    """What a job of an unfinished batch is from."""

    source: str
    position: int
    fingerprint: str

    @classmethod
    def of(cls, entry: BatchEntry) -> BatchMark:
        """The mark of an entry's job."""
        return cls(clean_text(str(entry.source.resolve())), entry.position, entry.fingerprint)

    def as_json(self) -> JsonObject:
        """The mark as it is stored."""
        return {"source": self.source, "position": self.position, "fingerprint": self.fingerprint}


@dataclass(frozen=True)
class BatchJobs:
    """The jobs of a batch.

    `entries`: by the ids of the jobs that are to be run. `made`: the entries that were made before the batch was
    interrupted. `continued`: the number of jobs that were in the queue already. `notices`: what the user should know.
    """

    entries: Mapping[int, BatchEntry]
    made: tuple[BatchEntry, ...] = ()
    continued: int = 0
    notices: tuple[str, ...] = ()

    @property
    def ids(self) -> frozenset[int]:
        """The ids of the jobs that are to be run."""
        return frozenset(self.entries)


def earlier_jobs(queue: Queue) -> dict[BatchMark, Job]:
    """The jobs of unfinished batches by their marks."""
    jobs: dict[BatchMark, Job] = {}
    for job in queue.jobs():
        mark = _mark_of(job)
        if mark is not None and not job.damaged:
            jobs.setdefault(mark, job)
    return jobs


def _mark_of(job: Job) -> BatchMark | None:
    stored = job.extra.get(BATCH)
    if not isinstance(stored, dict):
        return None
    source, position, fingerprint = (stored.get(key) for key in ("source", "position", "fingerprint"))
    if not isinstance(source, str) or not isinstance(position, int) or not isinstance(fingerprint, str):
        return None
    return BatchMark(source, position, fingerprint)


def add_jobs(queue: Queue, plan: BatchPlan) -> BatchJobs:
    """Add the jobs of a batch to the queue, or continue those of a batch that was interrupted. Raises QueueError.

    A job of the interrupted batch whose entry is gone or has other settings now is removed from the queue.
    """
    earlier = earlier_jobs(queue)
    entries: dict[int, BatchEntry] = {}
    made, new = [], []
    for entry in plan.usable:
        job = earlier.pop(BatchMark.of(entry), None)
        if job is None:
            new.append(entry)
        elif job.state is State.DONE:
            made.append(entry)
        else:
            entries[job.id] = entry
            if job.state not in (State.QUEUED, State.RUNNING):
                queue.retry(job.id)
    continued = len(entries)
    notices = _remove_outdated(queue, plan, earlier)
    added = queue.add_all([_new_job(entry) for entry in new])
    entries.update({job.id: entry for job, entry in zip(added, new, strict=True)})
    return BatchJobs(entries, tuple(made), continued, tuple(notices))


def _new_job(entry: BatchEntry) -> NewJob:
    return NewJob(entry.definition, entry.settings, {BATCH: BatchMark.of(entry).as_json()})


def _remove_outdated(queue: Queue, plan: BatchPlan, left: Mapping[BatchMark, Job]) -> list[str]:
    """Remove the unfinished jobs of the plan's files that no entry stands for any more; returns notices.

    Those of a file with broken entries stay: what is broken now may have been right before.
    """
    sources = _sources(plan) - {clean_text(str(entry.source.resolve())) for entry in plan.broken}
    notices = []
    for mark, job in left.items():
        if mark.source in sources and job.state in _UNFINISHED:
            queue.remove(job.id)
            notices.append(f"Job {job.id} of the interrupted batch was removed: its settings have changed since.")
    return notices


def finish_batch(queue: Queue, plan: BatchPlan) -> None:
    """The batch has come to its end: if it is run again, everything is made again. Raises QueueError."""
    sources = _sources(plan)
    queue.store_extra(
        {
            job.id: {key: value for key, value in job.extra.items() if key != BATCH}
            for mark, job in earlier_jobs(queue).items()
            if mark.source in sources
        }
    )


def _sources(plan: BatchPlan) -> set[str]:
    return {clean_text(str(entry.source.resolve())) for entry in plan.entries}


def other_jobs(queue: Queue, jobs: BatchJobs) -> int:
    """The number of jobs that wait in the queue and aren't of the batch. Raises QueueError."""
    return sum(job.waiting and job.id not in jobs.entries for job in queue.jobs())
