"""Publishing from the page: one publication at a time, in a process of its own, beside the queue.

publications = Publications(root)
publications.start(PublishRequest("plan", "glow", "me/glow"))
publications.current.plan
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import IO

from reeltune.errors import InvalidJSON, PublishError
from reeltune.files import reason
from reeltune.sharing.process import PLAN, PUBLISH, PublishRequest
from reeltune.untrusted import JsonObject, parse_json

_MAX_NOTICES = 50
_END_SECONDS = 10.0  # for the process to end after a cancel


class PublicationState(StrEnum):
    """How far a publication has come."""

    NONE = "none"  # nothing was asked for yet
    RUNNING = "running"
    PLANNED = "planned"
    PUBLISHED = "published"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True)
class Publication:
    """The current or last publication.

    `stage`, `subject`, `done`, `total`: its progress. `plan`: as `sharing.process.plan_json`; None until it is known.
    `url`: what others install; `page`: the commit or pull request. `error`, `hint`: why it failed.
    """

    state: PublicationState = PublicationState.NONE
    request: PublishRequest | None = None
    stage: str = ""
    subject: str = ""
    done: int = 0
    total: int | None = None
    plan: JsonObject | None = None
    notices: tuple[str, ...] = ()
    url: str = ""
    page: str = ""
    error: str = ""
    hint: str = ""


class Publications:
    """The publications of one root. All methods can be called from any thread."""

    def __init__(self, root: Path, command: Sequence[str] = (sys.executable, "-m", "reeltune.sharing.process")) -> None:
        self._root = root
        self._command = command
        self._lock = threading.Lock()
        self._current = Publication()
        self._process: subprocess.Popen[str] | None = None

    @property
    def current(self) -> Publication:
        """The current publication, or the last one."""
        with self._lock:
            return self._current

    def start(self, request: PublishRequest) -> None:
        """Start to make a plan, or to publish what the last plan shows.

        Raises PublishError if another one runs, if the request is invalid, or if no plan was shown for it.
        """
        request.options  # noqa: B018  raises for invalid values
        with self._lock:
            if self._current.state is PublicationState.RUNNING:
                raise PublishError("Another publication is running.", hint="Wait for its end, or cancel it.")
            plan = self._current.plan
            if request.action == PUBLISH:
                planned = self._current.request
                if plan is None or planned is None or replace(request, action=PLAN) != replace(planned, action=PLAN):
                    raise PublishError("There is no plan for these values.", hint="Show the plan first.")
                request = replace(request, head=str(plan.get("head", "")))
            else:
                plan = None
            shown = replace(request, head="")
            self._current = Publication(PublicationState.RUNNING, shown, plan=plan)
            self._process = self._started(request)
            process = self._process
        threading.Thread(target=self._follow, args=(process,), daemon=True, name="publication").start()

    def _started(self, request: PublishRequest) -> subprocess.Popen[str]:
        try:
            process = subprocess.Popen(
                [*self._command, "--root", str(self._root)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8", start_new_session=True,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )  # fmt: skip
            _pipe(process.stdin).write(json.dumps(request.as_json()) + "\n")
            _pipe(process.stdin).flush()
            return process
        except (OSError, ValueError) as error:
            self._current = Publication()
            message = f"The process that publishes can't be started: {reason(error)}."
            raise PublishError(message, hint="Check the free memory.") from error

    def cancel(self) -> None:
        """Stop the current publication. What has arrived at the Hub is not sent again later."""
        with self._lock:
            process = self._process
        if process is not None:
            with contextlib.suppress(OSError, ValueError):
                _pipe(process.stdin).close()

    def close(self) -> None:
        """End the process, if one runs."""
        self.cancel()
        process = self._process
        if process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_END_SECONDS)
            process.kill()

    def _follow(self, process: subprocess.Popen[str]) -> None:
        """Take over what the process reports, until it ends."""
        with contextlib.suppress(ValueError, OSError):
            for line in _pipe(process.stdout):
                self._take(process, line)
        with contextlib.suppress(OSError, ValueError):
            _pipe(process.stdin).close()
        code = process.wait()
        _pipe(process.stdout).close()
        with self._lock:
            if process is self._process and self._current.state is PublicationState.RUNNING:
                error = f"The process that publishes ended unexpectedly (code {code})."
                self._current = replace(
                    self._current, state=PublicationState.FAILED, error=error, hint="Publish again: it continues."
                )

    def _take(self, process: subprocess.Popen[str], line: str) -> None:
        try:
            value = parse_json(line, "a line of the publication")
        except InvalidJSON:
            return
        if not isinstance(value, dict):
            return
        with self._lock:
            if process is not self._process:  # the next one was started before this one had ended
                return
            self._current = _advanced(self._current, value)


def _advanced(current: Publication, value: JsonObject) -> Publication:
    """The publication after a line."""
    match value.get("type"):
        case "progress":
            return replace(
                current,
                stage=str(value["stage"]),
                subject=str(value["subject"]),
                done=int(value["done"]),
                total=value["total"],
            )
        case "notice" if len(current.notices) < _MAX_NOTICES:
            return replace(current, notices=(*current.notices, str(value["message"])))
        case "plan":
            return replace(current, state=PublicationState.PLANNED, plan=value)
        case "done":
            return replace(
                current, state=PublicationState.PUBLISHED, url=str(value["url"]), page=str(value["page"]), plan=None
            )
        case "failed":
            return replace(current, state=PublicationState.FAILED, error=str(value["message"]), hint=str(value["hint"]))
        case "cancelled":
            return replace(current, state=PublicationState.CANCELLED)
    return current


def _pipe(stream: IO[str] | None) -> IO[str]:
    assert stream is not None  # all are pipes
    return stream
