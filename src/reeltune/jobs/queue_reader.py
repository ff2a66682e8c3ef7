"""Reading the queue: its jobs in the order of the list or of their age, their states, and single ones."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from reeltune.errors import JobNotFound
from reeltune.jobs.job import Job, State, WaitingJob
from reeltune.jobs.rows import as_job, as_state, as_waiting
from reeltune.jobs.store import Store


class QueueReader:
    """The jobs of one root, as they are now. Raises QueueError where the file can't be used."""

    def __init__(self, root: Path) -> None:
        self._store = Store(root)

    @property
    def store(self) -> Store:
        """The queue's file."""
        return self._store

    @property
    def notice(self) -> str:
        """What was wrong with the file when it was opened; usually empty."""
        return self._store.notice

    def jobs(self) -> list[Job]:
        """The running ones, those that wait in their order, then the others, the latest first."""
        with self._store.open() as connection:
            rows = connection.execute(
                "SELECT * FROM jobs ORDER BY state = 'running' DESC, state = 'queued' DESC, "
                "CASE WHEN state = 'queued' THEN position END, ended DESC, id DESC"
            ).fetchall()
        return [as_job(row) for row in rows]

    def page(self, limit: int, *, after: int | None = None, newest_first: bool = True) -> list[Job]:
        """At most `limit` jobs in the order in which they were added, or the reverse; those after the job `after`."""
        beyond, order = ("<", "DESC") if newest_first else (">", "ASC")
        condition = f"WHERE id {beyond} ?" if after is not None else ""
        values = (limit,) if after is None else (after, limit)
        with self._store.open() as connection:
            rows = connection.execute(f"SELECT * FROM jobs {condition} ORDER BY id {order} LIMIT ?", values).fetchall()
        return [as_job(row) for row in rows]

    def counts(self) -> dict[State, int]:
        """The number of jobs in each state."""
        with self._store.open() as connection:
            rows = connection.execute("SELECT state, COUNT(*) FROM jobs GROUP BY state").fetchall()
        counted = dict.fromkeys(State, 0)
        for state, number in rows:
            counted[as_state(state)] += number
        return counted

    def states(self) -> dict[int, tuple[State, int]]:
        """The state of each job and the number of its last attempt, by id."""
        with self._store.open() as connection:
            rows = connection.execute("SELECT id, state, attempt FROM jobs").fetchall()
        return {id: (as_state(state), attempt) for id, state, attempt in rows}

    def get(self, id: int) -> Job:
        """One job."""
        with self._store.open() as connection:
            return job_in(connection, id)

    def waiting(self, only: Collection[int] | None = None) -> list[WaitingJob]:
        """The jobs that wait, in the user's order. `only`: the ids of the jobs that count; None for all."""
        with self._store.open() as connection:
            return waiting_jobs(connection, only)

    @property
    def paused(self) -> bool:
        """Whether the user pauses the queue, so that no worker takes a job."""
        with self._store.open() as connection:
            return is_paused(connection)


def is_paused(connection: Any) -> bool:
    """Whether the user pauses the queue."""
    return connection.execute("SELECT 1 FROM user_pause LIMIT 1").fetchone() is not None


def waiting_jobs(connection: Any, only: Collection[int] | None = None) -> list[WaitingJob]:
    """The jobs that wait, in the user's order."""
    rows = connection.execute(
        "SELECT id, definition, position, created, CASE WHEN typeof(settings) = 'text' AND json_valid(settings) "
        "THEN json_extract(settings, '$.activated_loras') END AS loras FROM jobs WHERE state = 'queued'"
    )
    jobs = [as_waiting(row) for row in rows if only is None or row["id"] in only]
    return sorted(jobs, key=lambda job: (job.position, job.id))


def job_in(connection: Any, id: int) -> Job:
    """One job. Raises JobNotFound."""
    row = connection.execute("SELECT * FROM jobs WHERE id = ?", (id,)).fetchone()
    if row is None:
        raise JobNotFound(f"There is no job {id}.", hint="It may have been removed meanwhile.")
    return as_job(row)
