"""Run blocking network calls with a time limit and cancellation."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from reeltune.errors import Unreachable
from reeltune.events import CancelToken

_TICK_SECONDS = 0.1
_STOP_SECONDS = 2.0  # for a stopped thread to close its files
_T = TypeVar("_T")


def run_within(
    seconds: float | None,
    work: Callable[[], _T],
    *,
    stop: Callable[[], None],
    name: str,
    cancel: CancelToken | None = None,
    tick: Callable[[], None] | None = None,
) -> _T:
    """The result of `work`, which is run in a thread.

    `seconds`: the time limit, None for no limit. `stop`: makes `work` end soon; it is called after the time limit, on
    cancellation, and if this thread is interrupted. `name`: what errors call the work. `tick`: called in this thread
    about ten times a second.

    Raises what `work` raises, Unreachable after the time limit, and Cancelled.
    """
    future: Future[_T] = Future()
    thread = threading.Thread(target=_run, args=(work, future), daemon=True, name="network")
    deadline = None if seconds is None else time.monotonic() + seconds
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
            if deadline is not None and time.monotonic() > deadline:
                raise Unreachable(f"{name}: no complete response within {seconds:.0f} s.", hint="Try again later.")
    except BaseException:
        if not future.done():
            stop()
            thread.join(_STOP_SECONDS)
        raise


def _run(work: Callable[[], _T], future: Future[_T]) -> None:
    try:
        future.set_result(work())
    except BaseException as error:  # raised again in the waiting thread
        future.set_exception(error)
