"""The worker process as seen from the page: started, spoken to, and its end put into words."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from reeltune.errors import WorkerDied
from reeltune.jobs.wire import line, parse

_PATIENCE_SECONDS = 10


class WorkerProcess:
    """One running worker. `events` ends when the process does."""

    def __init__(self, root: Path) -> None:
        command = [sys.executable, "-m", "reeltune.jobs.worker", "--root", str(root)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )  # a session of its own: Ctrl-C in the terminal is the page's to handle

    @property
    def pid(self) -> int:
        """Number of the process."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    def send(self, **message: Any) -> None:
        """Say something to it. Raises WorkerDied where it is gone."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line(message))
            self._process.stdin.flush()
        except (OSError, ValueError) as error:
            raise self.death() from error

    def events(self) -> Iterator[dict[str, Any]]:
        """What it says, until it ends."""
        assert self._process.stdout is not None
        for raw in self._process.stdout:
            try:
                yield parse(raw)
            except ValueError as error:
                self.kill()
                raise WorkerDied("The worker process said something that makes no sense.", hint=_NEXT) from error

    def death(self) -> WorkerDied:
        """Why it ended, in words."""
        try:
            code = self._process.wait(_PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            return WorkerDied("The worker process fell silent and was ended.", hint=_NEXT)
        return _words(code)

    def kill(self) -> None:
        """End it at once, from any thread; whoever reads `events` sees them end."""
        self._process.kill()

    def close(self) -> None:
        """Let it end: it does when its input does."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        try:
            self._process.wait(_PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


_NEXT = "Run it again; if it happens again, the terminal of the program says more."
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
    return WorkerDied(f"The worker process crashed ({name}).", hint=_NEXT)
