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

from reeltune.errors import InvalidJSON, QueueError, SettingsError
from reeltune.jobs.confine import Confinement
from reeltune.jobs.job import AGAIN, Job, State
from reeltune.jobs.rows import LARGEST_PLACE, as_job, dumped
from reeltune.jobs.store import Store
from reeltune.settings import check_call, read_settings
from reeltune.untrusted import clean_text, parse_json

_MOST_JOBS = 10_000  # waiting
_MOST_DONE = 500  # the oldest of them are removed from the list; their videos stay
_MOST_SETTINGS = 200_000  # characters of one job's
_MOST_IMPORTED = 20_000_000  # characters of a file
_EXPORT_VERSION = 1
_Row = tuple[str, Mapping[str, Any], Mapping[str, Any]]  # definition, settings, unknown fields


class Queue:
    """Jobs of one root. Every method is one transaction, so that threads and processes can share it.

    `confined`: whether jobs that are added may name no files outside the root, the folder of videos and the model
    folders. Raises QueueError where the file can't be used, a job doesn't exist, or isn't in a state for what is asked.
    """

    def __init__(self, root: Path, *, confined: bool = False) -> None:
        self._root, self._confined = root, confined
        self._store = Store(root)

    @property
    def notice(self) -> str:
        """What was wrong with the file when it was opened; usually empty."""
        return self._store.notice

    # --- looking ------------------------------------------------------------------------------------------

    def jobs(self) -> list[Job]:
        """The running one, those that wait in their order, then the others, the latest first."""
        with self._store.open() as connection:
            rows = connection.execute(
                "SELECT * FROM jobs ORDER BY state = 'running' DESC, state = 'queued' DESC, "
                "CASE WHEN state = 'queued' THEN position END, ended DESC, id DESC"
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
        """A new job behind those that wait. Raises SettingsError for an unknown setting, an impossible value, or a
        path that a confined queue refuses.
        """
        return self._add([(definition, settings, extra or {})])[0]

    def _add(self, rows: Sequence[_Row]) -> list[Job]:
        """Add jobs, all or none."""
        confined = self._confinement()
        checked = [(clean_text(id), self._checked(settings, confined), dumped(extra)) for id, settings, extra in rows]
        with self._store.write() as connection:
            waiting = connection.execute("SELECT COUNT(*) FROM jobs WHERE state = 'queued'").fetchone()[0]
            if waiting + len(checked) > _MOST_JOBS:
                raise QueueError(
                    f"{waiting:,} jobs wait already, of {_MOST_JOBS:,} at most.", hint="Remove some first."
                )
            place = self._last(connection)
            ids = []
            for number, (definition, settings, extra) in enumerate(checked, start=1):
                cursor = connection.execute(
                    "INSERT INTO jobs (definition, settings, state, position, created, extra, confined) "
                    "VALUES (?, ?, 'queued', ?, ?, ?, ?)",
                    (definition, settings, place + number, time.time(), extra, int(self._confined)),
                )
                ids.append(cursor.lastrowid or 0)
            return [self._get(connection, id) for id in ids]

    def _confinement(self) -> Confinement | None:
        return Confinement.of(self._root) if self._confined else None

    def _checked(self, settings: Mapping[str, Any], confinement: Confinement | None) -> str:
        """Settings as they are stored. Raises SettingsError."""
        values = check_call(settings)
        if confinement is not None:
            confinement.check_settings(values)
        text = dumped(values)
        if len(text) > _MOST_SETTINGS:
            message = f"The settings have {len(text):,} characters."
            raise SettingsError(message, hint=f"At most {_MOST_SETTINGS:,} are kept.")
        try:
            parse_json(text, "the settings")
        except InvalidJSON as error:
            raise SettingsError(f"The settings can't be kept: {error.message}") from error
        return text

    def _last(self, connection: Any) -> int:
        query = "SELECT COALESCE(MAX(position), 0) FROM jobs WHERE typeof(position) = 'integer' AND position < ?"
        return int(connection.execute(query, (LARGEST_PLACE,)).fetchone()[0])

    def edit(self, id: int, settings: Mapping[str, Any], definition: str | None = None) -> Job:
        """Other settings, or another definition, for a job that waits."""
        text = self._checked(settings, self._confinement())
        with self._store.write() as connection:
            job = self._waiting(connection, id)
            connection.execute(
                "UPDATE jobs SET settings = ?, definition = ?, outputs = '[]', latents = '', confined = ? WHERE id = ?",
                (text, clean_text(definition or job.definition), int(self._confined or job.confined), id),
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

    def cancel(self, id: int) -> None:
        """Take a waiting job out of the line."""
        with self._store.write() as connection:
            self._waiting(connection, id)
            self._end(connection, id, State.CANCELLED)

    def clear_finished(self) -> int:
        """Forget all jobs that neither wait nor run; returns how many."""
        with self._store.write() as connection:
            gone = connection.execute("DELETE FROM jobs WHERE state NOT IN ('queued', 'running')")
            return int(gone.rowcount)

    def again(self, id: int) -> Job:
        """Let a job that ended, however it did, wait again: first in line where it can be resumed, else from anew."""
        with self._store.write() as connection:
            job = self._get(connection, id)
            if job.damaged:
                raise QueueError(job.error, hint=job.hint)
            if job.state not in AGAIN:
                raise QueueError(f"Job {id} is {job.state} already.")
            place = self._first(connection) - 1 if job.resumable else self._last(connection) + 1
            outputs, latents = (job.outputs, job.latents) if job.resumable else ((), "")
            connection.execute(
                "UPDATE jobs SET state = 'queued', position = ?, started = 0, finished = 0, progress = '', error = '', "
                "hint = '', outputs = ?, latents = ?, notices = '[]' WHERE id = ?",
                (place, dumped(outputs), latents, id),
            )
            return self._get(connection, id)

    def _first(self, connection: Any) -> int:
        query = (
            "SELECT COALESCE(MIN(position), 1) FROM jobs "
            "WHERE state = 'queued' AND typeof(position) = 'integer' AND position > ?"
        )
        return int(connection.execute(query, (-LARGEST_PLACE,)).fetchone()[0])

    def _waiting(self, connection: Any, id: int) -> Job:
        job = self._get(connection, id)
        if not job.waiting:
            raise QueueError(f"Job {id} is {job.state}: it doesn't wait any more.")
        return job

    # --- what the runner does -------------------------------------------------------------------------------

    def take(self) -> Job | None:
        """The next job, running from now on; None where none waits. Two takers never get the same.

        A job whose row is damaged is marked as failed and passed over.
        """
        with self._store.write() as connection:
            while True:
                row = connection.execute(
                    "SELECT * FROM jobs WHERE state = 'queued' ORDER BY position, id LIMIT 1"
                ).fetchone()
                if row is None:
                    return None
                job = as_job(row)
                if not job.damaged:
                    break
                self._end(connection, row["id"], State.FAILED, error=job.error, hint=job.hint)
            connection.execute(
                "UPDATE jobs SET state = 'running', started = ?, attempt = ? WHERE id = ?",
                (time.time(), job.attempt + 1, job.id),
            )
            return self._get(connection, job.id)

    def note(self, id: int, progress: str) -> None:
        """Keep how far a running job is, for the day the program is killed."""
        with self._store.write() as connection:
            connection.execute("UPDATE jobs SET progress = ? WHERE id = ?", (clean_text(progress), id))

    def keep(self, id: int, outputs: Sequence[str], latents: str = "") -> None:
        """Keep what a running job has made so far: its videos, and the file with the latents of the next one."""
        with self._store.write() as connection:
            connection.execute(
                "UPDATE jobs SET outputs = ?, latents = ? WHERE id = ?",
                (dumped([*outputs]), clean_text(latents), id),
            )

    def finish(
        self,
        id: int,
        state: State,
        *,
        error: str = "",
        hint: str = "",
        outputs: Sequence[str] | None = None,
        notices: Sequence[str] | None = None,
    ) -> None:
        """A job has ended; None leaves its videos or notices as they are.

        The oldest of many done jobs are removed from the list; what failed, was cancelled or interrupted stays until
        the user removes it.
        """
        with self._store.write() as connection:
            if outputs is not None:
                connection.execute("UPDATE jobs SET outputs = ? WHERE id = ?", (dumped(outputs), id))
            if notices is not None:
                connection.execute("UPDATE jobs SET notices = ? WHERE id = ?", (dumped(notices), id))
            self._end(connection, id, state, error=error, hint=hint)
            connection.execute(
                "DELETE FROM jobs WHERE id IN (SELECT id FROM jobs WHERE state = 'done' "
                "ORDER BY ended DESC, id DESC LIMIT -1 OFFSET ?)",
                (_MOST_DONE,),
            )

    def restore(self, job: Job) -> None:
        """Write the row of a running job again, where it is gone: the file was moved away meanwhile, say."""
        with self._store.write() as connection:
            connection.execute(
                "INSERT OR IGNORE INTO jobs (id, definition, settings, state, position, created, started, extra, "
                "attempt, confined) VALUES (?, ?, ?, 'running', ?, ?, ?, ?, ?, ?)",
                (
                    job.id, job.definition, dumped(job.settings), job.position, job.created, job.started,
                    dumped(job.extra), job.attempt, int(job.confined),
                ),
            )  # fmt: skip

    def _end(self, connection: Any, id: int, state: State, *, error: str = "", hint: str = "") -> None:
        """Write the end of a job: no earlier than its start, and after all that ended before, whatever the clock."""
        connection.execute(
            "UPDATE jobs SET state = ?, finished = MAX(?, started), error = ?, hint = ?, ended = "
            "(SELECT COALESCE(MAX(ended), 0) + 1 FROM jobs WHERE typeof(ended) = 'integer' AND ended < ?) WHERE id = ?",
            (str(state), time.time(), clean_text(error), clean_text(hint), LARGEST_PLACE, id),
        )

    def recover(self) -> int:
        """Mark jobs that a program left running as interrupted; returns how many. Only while nothing runs."""
        with self._store.write() as connection:
            ids = [row[0] for row in connection.execute("SELECT id FROM jobs WHERE state = 'running'")]
            for id in ids:
                error, hint = "The program ended while it ran.", "Resume it, or remove it."
                self._end(connection, id, State.INTERRUPTED, error=error, hint=hint)
            return len(ids)

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
        return self._add(_read_export(text))


def _read_export(text: str) -> list[_Row]:
    try:
        value = parse_json(text, "The file", max_bytes=_MOST_IMPORTED)
    except InvalidJSON as error:
        raise QueueError(str(error), hint="Choose a file that was exported here.") from error
    rows = value.get("jobs") if isinstance(value, dict) else None
    if not isinstance(rows, list):
        raise QueueError("The file holds no list of jobs.", hint="Choose a file that was exported here.")
    if len(rows) > _MOST_JOBS:
        raise QueueError(f"The file holds {len(rows):,} jobs, of {_MOST_JOBS:,} at most.")
    found: list[_Row] = []
    for number, row in enumerate(rows, start=1):
        definition = row.get("definition") if isinstance(row, dict) else None
        settings = row.get("settings") if isinstance(row, dict) else None
        if not isinstance(definition, str) or not isinstance(settings, dict):
            raise QueueError(f"Job {number} of the file lacks its `definition` or its `settings`.")
        stored = read_settings(settings)
        left_out = {*stored.unknown, *(problem.where for problem in stored.problems)}
        extra = {key: item for key, item in row.items() if key not in ("definition", "settings")}
        if left_out:  # of a newer version, say
            extra["unknown_settings"] = {key: item for key, item in settings.items() if key in left_out}
        found.append((definition, stored.settings, extra))
    return found
