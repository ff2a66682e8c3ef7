"""What has changed in the queue between two looks, for clients that follow it.

watcher = Watcher(QueueLooks(workspace))
for change in watcher.changes():
    print(change.kind, change.job)
watcher.accept()
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from reeltune.errors import JobNotFound
from reeltune.events import Preview
from reeltune.jobs import Live, State
from reeltune.jobs.job import ENDED
from reeltune.service.workspace import Workspace

_SHARED_SECONDS = 0.2  # for which a look is shared


class ChangeKind(StrEnum):
    """What a change is about."""

    QUEUE = "queue"  # the queue was paused or resumed, or its problem changed
    JOB = "job"  # a job was added, changed its state, or was removed
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


@dataclass(frozen=True)
class QueueLook:
    """The queue at one moment: whether it is paused and why, the state and attempt of each job, and what runs."""

    queue: tuple[bool, str] | None = None
    states: Mapping[int, tuple[State, int]] = field(default_factory=dict)
    lives: Mapping[int, Live] = field(default_factory=dict)


class QueueLooks:
    """The latest look at the queue, which all clients share that follow it: a hundred of them read it as one does."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self._guard = threading.Lock()
        self._latest: tuple[float, QueueLook] | None = None

    def look(self) -> QueueLook:
        """The queue as it was at most 0.2 seconds ago. Raises QueueError."""
        with self._guard:
            now = time.monotonic()
            if self._latest is None or now - self._latest[0] > _SHARED_SECONDS:
                self._latest = (now, self._new())
            return self._latest[1]

    def _new(self) -> QueueLook:
        runner = self.workspace.runner
        return QueueLook(
            queue=(runner.paused, str(runner.trouble or "")),
            states=self.workspace.queue.states(),
            lives={live.job: live for live in runner.running()},
        )


class Watcher:
    """Remembers what a client knows. `job`: to watch only this one."""

    def __init__(self, looks: QueueLooks, job: int | None = None) -> None:
        self._looks, self._job = looks, job
        self._known = QueueLook()
        self._current = self._known

    def changes(self) -> list[QueueChange]:
        """What is new since the last call of `accept`; at first, the queue and all jobs as they are.

        Raises QueueError.
        """
        look, watched = self._looks.look(), self._job
        if watched is not None:
            states = {id: state for id, state in look.states.items() if id == watched}
            lives = {id: live for id, live in look.lives.items() if id == watched}
            look = replace(look, states=states, lives=lives)
        self._current = look
        return [*self._of_queue(), *self._of_jobs(), *self._of_running()]

    def accept(self) -> None:
        """Note that the client has what `changes` has returned."""
        self._known = self._current

    def _of_queue(self) -> list[QueueChange]:
        return [QueueChange(ChangeKind.QUEUE)] if self._current.queue != self._known.queue else []

    def _of_jobs(self) -> list[QueueChange]:
        before, now = self._known.states, self._current.states
        differing = [id for id in {**before, **now} if now.get(id) != before.get(id)]
        changes: list[QueueChange] = []
        for id in sorted(differing):
            if self._known.queue is not None and id in now and now[id][0] in ENDED:
                changes += self._last_notices(id)
            changes.append(QueueChange(ChangeKind.JOB, id))
        return changes

    def _last_notices(self, id: int) -> list[QueueChange]:
        """The notices that a job got after the look before it ended. A short job may run between two looks."""
        try:
            job = self._looks.workspace.queue.get(id)
        except JobNotFound:
            return []
        known = self._known.lives.get(id)
        earlier = known.notices if known is not None and known.attempt == job.attempts else ()
        return [QueueChange(ChangeKind.NOTICE, id, text=text) for text in job.notices if text not in earlier]

    def _of_running(self) -> list[QueueChange]:
        changes: list[QueueChange] = []
        for id, live in self._current.lives.items():
            known = self._known.lives.get(id)
            if known is not None and known.attempt != live.attempt:
                known = None
            if known is None or live.progress != known.progress:
                changes.append(QueueChange(ChangeKind.PROGRESS, id))
            earlier = known.notices if known is not None else ()
            changes += [QueueChange(ChangeKind.NOTICE, id, text=text) for text in live.notices if text not in earlier]
            if live.preview is not None and (known is None or live.preview is not known.preview):
                changes.append(QueueChange(ChangeKind.PREVIEW, id, preview=live.preview))
        return changes
