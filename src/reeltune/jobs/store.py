"""The queue's file: one table in SQLite, brought up to date by numbered steps, and rows as `Job` values."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from reeltune.errors import QueueError
from reeltune.jobs.job import Job, State

FILE_NAME = "reeltune.sqlite"
_WAIT_SECONDS = 10.0

# Never change a step that was released: add one. `PRAGMA user_version` counts those that were done.
_STEPS = (
    """
    CREATE TABLE jobs (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        definition TEXT NOT NULL,
        settings TEXT NOT NULL,
        state TEXT NOT NULL,
        position INTEGER NOT NULL,
        created REAL NOT NULL,
        started REAL NOT NULL DEFAULT 0,
        finished REAL NOT NULL DEFAULT 0,
        progress TEXT NOT NULL DEFAULT '',
        error TEXT NOT NULL DEFAULT '',
        hint TEXT NOT NULL DEFAULT '',
        outputs TEXT NOT NULL DEFAULT '[]',
        notices TEXT NOT NULL DEFAULT '[]',
        extra TEXT NOT NULL DEFAULT '{}'
    );
    CREATE INDEX jobs_by_state ON jobs (state, position);
    """,
    "ALTER TABLE jobs ADD COLUMN latents TEXT NOT NULL DEFAULT ''",
)
_LISTS = ("outputs", "notices")
_OBJECTS = ("settings", "extra")


class Store:
    """Opens the file for one transaction at a time; several threads and processes may do so."""

    def __init__(self, root: Path) -> None:
        self.path = root / FILE_NAME
        try:
            root.mkdir(parents=True, exist_ok=True)
            with self.open() as connection:
                connection.execute("PRAGMA journal_mode = WAL")  # readers never wait for a writer
            with self.write() as connection:
                self._bring_up_to_date(connection)
        except OSError as error:
            message = f"{self.path} can't be written: {error.strerror or error}."
            raise QueueError(message, hint="Check the folder, or name another with --root.") from error

    def _bring_up_to_date(self, connection: sqlite3.Connection) -> None:
        done = connection.execute("PRAGMA user_version").fetchone()[0]
        if done > len(_STEPS):
            raise QueueError(
                f"{self.path} was written by a newer version of this program.", hint="Update reeltune, or move it away."
            )
        for step in _STEPS[done:]:
            for statement in step.split(";"):
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {len(_STEPS)}")

    @contextlib.contextmanager
    def open(self) -> Iterator[sqlite3.Connection]:
        """A connection for reading. Raises QueueError where the file is no queue."""
        try:
            connection = sqlite3.connect(self.path, timeout=_WAIT_SECONDS, isolation_level=None)
            connection.row_factory = sqlite3.Row
            try:
                connection.execute("PRAGMA synchronous = FULL")  # a job that was taken in outlives a power cut
                yield connection
            finally:
                connection.close()
        except sqlite3.Error as error:
            message = f"The queue in {self.path} can't be used: {error}."
            raise QueueError(message, hint="Check the disk; move the file away to start an empty queue.") from error

    @contextlib.contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """A transaction that nobody else writes beside: all of it counts, or nothing."""
        with self.open() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")


def as_job(row: sqlite3.Row) -> Job:
    """A row as a value; what a damaged or newer file holds besides is read as far as it goes."""
    values: dict[str, Any] = {name: row[name] for name in row.keys() if name in Job.__dataclass_fields__}  # noqa: SIM118
    for name in _OBJECTS:
        values[name] = _parsed(values[name], dict)
    for name in _LISTS:
        values[name] = tuple(str(item) for item in _parsed(values[name], list))
    known = {str(state) for state in State}
    values["state"] = State(values["state"] if values["state"] in known else State.INTERRUPTED)
    return Job(**values)


def _parsed(text: str, kind: type) -> Any:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return kind()
    return value if isinstance(value, kind) else kind()


def dumped(value: Mapping[str, Any] | list[str] | tuple[str, ...]) -> str:
    """A value as it is stored."""
    return json.dumps(value, ensure_ascii=False, default=str)
