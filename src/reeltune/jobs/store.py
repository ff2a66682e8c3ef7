"""The queue's file: the jobs and the user's pause in SQLite, brought up to date by numbered migrations."""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

from reeltune.errors import QueueError
from reeltune.files import is_file, reason
from reeltune.untrusted import decode_text

FILE_NAME = "reeltune.sqlite"
_WAIT_SECONDS = 10.0
_LOCKED = "Another program is writing to it."
_COMPANIONS = ("", "-wal", "-shm")

# Never change a migration that was released: add one. `PRAGMA user_version` counts those that were done.
_MIGRATIONS = (
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
    # `ended` numbers the jobs in the order in which they ended, whatever the clock showed
    """
    ALTER TABLE jobs ADD COLUMN attempt INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE jobs ADD COLUMN confined INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE jobs ADD COLUMN ended INTEGER NOT NULL DEFAULT 0;
    UPDATE jobs SET ended = (
        SELECT COUNT(*) FROM jobs AS other WHERE (other.finished, other.id) <= (jobs.finished, jobs.id)
    ) WHERE state NOT IN ('queued', 'running')
    """,
    # which worker runs a job, and until when (seconds since 1970) it may do so without renewing that time
    """
    ALTER TABLE jobs ADD COLUMN worker TEXT NOT NULL DEFAULT '';
    ALTER TABLE jobs ADD COLUMN lease REAL NOT NULL DEFAULT 0
    """,
    # one row while the user pauses the queue, with the time at which the pause began (seconds since 1970)
    "CREATE TABLE user_pause (began REAL NOT NULL)",
    # how many workers in a row have died while they ran a job
    "ALTER TABLE jobs ADD COLUMN deaths INTEGER NOT NULL DEFAULT 0",
    # the workers of the program that runs the jobs, and what other programs ask of them
    """
    CREATE TABLE workers (
        name TEXT PRIMARY KEY,
        device TEXT NOT NULL,
        node TEXT NOT NULL,
        state TEXT NOT NULL,
        holds TEXT NOT NULL,
        job INTEGER,
        used_bytes INTEGER,
        memory_bytes INTEGER,
        since REAL NOT NULL,
        problem TEXT NOT NULL,
        request TEXT NOT NULL DEFAULT ''
    )
    """,
)
COLUMNS = (
    "id", "definition", "settings", "state", "position", "created", "started", "finished", "progress", "error", "hint",
    "outputs", "notices", "extra", "latents", "attempt", "confined", "ended",
    "worker", "lease", "deaths",
)  # fmt: skip
_NOT_A_QUEUE = frozenset({sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_log = logging.getLogger("reeltune.jobs")


class Store:
    """Opens the file for one transaction at a time; several threads and processes may do so.

    A file that is no queue, or a damaged one, is renamed and an empty queue begun; `notice` reports it. One connection
    stays open and idle: SQLite deletes its two side files with the last one, and without them a full disk would keep
    the queue from being read.
    """

    def __init__(self, root: Path) -> None:
        self.path = root / FILE_NAME
        self.notice = ""
        self._writing = threading.Lock()  # threads wait for each other here: SQLite lets them ask again after delays
        self._close: Callable[[], object] = _nothing
        try:
            root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            message = f"{root} can't be made: {reason(error)}."
            raise QueueError(message, hint="Check the folder, or name another with --root.") from error
        try:
            self._prepare()
        except QueueError as error:
            if not _is_damage(error.__cause__) and not self._is_no_file():
                raise
            self.notice = self._set_aside(error)
            self._prepare()

    def _prepare(self) -> None:
        """Create the file where it isn't there, and bring its tables up to date."""
        with self._connect("rwc") as connection:
            connection.execute("PRAGMA journal_mode = WAL")  # readers never wait for a writer
            with _transaction(connection):
                self._bring_up_to_date(connection)
            connection.execute(f"SELECT {', '.join(COLUMNS)} FROM jobs LIMIT 1")
            connection.execute("SELECT began FROM user_pause LIMIT 1")
            connection.execute("SELECT name, request FROM workers LIMIT 1")
            result = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            if result != "ok":
                error = sqlite3.DatabaseError(str(result))
                error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
                raise error
            self._hold_open()

    def _is_no_file(self) -> bool:
        """Whether something stands under the file's name that is no file: a folder, a pipe, a link to nowhere."""
        return os.path.lexists(self.path) and not is_file(self.path)

    def _hold_open(self) -> None:
        self._close()
        idle = sqlite3.connect(self.path, timeout=_WAIT_SECONDS, isolation_level=None, check_same_thread=False)
        self._close = weakref.finalize(self, idle.close)
        idle.execute("SELECT id FROM jobs LIMIT 1").fetchall()

    def _bring_up_to_date(self, connection: sqlite3.Connection) -> None:
        done = connection.execute("PRAGMA user_version").fetchone()[0]
        if done > len(_MIGRATIONS):
            raise QueueError(
                f"{self.path} was written by a newer version of this program.", hint="Update reeltune, or move it away."
            )
        for migration in _MIGRATIONS[max(0, done) :]:
            for statement in migration.split(";"):
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {len(_MIGRATIONS)}")

    def _set_aside(self, error: QueueError) -> str:
        """Rename a file that can't be used, with all that belongs to it. Returns what to report."""
        kept = self.path.with_name(f"{FILE_NAME}.damaged-{time.time_ns()}")
        try:
            for suffix in _COMPANIONS:
                companion = Path(f"{self.path}{suffix}")
                if os.path.lexists(companion):
                    companion.rename(f"{kept}{suffix}")
        except OSError as failure:
            raise error from failure
        notice = f"{error.message} It is kept as {kept.name}, and the queue begins empty."
        _log.error(notice)
        return notice

    @contextlib.contextmanager
    def open(self) -> Iterator[sqlite3.Connection]:
        """A connection for reading. Raises QueueError where the file is gone or can't be used."""
        if not os.path.lexists(self.path) and self.path.parent.is_dir():
            self._close()
            self._prepare()  # someone moved it away to begin an empty queue
        with self._connect("rw") as connection:
            yield connection

    @contextlib.contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """A transaction that nobody else writes beside: all of it counts, or nothing."""
        if not self._writing.acquire(timeout=_WAIT_SECONDS):
            raise QueueError(f"The queue in {self.path} can't be used: it is locked.", hint=_LOCKED)
        try:
            with self.open() as connection, _transaction(connection):
                yield connection
        finally:
            self._writing.release()

    @contextlib.contextmanager
    def _connect(self, mode: str) -> Iterator[sqlite3.Connection]:
        """A connection; `mode` "rw" never makes a new file, where a folder was moved, say."""
        try:
            address = f"{self.path.absolute().as_uri()}?mode={mode}"
            connection = sqlite3.connect(address, uri=True, timeout=_WAIT_SECONDS, isolation_level=None)
            connection.row_factory = sqlite3.Row
            connection.text_factory = decode_text
            try:
                connection.execute("PRAGMA synchronous = FULL")  # a job that was added outlives a power cut
                yield connection
            finally:
                connection.close()
        except (sqlite3.Error, OverflowError, UnicodeError) as error:
            message = f"The queue in {self.path} can't be used: {error}."
            raise QueueError(message, hint=_hint(error)) from error


def copy_queue(root: Path, folder: Path) -> None:
    """Copy the queue of a root, if it has one, into another folder. Its own file isn't changed. Raises QueueError."""
    path = root / FILE_NAME
    if not path.exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with (
            contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as source,
            contextlib.closing(sqlite3.connect(folder / FILE_NAME)) as copy,
        ):
            source.backup(copy)
    except sqlite3.Error as error:
        raise QueueError(f"The queue in {path} can't be read: {error}.", hint=_hint(error)) from error


def _nothing() -> None:
    """Close nothing: no connection is held open yet."""


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):  # a full disk has ended it already
            connection.execute("ROLLBACK")
        raise


def _hint(error: Exception) -> str:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return _LOCKED
    if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
        return "Check the disk: it may be full."
    return "Check the folder and its permissions; move the file away to begin an empty queue."


def _is_damage(error: BaseException | None) -> bool:
    """Whether an error comes of what the file holds, not of a lock, the disk or permissions."""
    code = getattr(error, "sqlite_errorcode", None)
    return isinstance(code, int) and code & 0xFF in _NOT_A_QUEUE
