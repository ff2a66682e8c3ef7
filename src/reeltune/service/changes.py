"""What has changed in the queue between two looks, for clients that follow it.

watcher = Watcher(workspace)
for change in watcher.changes():
    print(change.kind, change.job)
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from reeltune.events import Preview
from reeltune.jobs import Live, State
from reeltune.service.workspace import Workspace


class ChangeKind(StrEnum):
    """What a change is about."""

    QUEUE = "queue"  # the queue was paused or resumed, or its problem changed
    JOB = "job"  # a job was added, edited, moved to another state, or removed
    PROGRESS = "progress"
    NOTICE = "notice"
    PREVIEW = "preview"


@dataclass(frozen=True)
class QueueChange:
    """One change. `text`: of a notice. `preview`: of an unfinished video."""

    kind: ChangeKind
    job: int | None = None
    text: str = ""
    preview: Preview | None = None


class Watcher:
    """Remembers what a client knows. `job`: to watch only this one."""

    def __init__(self, workspace: Workspace, job: int | None = None) -> None:
        self._workspace, self._job = workspace, job
        self._queue: tuple[bool, str] | None = None
        self._states: dict[int, tuple[State, int]] = {}
        self._lives: dict[int, Live] = {}

    def changes(self) -> list[QueueChange]:
        """What is new since the last call; at first, the queue and all jobs as they are. Raises QueueError."""
        return [*self._of_queue(), *self._of_jobs(), *self._of_running()]

    def _of_queue(self) -> list[QueueChange]:
        runner = self._workspace.runner
        queue = (runner.paused, str(runner.trouble or ""))
        if queue == self._queue:
            return []
        self._queue = queue
        return [QueueChange(ChangeKind.QUEUE)]

    def _of_jobs(self) -> list[QueueChange]:
        states = self._workspace.queue.states()
        if self._job is not None:
            states = {id: state for id, state in states.items() if id == self._job}
        differing = [id for id in {**self._states, **states} if states.get(id) != self._states.get(id)]
        self._states = states
        return [QueueChange(ChangeKind.JOB, id) for id in sorted(differing)]

    def _of_running(self) -> list[QueueChange]:
        found: list[QueueChange] = []
        lives = {live.job: live for live in self._workspace.runner.running() if self._job in (None, live.job)}
        for id, live in lives.items():
            known = self._lives.get(id)
            if known is not None and known.attempt != live.attempt:
                known = None
            if known is None or live.progress != known.progress:
                found.append(QueueChange(ChangeKind.PROGRESS, id))
            heard = known.notices if known is not None else ()
            found += [QueueChange(ChangeKind.NOTICE, id, text=text) for text in live.notices if text not in heard]
            if live.preview is not None and (known is None or live.preview is not known.preview):
                found.append(QueueChange(ChangeKind.PREVIEW, id, preview=live.preview))
        self._lives = lives
        return found
