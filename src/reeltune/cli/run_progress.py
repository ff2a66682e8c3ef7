"""What `run` shows of the jobs of a batch: a heading and progress bars for each job, and a summary at the end."""

from __future__ import annotations

import contextlib
import queue
import time
from collections.abc import Callable
from typing import TypeGuard

from rich.markup import escape

from reeltune._text import shortened
from reeltune.cli.output import err, print_error, print_line, print_notice, printable, progress_display
from reeltune.errors import Cancelled, QueueError, ReeltuneError
from reeltune.events import CancelToken, Event, Notice, Planned, Progress
from reeltune.jobs import Job, Runner, State
from reeltune.jobs.job import ENDED
from reeltune.jobs.messages import Saved, WorkerEvent
from reeltune.service.batch_jobs import BatchJobs
from reeltune.service.batches import BatchEntry, BatchPlan

JobEvents = queue.SimpleQueue[tuple[int, WorkerEvent]]

_WAIT_SECONDS = 0.2  # for the next event
_LOOK_SECONDS = 1.0  # between two looks at the queue
_PREPARING = "prepare"  # the first stage of each job
_MAX_PROMPT = 60  # characters
_STOPPING = "Stopping after the current step. Press Ctrl-C again to stop at once."
_AGAIN = "Run the same command again to continue."


def entries(count: int) -> str:
    """A number of entries in words."""
    return f"{count:,} {'entry' if count == 1 else 'entries'}"


def heading(entry: BatchEntry) -> str:
    """An entry on one line: its file, its model and its prompt."""
    prompt = f' "{shortened(entry.prompt, _MAX_PROMPT)}"' if entry.prompt else ""
    return f"{entry.name}: {entry.definition}{prompt}"


def _is_drawn(event: WorkerEvent) -> TypeGuard[Progress | Planned]:
    """Whether an event is shown as a bar or a plan; the worker's preparation has no end to draw."""
    return isinstance(event, Planned) or (isinstance(event, Progress) and event.stage != _PREPARING)


class BatchRun:
    """Follows the jobs of a batch to their ends. `events`: what the runner reports of them.

    Where several workers make videos at the same time, the progress of one job is drawn.
    """

    def __init__(self, runner: Runner, plan: BatchPlan, jobs: BatchJobs, events: JobEvents) -> None:
        self._runner, self._plan, self._jobs, self._events = runner, plan, jobs, events
        self._open = dict(jobs.entries)
        self._failed: list[tuple[BatchEntry, ReeltuneError]] = []
        self._made = 0
        self._begun: set[int] = set()
        self._current: int | None = None
        self._saved: list[str] = []
        self._shown_notices: set[str] = set()
        self._trouble = ""
        self._display = contextlib.ExitStack()
        self._draw: Callable[[Event], None] | None = None

    def run(self, cancel: CancelToken) -> None:
        """Run the jobs. Raises Cancelled when it is stopped; what isn't made stays in the queue."""
        for entry in self._plan.broken:
            assert entry.error is not None
            self._print_failure(entry, entry.error)
        self._runner.limit_to(self._jobs.ids)
        with self._display:
            self._follow(cancel)
            if self._open:
                self._runner.stop()  # stores how the last job ended
                self._look(interrupted=True)
        self._close_display()
        if self._open:
            total = len(self._jobs.entries) + len(self._jobs.made)
            message = f"Stopped: {self._made + len(self._jobs.made)} of {entries(total)} are made."
            raise Cancelled(message, hint=_AGAIN)

    def finish(self) -> int:
        """Print the summary; returns the exit code: 0 if everything was made."""
        failures = [(entry, entry.error) for entry in self._plan.broken if entry.error is not None] + self._failed
        parts = [f"{entries(self._made)} made"]
        if self._jobs.made:
            parts.append(f"{len(self._jobs.made)} made before")
        if failures:
            parts.append(f"{len(failures)} failed")
        err.print(f"[bold]{', '.join(parts)}.[/]")
        for entry, error in failures:
            err.print(f"  [red]failed[/] {escape(printable(f'{entry.name}: {error.message}'))}")
        return 1 if failures else 0

    # --- the loop -----------------------------------------------------------------------------------------------

    def _follow(self, cancel: CancelToken) -> None:
        interrupted = False
        looked = time.monotonic()
        while self._open:
            event = self._next_event()
            if event is not None:
                self._show(*event)
            if cancel.cancelled and not interrupted:
                interrupted = True
                print_notice(_STOPPING)
                self._runner.interrupt()
            if event is None or time.monotonic() - looked > _LOOK_SECONDS:
                looked = time.monotonic()
                self._look(interrupted)
            if interrupted and event is None and not self._runner.running():
                return

    def _next_event(self) -> tuple[int, WorkerEvent] | None:
        try:
            return self._events.get(timeout=_WAIT_SECONDS)
        except queue.Empty:
            return None

    def _look(self, interrupted: bool) -> None:
        """Find the jobs that have ended, and report what keeps the queue from running."""
        try:
            jobs = {job.id: job for job in self._runner.queue.jobs()}
        except QueueError as error:  # the runner reports it, too, and tries again
            self._report_trouble(error)
            return
        while not self._events.empty():  # all events of the jobs that have ended by now
            self._show(*self._events.get())
        ended = [jobs[id] for id in self._open if id in jobs and jobs[id].state in ENDED]
        for job in sorted(ended, key=lambda job: job.finished):
            if not (interrupted and job.state is State.INTERRUPTED):
                self._end(job)
        for id in [id for id in self._open if id not in jobs]:
            self._fail(id, QueueError("It was removed from the queue."))
        self._report_trouble(self._runner.trouble)

    def _report_trouble(self, trouble: ReeltuneError | None) -> None:
        """Print why no job can be taken, once."""
        message = "" if trouble is None else trouble.message
        if trouble is not None and message != self._trouble:
            print_notice(str(trouble))
        self._trouble = message

    # --- one job ------------------------------------------------------------------------------------------------

    def _show(self, id: int, event: WorkerEvent) -> None:
        if id not in self._open:
            return
        if id not in self._begun:
            self._end_current()
            self._begin(id)
        if self._current is None:
            self._current = id
            self._draw = self._display.enter_context(progress_display())
        if isinstance(event, Saved):
            self._saved.append(event.path)
        if isinstance(event, Notice):
            self._show_notice(event.message)
        elif id == self._current and self._draw is not None and _is_drawn(event):
            self._draw(event)

    def _show_notice(self, message: str) -> None:
        """Print a notice, once in the whole batch."""
        if message not in self._shown_notices:
            self._shown_notices.add(message)
            print_notice(message)

    def _begin(self, id: int) -> None:
        self._begun.add(id)
        entry = self._open[id]
        number = f"[{len(self._begun)}/{len(self._jobs.entries)}]"
        err.print(f"[bold]{escape(printable(f'{number} {heading(entry)}'))}[/]")
        for notice in entry.notices:
            self._show_notice(notice)

    def _end_current(self) -> None:
        """Report the end of the current job, if it has ended: another one has begun."""
        if self._current is None:
            return
        try:
            self._end(self._runner.queue.get(self._current))
        except QueueError as error:
            self._fail(self._current, error)

    def _end(self, job: Job) -> None:
        if job.state is State.DONE:
            self._close_display()
            del self._open[job.id]
            self._made += 1
        elif job.state in ENDED:
            self._fail(job.id, ReeltuneError(job.error or f"It is {job.state}.", hint=job.hint))

    def _fail(self, id: int, error: ReeltuneError) -> None:
        self._close_display()
        entry = self._open.pop(id)
        self._failed.append((entry, error))
        self._print_failure(entry, error)

    def _print_failure(self, entry: BatchEntry, error: ReeltuneError) -> None:
        print_error(ReeltuneError(f"{entry.name}: {error.message}", hint=error.hint))

    def _close_display(self) -> None:
        """Stop drawing, and print the paths of the videos: not before, as drawing redirects the output."""
        self._display.close()
        self._draw = None
        self._current = None
        for path in self._saved:
            print_line(path)
        self._saved = []
