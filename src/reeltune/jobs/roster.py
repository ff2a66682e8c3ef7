"""The workers as every program can read them: a table in the queue's file, which the program that runs them writes.

Another program asks something of a worker by a word in its row, which the runner obeys within a second or two.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from reeltune.errors import QueueError, WorkerNotFound
from reeltune.jobs.crew import Member
from reeltune.jobs.job_log import log
from reeltune.jobs.schedule_values import JobNeeds
from reeltune.jobs.store import Store
from reeltune.untrusted import clean_text

_LOOK_SECONDS = 1.0
_MEMORY_SECONDS = 10.0  # between two rows that differ in nothing but the used memory


class WorkerRequest(StrEnum):
    """What can be asked of a worker. `DRAIN`: run no job after the current one. `END`: also release its memory then.
    `RESUME`: run jobs again.
    """

    DRAIN = "drain"
    END = "end"
    RESUME = "resume"


@dataclass(frozen=True)
class WorkerRow:
    """A worker as users see it.

    `state`: "busy", "free", "draining" or "drained". `holds`: the model and the LoRAs whose weights it holds. `job`:
    the id of the job that it runs. `used_bytes`: memory that its process uses; `memory_bytes`: memory of its device;
    None if unknown. `since`: when its job began or the last one ended, in seconds since 1970. `problem`: why it ended
    by itself, the last time.
    """

    name: str
    device: str
    node: str
    state: str
    holds: str = ""
    job: int | None = None
    used_bytes: int | None = None
    memory_bytes: int | None = None
    since: float = 0.0
    problem: str = ""


def row_of(member: Member, used_bytes: int | None) -> WorkerRow:
    """A worker of this program."""
    place = member.place
    return WorkerRow(
        name=member.name,
        device=place.device,
        node=place.node,
        state=member.state,
        holds=held_in_words(member.holds) if member.holds is not None else "",
        job=member.job,
        used_bytes=used_bytes,
        memory_bytes=place.memory_bytes,
        since=member.since,
        problem=member.problem,
    )


def held_in_words(needs: JobNeeds) -> str:
    """The model and the LoRAs of weights: "t2v + neon.safetensors"."""
    return " + ".join([needs.definition, *(Path(lora).name for lora in needs.loras)])


class Roster:
    """The table of one root. Raises QueueError where the file can't be used."""

    def __init__(self, store: Store) -> None:
        self._store = store

    @classmethod
    def of(cls, root: Path) -> Roster:
        """The table of a root."""
        return cls(Store(root))

    def rows(self) -> list[WorkerRow]:
        """All workers, in the order of their names."""
        with self._store.open() as connection:
            return [_as_row(row) for row in connection.execute("SELECT * FROM workers ORDER BY name")]

    def write(self, rows: Sequence[WorkerRow]) -> None:
        """Store the workers in place of those of before. Requests to them stay."""
        with self._store.write() as connection:
            asked = dict(connection.execute("SELECT name, request FROM workers").fetchall())
            connection.execute("DELETE FROM workers")
            connection.executemany(
                "INSERT INTO workers (name, device, node, state, holds, job, used_bytes, memory_bytes, since, problem, "
                "request) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [
                    (
                        row.name, row.device, row.node, row.state, clean_text(row.holds), row.job, row.used_bytes,
                        row.memory_bytes, row.since, clean_text(row.problem), asked.get(row.name, ""),
                    )
                    for row in rows
                ],
            )  # fmt: skip

    def ask(self, name: str, request: WorkerRequest) -> None:
        """Ask something of a worker. Raises WorkerNotFound."""
        with self._store.write() as connection:
            changed = connection.execute("UPDATE workers SET request = ? WHERE name = ?", (str(request), name))
            if not changed.rowcount:
                raise unknown_worker(name, [row[0] for row in connection.execute("SELECT name FROM workers")])

    def requests(self) -> dict[str, WorkerRequest]:
        """What was asked and not obeyed yet, by worker."""
        with self._store.open() as connection:
            rows = connection.execute("SELECT name, request FROM workers WHERE request != ''").fetchall()
        known = {str(request) for request in WorkerRequest}
        return {name: WorkerRequest(request) for name, request in rows if request in known}

    def obeyed(self, requests: Mapping[str, WorkerRequest]) -> None:
        """Requests were obeyed; newer ones stay."""
        with self._store.write() as connection:
            connection.executemany(
                "UPDATE workers SET request = '' WHERE name = ? AND request = ?",
                [(name, str(request)) for name, request in requests.items()],
            )


def unknown_worker(name: str, known: Sequence[str]) -> WorkerNotFound:
    """The error for a worker that isn't there."""
    shown = name if len(name) <= 60 else name[:59] + "…"
    hint = f"There are: {', '.join(known)}." if known else "No workers are running."
    return WorkerNotFound(f"There is no worker {shown!r}.", hint=hint)


def _as_row(row: sqlite3.Row) -> WorkerRow:
    return WorkerRow(
        name=str(row["name"]),
        device=str(row["device"]),
        node=str(row["node"]),
        state=str(row["state"]),
        holds=str(row["holds"]),
        job=_whole(row["job"]),
        used_bytes=_whole(row["used_bytes"]),
        memory_bytes=_whole(row["memory_bytes"]),
        since=float(row["since"]) if isinstance(row["since"], int | float) else 0.0,
        problem=str(row["problem"]),
    )


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) else None


class RosterKeeper:
    """A thread that writes the workers to the table, and obeys what is asked of them there."""

    def __init__(
        self,
        roster: Roster,
        rows: Callable[[], Sequence[WorkerRow]],
        obey: Callable[[str, WorkerRequest], None],
    ) -> None:
        self._roster, self._rows, self._obey = roster, rows, obey
        self._written: tuple[float, list[WorkerRow]] | None = None
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="reeltune-roster", daemon=True)

    def start(self) -> None:
        """Begin. Requests to an earlier program are dropped. Raises QueueError."""
        self._roster.write([])
        self.check()
        self._thread.start()

    def stop(self) -> None:
        """End the thread, and empty the table."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()
            try:
                self._roster.write([])
            except QueueError as error:
                log.debug("%s", error)

    def check(self) -> None:
        """Obey, and write what has changed. Raises QueueError."""
        requests = self._roster.requests()
        for name, request in requests.items():
            try:
                self._obey(name, request)
            except WorkerNotFound as error:  # it has left meanwhile
                log.debug("%s", error)
        if requests:
            self._roster.obeyed(requests)
        now, rows = time.monotonic(), list(self._rows())
        if self._written is not None:
            before, written = self._written
            if rows == written or (
                now - before < _MEMORY_SECONDS and _without_memory(rows) == _without_memory(written)
            ):
                return
        self._roster.write(rows)
        self._written = now, rows

    def _loop(self) -> None:
        while not self._stopped.wait(_LOOK_SECONDS):
            try:
                self.check()
            except QueueError as error:  # a locked file, say: it is tried again
                log.debug("%s", error)
            except Exception:  # the boundary of the thread: the table must be kept
                log.exception("The workers could not be stored")


def _without_memory(rows: Sequence[WorkerRow]) -> list[WorkerRow]:
    return [replace(row, used_bytes=None) for row in rows]
