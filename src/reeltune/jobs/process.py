"""A worker process as seen from the process that started it: messages to it and from it, and why it ended."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import IO

from reeltune.errors import WorkerDied
from reeltune.files import reason
from reeltune.jobs.codec import ReceivedEvent, pack_task, unpack_event
from reeltune.jobs.job_log import log
from reeltune.jobs.messages import Task

_PATIENCE_SECONDS = 10
_MOST_PROBLEMS = 20  # of messages that are logged for one process


class WorkerProcess:
    """One running process. `events` ends when the process does. Raises WorkerDied where it can't be started.

    `environment`: variables besides those of this program.

    Messages are written by a thread of its own: a process that is stopped reads nothing, and a pipe holds 64 KB.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        self._problems: set[str] = set()
        self._killed = False
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                start_new_session=True,
                env={**os.environ, **environment} if environment else None,
            )  # a session of its own: Ctrl-C in the terminal is the page's to handle
        except (OSError, ValueError) as error:
            message = f"The worker process can't be started: {reason(error)}."
            raise WorkerDied(message, hint="Check the free memory and the number of processes.") from error
        self._outgoing: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._writer = threading.Thread(target=self._write, name="reeltune-worker-input", daemon=True)
        self._writer.start()

    @property
    def pid(self) -> int:
        """Number of the process."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it still runs, and nobody has ended it."""
        return not self._killed and self._process.poll() is None

    def send(self, task: Task) -> None:
        """Send a task, without ever waiting; where the process is gone, `events` ends."""
        self.send_line(pack_task(task))

    def send_line(self, raw: bytes) -> None:
        """Send a line that is ready, without ever waiting."""
        self._outgoing.put(raw)

    def _write(self) -> None:
        stream = _stream(self._process.stdin)
        with contextlib.suppress(OSError, ValueError):  # the process is gone, which `events` notices
            while (raw := self._outgoing.get()) is not None:
                stream.write(raw)
                stream.flush()
        with contextlib.suppress(OSError, ValueError):
            stream.close()  # a worker ends where its input does

    def events(self) -> Iterator[ReceivedEvent]:
        """Its events, until it ends; one that can't be understood is logged. Raises WorkerDied for a broken line."""
        for line in self.lines():
            try:
                received = unpack_event(line)
            except ValueError as error:
                self.kill()
                raise WorkerDied("The worker process sent a message that can't be read.", hint=_NEXT) from error
            for problem in received.problems:
                self._log_once(problem)
            yield received

    def lines(self) -> Iterator[bytes]:
        """What it writes, line by line, until it ends."""
        for line in _stream(self._process.stdout):  # noqa: UP028 - `yield from` would close the pipe with this generator
            yield line

    def _log_once(self, problem: str) -> None:
        if problem not in self._problems and len(self._problems) < _MOST_PROBLEMS:
            self._problems.add(problem)
            log.warning("The worker process %d: %s", self.pid, problem)

    def death(self) -> WorkerDied:
        """Why it ended, in words."""
        try:
            code = self._process.wait(_PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            return WorkerDied("The worker process stopped answering and was ended.", hint=_NEXT)
        return _reason(code)

    def kill(self) -> None:
        """End it at once, from any thread; whoever reads `events` sees them end."""
        self._killed = True
        with contextlib.suppress(OSError):  # it has ended by itself
            self._process.kill()

    def close(self) -> None:
        """Let it end, which it does when its input does, or end it; then release its pipes."""
        self._outgoing.put(None)
        try:
            self._process.wait(_PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            self._process.wait()
        self._writer.join(_PATIENCE_SECONDS)
        with contextlib.suppress(OSError):
            _stream(self._process.stdout).close()


def _stream(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None  # both are pipes
    return stream


_NEXT = "Run it again; if it happens again, the terminal of the program shows more."
_MEMORY = "Try a smaller resolution, fewer frames, or an int8 version of the model; then run it again."


def _reason(code: int) -> WorkerDied:
    """A return code as a reason: below 0 it is the number of a signal, on systems that have them."""
    if code >= 0:
        return WorkerDied(f"The worker process ended by itself (code {code}).", hint=_NEXT)
    if os.name == "posix" and -code == signal.SIGKILL:
        message = "The worker process was killed (signal 9), probably by the system for lack of memory."
        return WorkerDied(message, hint=_MEMORY)
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return WorkerDied(f"The worker process crashed ({name}).", hint=_NEXT, signal=name)
