"""Work that waits for a server, ended by a deadline or by the user, whatever the server does."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from reeltune.errors import Unreachable
from reeltune.events import CancelToken

_TICK_SECONDS = 0.1
_LAST_WAIT_SECONDS = 2.0  # for a thread that was stopped to leave its files alone
_T = TypeVar("_T")


def within(
    seconds: float | None,
    work: Callable[[], _T],
    *,
    stop: Callable[[], None],
    what: str,
    cancel: CancelToken | None = None,
    tick: Callable[[], None] | None = None,
) -> _T:
    """The result of `work`, which runs in a thread. `tick` is called here about ten times a second meanwhile.

    `stop` makes the work end soon: it is called where `seconds` pass (None: no limit), the token is cancelled, or
    this thread is interrupted. Raises what `work` raises; Unreachable (named by `what`) after `seconds`; Cancelled.
    """
    future: Future[_T] = Future()
    thread = threading.Thread(target=_run, args=(work, future), daemon=True, name="network")
    end = None if seconds is None else time.monotonic() + seconds
    if cancel is not None:
        cancel.check()
    thread.start()
    try:
        while True:
            thread.join(_TICK_SECONDS)
            if future.done():
                return future.result()
            if cancel is not None:
                cancel.check()
            if tick is not None:
                tick()
            if end is not None and time.monotonic() > end:
                raise Unreachable(f"{what}: no complete answer within {seconds:.0f} s.", hint="Try again later.")
    except BaseException:
        if not future.done():
            stop()
            thread.join(_LAST_WAIT_SECONDS)
        raise


def _run(work: Callable[[], _T], future: Future[_T]) -> None:
    try:
        future.set_result(work())
    except BaseException as error:  # raised again by the thread that waits
        future.set_exception(error)
