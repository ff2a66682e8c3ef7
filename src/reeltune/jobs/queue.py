"""The queue: jobs in SQLite under the root, which outlive a closed browser, a restart and a crash.

queue = Queue(root)
job = queue.add("some_definition", {"prompt": "a paper boat"})
queue.move(job.id, 0)
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reeltune.errors import QueueError, SettingsError
from reeltune.families.vocabulary import KEYS
from reeltune.jobs.job import AGAIN, Job, State
from reeltune.jobs.store import Store, as_job, dumped
from reeltune.settings import check_call

_MOST_JOBS = 10_000  # waiting
_MOST_FINISHED = 500  # the oldest of them are forgotten; their videos stay
_MOST_SETTINGS = 200_000  # bytes of one job's
_MOST_IMPORTED = 20_000_000  # bytes of a file
_EXPORT_VERSION = 1


class Queue:
    """Jobs of one root. Every method is one transaction, so that threads and processes can share it.

    Raises QueueError where the file can't be used, a job doesn't exist, or isn't in a state for what is asked.
    """

    def __init__(self, root: Path) -> None:
        self._store = Store(root)

    # --- looking ------------------------------------------------------------------------------------------

    def jobs(self) -> list[Job]:
        """The running one, those that wait in their order, then the others, the latest first."""
        with self._store.open() as connection:
            rows = connection.execute(
                "SELECT * FROM jobs ORDER BY state = 'running' DESC, state = 'queued' DESC, "
                "CASE WHEN state = 'queued' THEN position END, finished DESC, id DESC"
            ).fetchall()
        return [as_job(row) for row in rows]

    def get(self, id: int) -> Job:
        """One job."""
        with self._store.open() as connection:
            return self._get(connection, id)

    def _get(self, connection: Any, id: int) -> Job:
        row = connection.execute("SELECT * FROM jobs WHERE id = ?", (id,)).fetchone()
        if row is None:
            raise QueueError(f"There is no job {id}.", hint="It may have been removed meanwhile.")
        return as_job(row)

    # --- what the user does ---------------------------------------------------------------------------------

    def add(self, definition: str, settings: Mapping[str, Any], *, extra: Mapping[str, Any] | None = None) -> Job:
        """A new job behind those that wait. Raises SettingsError for an unknown setting or an impossible value."""
        with self._store.write() as connection:
            return self._add(connection, definition, settings, extra or {})

    def _add(self, connection: Any, definition: str, settings: Mapping[str, Any], extra: Mapping[str, Any]) -> Job:
        waiting = connection.execute("SELECT COUNT(*) FROM jobs WHERE state = 'queued'").fetchone()[0]
        if waiting >= _MOST_JOBS:
            raise QueueError(f"{waiting:,} jobs wait already.", hint="Remove some first.")
        cursor = connection.execute(
            "INSERT INTO jobs (definition, settings, state, position, created, extra) VALUES (?, ?, 'queued', ?, ?, ?)",
            (definition, _checked(settings), self._last(connection) + 1, time.time(), dumped(extra)),
        )
        return self._get(connection, cursor.lastrowid)

    def _last(self, connection: Any) -> int:
        return int(connection.execute("SELECT COALESCE(MAX(position), 0) FROM jobs").fetchone()[0])

    def edit(self, id: int, settings: Mapping[str, Any], definition: str | None = None) -> Job:
        """Other settings, or another definition, for a job that waits."""
        with self._store.write() as connection:
            job = self._waiting(connection, id)
            connection.execute(
                "UPDATE jobs SET settings = ?, definition = ?, outputs = '[]', latents = '' WHERE id = ?",
                (_checked(settings), definition or job.definition, id),
            )
            return self._get(connection, id)

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
            raise QueueError(f"Job {id} doesn't wait any more.", hint="It has begun meanwhile.")
        self.move(id, waiting.index(id) + by)

    def remove(self, id: int) -> None:
        """Forget a job that isn't running; its videos stay."""
        with self._store.write() as connection:
            if self._get(connection, id).state is State.RUNNING:
                raise QueueError(f"Job {id} is running.", hint="Cancel it first.")
            connection.execute("DELETE FROM jobs WHERE id = ?", (id,))

    def clear_finished(self) -> int:
        """Forget all jobs that neither wait nor run; returns how many."""
        with self._store.write() as connection:
            gone = connection.execute("DELETE FROM jobs WHERE state NOT IN ('queued', 'running')")
            return int(gone.rowcount)

    def again(self, id: int) -> Job:
        """Let a job that ended, however it did, wait again: first in line where it can be resumed, else from anew."""
        with self._store.write() as connection:
            job = self._get(connection, id)
            if job.state not in AGAIN:
                raise QueueError(f"Job {id} is {job.state} already.")
            first = connection.execute("SELECT COALESCE(MIN(position), 1) FROM jobs WHERE state = 'queued'").fetchone()
            place = first[0] - 1 if job.resumable else self._last(connection) + 1
            outputs, latents = (job.outputs, job.latents) if job.resumable else ((), "")
            connection.execute(
                "UPDATE jobs SET state = 'queued', position = ?, started = 0, finished = 0, progress = '', error = '', "
                "hint = '', outputs = ?, latents = ?, notices = '[]' WHERE id = ?",
                (place, dumped(outputs), latents, id),
            )
            return self._get(connection, id)

    def _waiting(self, connection: Any, id: int) -> Job:
        job = self._get(connection, id)
        if not job.waiting:
            raise QueueError(f"Job {id} is {job.state}: it doesn't wait any more.")
        return job

    # --- what the runner does -------------------------------------------------------------------------------

    def take(self) -> Job | None:
        """The next job, running from now on; None where none waits. Two takers never get the same."""
        with self._store.write() as connection:
            row = connection.execute("SELECT id FROM jobs WHERE state = 'queued' ORDER BY position LIMIT 1").fetchone()
            if row is None:
                return None
            connection.execute("UPDATE jobs SET state = 'running', started = ? WHERE id = ?", (time.time(), row[0]))
            return self._get(connection, row[0])

    def note(self, id: int, progress: str) -> None:
        """Keep how far a running job is, for the day the program is killed."""
        with self._store.write() as connection:
            connection.execute("UPDATE jobs SET progress = ? WHERE id = ?", (progress, id))

    def keep(self, id: int, outputs: Sequence[str], latents: str = "") -> None:
        """Keep what a running job has made so far: its videos, and the file with the latents of the next one."""
        with self._store.write() as connection:
            connection.execute(
                "UPDATE jobs SET outputs = ?, latents = ? WHERE id = ?", (dumped([*outputs]), latents, id)
            )

    def finish(
        self,
        id: int,
        state: State,
        *,
        error: str = "",
        hint: str = "",
        outputs: Sequence[str] = (),
        notices: Sequence[str] = (),
    ) -> None:
        """A job has ended; the oldest of those that ended long ago are forgotten."""
        with self._store.write() as connection:
            connection.execute(
                "UPDATE jobs SET state = ?, finished = ?, error = ?, hint = ?, outputs = ?, notices = ? WHERE id = ?",
                (str(state), time.time(), error, hint, dumped(list(outputs)), dumped(list(notices)), id),
            )
            connection.execute(
                "DELETE FROM jobs WHERE id IN (SELECT id FROM jobs WHERE state NOT IN ('queued', 'running') "
                "ORDER BY finished DESC LIMIT -1 OFFSET ?)",
                (_MOST_FINISHED,),
            )

    def recover(self) -> int:
        """Mark jobs that a program left running as interrupted; returns how many. Only while nothing runs."""
        with self._store.write() as connection:
            cursor = connection.execute(
                "UPDATE jobs SET state = 'interrupted', finished = ?, error = 'The program ended while it ran.', "
                "hint = 'Resume it, or remove it.' WHERE state = 'running'",
                (time.time(),),
            )
            return int(cursor.rowcount)

    # --- files ----------------------------------------------------------------------------------------------

    def export(self) -> str:
        """The waiting jobs as JSON, for `import_text` here or elsewhere."""
        rows = [
            {**job.extra, "definition": job.definition, "settings": dict(job.settings)}
            for job in self.jobs()
            if job.waiting
        ]
        return json.dumps({"schema_version": _EXPORT_VERSION, "jobs": rows}, indent=2, ensure_ascii=False, default=str)

    def import_text(self, text: str) -> list[Job]:
        """Add the jobs of an exported file, all or none. Unknown fields are kept. Raises QueueError, SettingsError."""
        rows = _read_export(text)
        with self._store.write() as connection:
            return [self._add(connection, *row) for row in rows]


def _checked(settings: Mapping[str, Any]) -> str:
    text = dumped(check_call(settings))
    if len(text) > _MOST_SETTINGS:
        raise SettingsError(
            f"The settings have {len(text):,} characters.", hint=f"At most {_MOST_SETTINGS:,} are kept."
        )
    return text


def _read_export(text: str) -> list[tuple[str, dict[str, Any], dict[str, Any]]]:
    if len(text) > _MOST_IMPORTED:
        raise QueueError(f"The file has {len(text):,} characters: that is no queue.")
    try:
        value = json.loads(text.removeprefix("\ufeff"))
    except (ValueError, RecursionError) as error:
        raise QueueError(f"The file is not JSON: {error}.", hint="Choose a file that was exported here.") from error
    rows = value.get("jobs") if isinstance(value, dict) else None
    if not isinstance(rows, list):
        raise QueueError("The file holds no list of jobs.", hint="Choose a file that was exported here.")
    found = []
    for number, row in enumerate(rows, start=1):
        definition = row.get("definition") if isinstance(row, dict) else None
        settings = row.get("settings") if isinstance(row, dict) else None
        if not isinstance(definition, str) or not isinstance(settings, dict):
            raise QueueError(f"Job {number} of the file lacks its `definition` or its `settings`.")
        known = {key: item for key, item in settings.items() if key in KEYS}
        extra = {key: item for key, item in row.items() if key not in ("definition", "settings")}
        if later := {key: item for key, item in settings.items() if key not in KEYS}:
            extra["unknown_settings"] = later  # of a newer version, say
        found.append((definition, known, extra))
    return found
