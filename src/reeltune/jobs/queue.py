"""The queue: jobs in SQLite under the root, which outlive a closed browser, a restart and a crash.

queue = Queue(root)
job = queue.add("some_definition", {"prompt": "a paper boat"})
queue.move(job.id, 0)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from reeltune.errors import JobStateError, QueueFull
from reeltune.families.values import Settings
from reeltune.jobs.adding import checked_text, confinement_of
from reeltune.jobs.exchange import NewJob, export_text, read_export
from reeltune.jobs.job import BATCH, CHECKED, ENDED, Attempt, Job, State, WaitingJob
from reeltune.jobs.queue_reader import QueueReader, is_paused, job_in, waiting_jobs
from reeltune.jobs.rows import LARGEST_POSITION, dumped
from reeltune.jobs.written import unreported_videos
from reeltune.untrusted import JsonObject, clean_text

_MOST_JOBS = 10_000  # waiting
_MOST_DONE = 500  # the oldest of them are removed from the list; their videos stay
INTERRUPTED = "The program ended while it ran."
INTERRUPTED_HINT = "Resume it, or remove it."
_RUNNING_ATTEMPT = "id = ? AND attempt = ? AND state = 'running'"
_UNFINISHED_ATTEMPT = "id = ? AND attempt = ? AND state IN ('running', 'interrupted')"
_LONGEST_LEASE = 3600.0  # seconds; one that ends later was written before the clock was set back


Choose = Callable[[Sequence[WaitingJob]], int | None]  # the id of the job that begins, of those that wait


def first_of(waiting: Sequence[WaitingJob]) -> int | None:
    """The first job in the user's order."""
    return waiting[0].id if waiting else None


class Queue(QueueReader):
    """Jobs of one root. Every method is one transaction, so that threads and processes can share it.

    `confined`: whether jobs that are added may name no files outside the root, the folder of videos and the model
    folders. `outputs`: the folder that workers write videos to, in place of the preference's.

    Raises QueueError where the file can't be used, JobNotFound where a job doesn't exist, JobStateError where it isn't
    in a state for what is asked.
    """

    def __init__(self, root: Path, *, confined: bool = False, outputs: Path | None = None) -> None:
        super().__init__(root)
        self.root, self.outputs, self._confined = root, outputs, confined

    # --- what the user does ---------------------------------------------------------------------------------

    def add(
        self,
        definition: str,
        settings: Settings,
        *,
        extra: JsonObject | None = None,
        confined: bool = False,
        most_jobs: int = _MOST_JOBS,
    ) -> Job:
        """A new job behind those that wait. `confined`: this job is confined, even if the queue isn't. `most_jobs`: how
        many may wait.

        Raises SettingsError for an unknown setting, an impossible value, or a path that a confined job may not use,
        QueueFull where too many wait.
        """
        new = NewJob(definition, settings, extra or {})
        return self._add([new], confined=confined or self._confined, most_jobs=min(most_jobs, _MOST_JOBS))[0]

    def add_all(self, jobs: Sequence[NewJob]) -> list[Job]:
        """New jobs behind those that wait, all or none. Raises as `add`."""
        return self._add(jobs, confined=self._confined)

    def _add(self, jobs: Sequence[NewJob], *, confined: bool, most_jobs: int = _MOST_JOBS) -> list[Job]:
        confinement = confinement_of(self.root, confined)
        checked = [
            (clean_text(job.definition), checked_text(job.settings, confinement), dumped(job.extra)) for job in jobs
        ]
        with self._store.write() as connection:
            waiting = connection.execute("SELECT COUNT(*) FROM jobs WHERE state = 'queued'").fetchone()[0]
            if waiting + len(checked) > most_jobs:
                raise QueueFull(
                    f"{waiting:,} jobs wait already, of {most_jobs:,} at most.",
                    hint="Wait until some have ended, or remove some.",
                )
            last = self._last(connection)
            ids = []
            for number, (definition, settings, extra) in enumerate(checked, start=1):
                cursor = connection.execute(
                    "INSERT INTO jobs (definition, settings, state, position, created, extra, confined) "
                    "VALUES (?, ?, 'queued', ?, ?, ?, ?)",
                    (definition, settings, last + number, time.time(), extra, int(confined)),
                )
                ids.append(cursor.lastrowid or 0)
            return [job_in(connection, id) for id in ids]

    def _last(self, connection: Any) -> int:
        query = "SELECT COALESCE(MAX(position), 0) FROM jobs WHERE typeof(position) = 'integer' AND position < ?"
        return int(connection.execute(query, (LARGEST_POSITION,)).fetchone()[0])

    def edit(self, id: int, settings: Settings, definition: str | None = None) -> Job:
        """Other settings, or another definition, for a job that waits."""
        text = checked_text(settings, confinement_of(self.root, self._confined))
        with self._store.write() as connection:
            job = self._waiting(connection, id)
            extra = {key: value for key, value in job.extra.items() if key != CHECKED}
            confined = int(self._confined or job.confined)
            connection.execute(
                "UPDATE jobs SET settings = ?, definition = ?, outputs = '[]', latents = '', confined = ?, extra = ? "
                "WHERE id = ?",
                (text, clean_text(definition or job.definition), confined, dumped(extra), id),
            )
            return job_in(connection, id)

    def move(self, id: int, place: int) -> None:
        """Put a waiting job at a place among those that wait; 0 is next."""
        with self._store.write() as connection:
            self._waiting(connection, id)
            ids = [row[0] for row in connection.execute("SELECT id FROM jobs WHERE state = 'queued' ORDER BY position")]
            ids.remove(id)
            ids.insert(max(0, place), id)
            connection.executemany("UPDATE jobs SET position = ? WHERE id = ?", enumerate(ids, start=1))

    def shift(self, id: int, by: int) -> None:
        """Move a waiting job up (-1) or down (1)."""
        waiting = [job.id for job in self.jobs() if job.waiting]
        if id not in waiting:
            raise JobStateError(f"Job {id} doesn't wait any more.", hint="It has begun meanwhile.")
        self.move(id, waiting.index(id) + by)

    def remove(self, id: int) -> None:
        """Forget a job that isn't running; its videos stay."""
        with self._store.write() as connection:
            if job_in(connection, id).state is State.RUNNING:
                raise JobStateError(f"Job {id} is running.", hint="Cancel it first.")
            connection.execute("DELETE FROM jobs WHERE id = ?", (id,))

    def cancel(self, id: int) -> None:
        """Take a waiting job out of the queue."""
        with self._store.write() as connection:
            self._waiting(connection, id)
            self._end(connection, id, State.CANCELLED)

    def set_paused(self, paused: bool) -> None:
        """Pause the queue, or end the user's pause. Both outlive the program. A running job is not changed."""
        with self._store.write() as connection:
            if not paused:
                connection.execute("DELETE FROM user_pause")
            elif not is_paused(connection):
                connection.execute("INSERT INTO user_pause (began) VALUES (?)", (time.time(),))

    def clear_finished(self) -> int:
        """Forget all jobs that neither wait nor run; returns how many."""
        with self._store.write() as connection:
            gone = connection.execute("DELETE FROM jobs WHERE state NOT IN ('queued', 'running')")
            return int(gone.rowcount)

    def retry(self, id: int) -> Job:
        """Let a job that ended, however it did, wait again: before all others where it can be resumed, else last."""
        with self._store.write() as connection:
            job = job_in(connection, id)
            if job.damaged:
                raise JobStateError(job.error, hint=job.hint)
            if job.state not in ENDED:
                raise JobStateError(f"Job {id} is {job.state} already.")
            position = self._first(connection) - 1 if job.resumable else self._last(connection) + 1
            outputs = job.outputs if job.resumable else ()
            latents = job.latents if job.resumable else ""
            connection.execute(
                "UPDATE jobs SET state = 'queued', position = ?, started = 0, finished = 0, progress = '', error = '', "
                "hint = '', outputs = ?, latents = ?, notices = '[]', deaths = 0 WHERE id = ?",
                (position, dumped(outputs), latents, id),
            )
            return job_in(connection, id)

    def _first(self, connection: Any) -> int:
        query = (
            "SELECT COALESCE(MIN(position), 1) FROM jobs "
            "WHERE state = 'queued' AND typeof(position) = 'integer' AND position > ?"
        )
        return int(connection.execute(query, (-LARGEST_POSITION,)).fetchone()[0])

    def _waiting(self, connection: Any, id: int) -> Job:
        job = job_in(connection, id)
        if not job.waiting:
            raise JobStateError(f"Job {id} is {job.state}: it doesn't wait any more.")
        return job

    # --- what the runner does -------------------------------------------------------------------------------

    def take(
        self,
        worker: str,
        lease_seconds: float,
        *,
        only: Collection[int] | None = None,
        choose: Choose = first_of,
    ) -> Job | None:
        """The next job for a worker, running from now on; None where none waits, or while the user pauses the queue.

        Two takers never get the same job.

        `worker`: its name. `only`: the ids of the jobs that may be taken, also while the user pauses the queue; None
        for all. `choose`: which of them begins, or none; called inside the transaction, so it has to be quick.

        The worker may keep it for `lease_seconds`, and longer where `renew` is called. A job whose row is damaged is
        marked as failed and passed over.
        """
        with self._store.write() as connection:
            if only is None and is_paused(connection):
                return None
            waiting = waiting_jobs(connection, only)
            while (chosen := choose(waiting)) is not None:
                waiting = [job for job in waiting if job.id != chosen]
                job = job_in(connection, chosen)
                if job.damaged:
                    self._end(connection, chosen, State.FAILED, error=job.error, hint=job.hint)
                    continue
                now = time.time()
                connection.execute(
                    "UPDATE jobs SET state = 'running', started = ?, attempt = ?, worker = ?, lease = ? WHERE id = ?",
                    (now, job.attempts + 1, clean_text(worker), now + lease_seconds, job.id),
                )
                return job_in(connection, job.id)
        return None

    def renew(self, attempts: Iterable[Attempt], lease_seconds: float) -> None:
        """Let workers keep the jobs that they run for so long from now on."""
        lease = time.time() + lease_seconds
        with self._store.write() as connection:
            connection.executemany(
                f"UPDATE jobs SET lease = ? WHERE {_RUNNING_ATTEMPT}",
                [(lease, attempt.job, attempt.number) for attempt in attempts],
            )

    def store_progress(self, attempt: Attempt, progress: str) -> None:
        """Store how far a running job is, should the program be killed."""
        with self._store.write() as connection:
            connection.execute(
                f"UPDATE jobs SET progress = ? WHERE {_RUNNING_ATTEMPT}",
                (clean_text(progress), attempt.job, attempt.number),
            )

    def store_outputs(self, attempt: Attempt, outputs: Sequence[str], latents: str = "") -> None:
        """Store what a running job has made so far: its videos, and the file with the latents of the next one."""
        with self._store.write() as connection:
            self._set_outputs(connection, attempt, outputs, latents)

    def _set_outputs(self, connection: Any, attempt: Attempt, outputs: Sequence[str], latents: str) -> None:
        connection.execute(
            f"UPDATE jobs SET outputs = ?, latents = ? WHERE {_RUNNING_ATTEMPT}",
            (dumped([*outputs]), clean_text(latents), attempt.job, attempt.number),
        )

    def finish(
        self,
        attempt: Attempt,
        state: State,
        *,
        error: str = "",
        hint: str = "",
        outputs: Sequence[str] | None = None,
        latents: str | None = None,
        notices: Sequence[str] | None = None,
    ) -> bool:
        """An attempt has ended; None leaves its videos, latents or notices as they are. Returns whether it counts:
        nothing changes where the job is tried again already, or waits for it.

        The oldest of many done jobs are removed from the list, except those of an unfinished batch; what failed, was
        cancelled or interrupted stays until the user removes it.
        """
        with self._store.write() as connection:
            row = connection.execute(
                f"SELECT id FROM jobs WHERE {_UNFINISHED_ATTEMPT}", (attempt.job, attempt.number)
            ).fetchone()
            if row is None:
                return False
            made = {"outputs": _dumped_or_none(outputs), "latents": latents, "notices": _dumped_or_none(notices)}
            for column, text in made.items():
                if text is not None:
                    connection.execute(f"UPDATE jobs SET {column} = ? WHERE id = ?", (clean_text(text), attempt.job))
            self._end(connection, attempt.job, state, error=error, hint=hint)
            connection.execute(
                "DELETE FROM jobs WHERE id IN (SELECT id FROM jobs WHERE state = 'done' "
                "AND CASE WHEN json_valid(extra) THEN json_type(extra, ?) END IS NOT 'object' "
                "ORDER BY ended DESC, id DESC LIMIT -1 OFFSET ?)",
                (f"$.{BATCH}", _MOST_DONE),
            )
            return True

    def try_again(
        self, attempt: Attempt, *, outputs: Sequence[str], latents: str, notices: Sequence[str], deaths: int
    ) -> bool:
        """The worker of a running attempt died: the job waits again, before all others, and keeps what is made.

        Returns whether it does: nothing changes where the attempt doesn't run any more.
        """
        with self._store.write() as connection:
            changed = connection.execute(
                "UPDATE jobs SET state = 'queued', position = ?, started = 0, progress = '', outputs = ?, latents = ?, "
                f"notices = ?, deaths = ? WHERE {_RUNNING_ATTEMPT}",
                (
                    self._first(connection) - 1, dumped([*outputs]), clean_text(latents), dumped([*notices]), deaths,
                    attempt.job, attempt.number,
                ),
            )  # fmt: skip
            return bool(changed.rowcount)

    def store_extra(self, extras: Mapping[int, JsonObject]) -> None:
        """Replace the extra fields of jobs, by their ids."""
        with self._store.write() as connection:
            connection.executemany(
                "UPDATE jobs SET extra = ? WHERE id = ?", [(dumped(extra), id) for id, extra in extras.items()]
            )

    def restore(self, job: Job) -> None:
        """Write the row of a running job again where it is gone, as after the file was moved away."""
        with self._store.write() as connection:
            connection.execute(
                "INSERT OR IGNORE INTO jobs (id, definition, settings, state, position, created, started, extra, "
                "attempt, confined, worker, lease, deaths) VALUES (?, ?, ?, 'running', ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    job.id, job.definition, dumped(job.settings), job.position, job.created, job.started,
                    dumped(job.extra), job.attempts, int(job.confined), job.worker, job.lease,
                    job.deaths,
                ),
            )  # fmt: skip

    def _end(self, connection: Any, id: int, state: State, *, error: str = "", hint: str = "") -> None:
        """Write the end of a job: no earlier than its start, and after all that ended before, whatever the clock."""
        connection.execute(
            "UPDATE jobs SET state = ?, finished = MAX(?, started), error = ?, hint = ?, ended = "
            "(SELECT COALESCE(MAX(ended), 0) + 1 FROM jobs WHERE typeof(ended) = 'integer' AND ended < ?) WHERE id = ?",
            (str(state), time.time(), clean_text(error), clean_text(hint), LARGEST_POSITION, id),
        )

    def recover(self, ended_workers: Collection[str] = (), machine: str | None = None) -> int:
        """Mark as interrupted the running jobs whose worker is gone; returns how many.

        A worker is gone where its lease has run out, or where the caller knows that it has ended: `ended_workers` by
        name, `machine` for all that programs on this machine have used. What others run stays as it is. Videos that a
        worker has written without reporting them count as made.
        """
        now = time.time()
        with self._store.write() as connection:
            rows = connection.execute(
                "SELECT id, worker, lease NOT BETWEEN ? AND ? AS expired FROM jobs WHERE state = 'running'",
                (now, now + _LONGEST_LEASE),
            ).fetchall()
            gone = (row["expired"] or row["worker"] in ended_workers or _is_of(row["worker"], machine) for row in rows)
            interrupted = [row["id"] for row, is_gone in zip(rows, gone, strict=True) if is_gone]
            for id in interrupted:
                job = job_in(connection, id)
                if written := unreported_videos(self.root, job, self.outputs):
                    self._set_outputs(connection, job.attempt, (*job.outputs, *written), "")
                self._end(connection, id, State.INTERRUPTED, error=INTERRUPTED, hint=INTERRUPTED_HINT)
            return len(interrupted)

    # --- files ----------------------------------------------------------------------------------------------

    def export(self) -> str:
        """The waiting jobs as JSON, for `import_text` here or elsewhere."""
        return export_text(job for job in self.jobs() if job.waiting)

    def import_text(self, text: str) -> list[Job]:
        """Add the jobs of an exported file, all or none. Unknown fields are kept. Raises QueueError, SettingsError."""
        return self.add_all(read_export(text, _MOST_JOBS))


def _is_of(worker: str, machine: str | None) -> bool:
    """Whether a program on a machine has used a worker, whose name begins with the machine's."""
    return machine is not None and worker.rpartition("/")[0] == machine


def _dumped_or_none(texts: Sequence[str] | None) -> str | None:
    return dumped(texts) if texts is not None else None
