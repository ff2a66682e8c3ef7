"""The worker process as seen from the page: started, spoken to, and its end put into words."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Protocol

from reeltune.errors import WorkerDied
from reeltune.files import reason
from reeltune.jobs.wire import line, parse

_PATIENCE_SECONDS = 10


class WorkerLike(Protocol):
    """What the runner needs of a worker; `WorkerProcess` is the real one."""

    @property
    def pid(self) -> int:
        """Number of the process."""

    @property
    def alive(self) -> bool:
        """Whether it still runs."""

    def send(self, **message: Any) -> None:
        """Send a message, without ever waiting for the worker to read it."""

    def events(self) -> Iterator[dict[str, Any]]:
        """Its messages, until it ends. Raises WorkerDied."""

    def death(self) -> WorkerDied:
        """Why it ended, in words."""

    def kill(self) -> None:
        """End it at once, from any thread; whoever reads `events` sees them end."""

    def close(self) -> None:
        """End it, and release what belongs to it."""


class WorkerProcess:
    """One running worker. `events` ends when the process does. Raises WorkerDied where it can't be started.

    Messages are written by a thread of its own: a process that is stopped reads nothing, and a pipe holds 64 KB.
    """

    def __init__(self, root: Path, options: Sequence[str] = ()) -> None:
        command = [sys.executable, "-m", "reeltune.jobs.worker", "--root", str(root), *options]
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
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
        """Whether it still runs."""
        return self._process.poll() is None

    def send(self, **message: Any) -> None:
        """Send a message, without ever waiting; where the process is gone, `events` ends."""
        self._outgoing.put(line(message))

    def _write(self) -> None:
        stream = _stream(self._process.stdin)
        with contextlib.suppress(OSError, ValueError):  # the process is gone, which `events` notices
            while (raw := self._outgoing.get()) is not None:
                stream.write(raw)
                stream.flush()
        with contextlib.suppress(OSError, ValueError):
            stream.close()  # a worker ends where its input does

    def events(self) -> Iterator[dict[str, Any]]:
        """Its messages, until it ends. Raises WorkerDied for one that can't be read."""
        for raw in _stream(self._process.stdout):
            try:
                message = parse(raw)
            except ValueError as error:
                self.kill()
                raise WorkerDied("The worker process sent a message that can't be read.", hint=_NEXT) from error
            yield message

    def death(self) -> WorkerDied:
        """Why it ended, in words."""
        try:
            code = self._process.wait(_PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            return WorkerDied("The worker process stopped answering and was ended.", hint=_NEXT)
        return _words(code)

    def kill(self) -> None:
        """End it at once, from any thread; whoever reads `events` sees them end."""
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


def _words(code: int) -> WorkerDied:
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
