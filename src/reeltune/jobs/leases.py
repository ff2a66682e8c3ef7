"""Leases: until when a worker may keep a job without a sign that the program which started it is still there.

While a job runs its lease is renewed. Where a program was killed, or its machine lost, nobody renews the leases of its
jobs, and any other program marks them as interrupted.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection

from reeltune.errors import QueueError
from reeltune.jobs.job import Attempt
from reeltune.jobs.job_log import log
from reeltune.jobs.queue import Queue

LEASE_SECONDS = 60.0
_RENEW_SECONDS = 15.0


class LeaseKeeper:
    """A thread that renews the leases of `running()`, and then marks jobs whose lease has run out.

    In this order: after a laptop has slept, all leases have run out, also those of jobs that still run here.
    """

    def __init__(self, queue: Queue, running: Callable[[], Collection[Attempt]]) -> None:
        self._queue = queue
        self._running = running
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="reeltune-leases", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()

    def check(self) -> None:
        """Renew and mark once. Raises QueueError."""
        running = self._running()
        if running:
            self._queue.renew(running, LEASE_SECONDS)
        self._queue.recover()

    def _loop(self) -> None:
        while not self._stopped.wait(_RENEW_SECONDS):
            try:
                self.check()
            except QueueError as error:  # a locked file, say: it is tried again long before the leases run out
                log.debug("%s", error)
            except Exception:  # the boundary of the thread: other leases must still be renewed
                log.exception("The leases of the running jobs could not be renewed")
