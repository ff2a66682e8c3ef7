"""What the terminal shows of each job, by the logger `reeltune.jobs`: its files and why, its stages, its videos."""

from __future__ import annotations

import logging
import time

from reeltune.events import Notice, Planned, Progress
from reeltune.jobs.job import Job, State
from reeltune.jobs.live import Outcome
from reeltune.jobs.messages import Saved, WorkerEvent
from reeltune.jobs.totals import Totals

log = logging.getLogger("reeltune.jobs")
_MOST_PROMPT = 60  # characters
_LEAST_SECONDS = 0.05  # of a stage that is worth a word


class JobLog:
    """The lines of one job, and what it adds to the totals of all jobs."""

    def __init__(self, job: Job, totals: Totals) -> None:
        self._job, self._totals = job, totals
        self._began = self._since = time.monotonic()
        self._stage = ""
        self._seconds: dict[str, float] = {}
        self._received: dict[str, int] = {}  # bytes of each file that is being downloaded
        prompt = " ".join(job.prompt.split())
        short = prompt if len(prompt) <= _MOST_PROMPT else prompt[: _MOST_PROMPT - 1] + "…"
        log.info("Job %d begins: %s, %s", job.id, job.definition, f'"{short}"' if short else "no prompt given")

    def event(self, event: WorkerEvent) -> None:
        """Log what happened, and count the time of each stage."""
        if isinstance(event, Progress):
            self._enter(event.stage, event.subject)
            if event.stage == "download" and event.unit == "bytes":
                self._download(event)
        elif isinstance(event, Notice):
            log.info("Job %d: %s", self._job.id, event.message)
        elif isinstance(event, Planned):
            log.info("Job %d: %d file(s) to download, %d MB", self._job.id, len(event.files), event.to_fetch // 10**6)
        elif isinstance(event, Saved):
            log.info("Job %d: video written to %s", self._job.id, event.path)

    def seconds_of(self, stage: str) -> float:
        """How long the job was in a stage, without the one that it is in."""
        return self._seconds.get(stage, 0.0)

    def ended(self, outcome: Outcome) -> None:
        """Log how it ended, and the seconds by stage."""
        self._enter("", "")
        self._totals.add_end(State.FAILED if outcome.state is State.QUEUED else outcome.state)
        seconds = time.monotonic() - self._began
        stages = ", ".join(f"{name} {time:.1f} s" for name, time in self._seconds.items() if time >= _LEAST_SECONDS)
        by_stage = f" ({stages})" if stages else ""
        if outcome.state is State.QUEUED:
            log.warning(
                "Job %d is tried once more after %.1f s%s: %s", outcome.job.id, seconds, by_stage, outcome.error
            )
        elif outcome.state is State.FAILED:
            log.error("Job %d failed after %.1f s%s: %s", outcome.job.id, seconds, by_stage, _reason(outcome))
        else:
            log.info("Job %d is %s after %.1f s%s", outcome.job.id, outcome.state, seconds, by_stage)

    def _enter(self, stage: str, subject: str) -> None:
        if stage == self._stage:
            return
        now = time.monotonic()
        if self._stage:
            self._seconds[self._stage] = self._seconds.get(self._stage, 0.0) + now - self._since
            self._totals.add_seconds(self._stage, now - self._since)
        self._stage, self._since = stage, now
        if stage:
            log.debug("Job %d: %s %s", self._job.id, stage, subject)

    def _download(self, progress: Progress) -> None:
        """Count what was received since the last event; a file may be there in part already when it begins."""
        received = int(progress.done)
        before = self._received.get(progress.subject, received)
        self._received[progress.subject] = received
        self._totals.add_bytes(max(0, received - before))


def _reason(outcome: Outcome) -> str:
    return f"{outcome.error} {outcome.hint}".strip()
