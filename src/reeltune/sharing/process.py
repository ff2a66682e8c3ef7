"""Publishing in a process of its own, for the page: a request on stdin, and what happens as lines of JSON on stdout.

    {"action": "plan", "id": "glow", "repository": "me/glow", "public": false, …}
    {"type": "progress", "stage": "upload", "subject": "glow_bf16.safetensors", "done": 3, "total": 20}
    {"type": "plan", "files": […], …}

The process ends when its input does.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

from reeltune.definitions import load_catalog
from reeltune.errors import Cancelled, ReeltuneError, RepositoryChanged
from reeltune.events import CancelToken, Event, Notice, Progress
from reeltune.sharing.licenses import chosen_license
from reeltune.sharing.own_files import parse_versions
from reeltune.sharing.plan import DEFAULT_EXAMPLES, PublishOptions, PublishPlan, plan_publication
from reeltune.sharing.publishing import open_repository, publish
from reeltune.untrusted import JsonObject, parse_json

PLAN, PUBLISH = "plan", "publish"  # actions
_PROGRESS_SECONDS = 0.2  # between two lines about the same file


@dataclass(frozen=True)
class PublishRequest:
    """What to publish and how, as the page sends it.

    `license`: empty for the remembered one. `head`: the last commit when the plan was shown; empty for a repository
    that didn't exist.
    """

    action: str
    id: str
    repository: str
    public: bool = False
    pull_request: bool = False
    versions: str = ""
    license: str = ""
    license_name: str = ""
    license_link: str = ""
    examples: int = DEFAULT_EXAMPLES
    head: str = ""

    @property
    def options(self) -> PublishOptions:
        """The options of the plan. Raises PublishError for invalid ones."""
        chosen = chosen_license(self.license, self.license_name, self.license_link) if self.license.strip() else None
        return PublishOptions(
            public=self.public,
            pull_request=self.pull_request,
            versions=parse_versions(self.versions),
            license=chosen,
            examples=max(0, self.examples),
        )

    def as_json(self) -> JsonObject:
        """The request as a line."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def plan_json(plan: PublishPlan) -> JsonObject:
    """A plan as plain values."""
    return {
        "type": "plan",
        "repository": plan.repository,
        "is_new": plan.state is None,
        "head": "" if plan.state is None else plan.state.head,
        "files": [
            {"name": file.name, "bytes": file.bytes, "sha256": file.sha256, "state": str(file.state)}
            for file in plan.files
        ],
        "license": str(plan.license or ""),
        "others": list(plan.others),
        "examples": [{"name": example.file.name, "prompt": example.prompt} for example in plan.examples],
        "notices": list(plan.notices),
    }


class _Output:
    """Writes lines, and of progress only as many as somebody can see."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last: tuple[str, str, float] = ("", "", 0.0)

    def write(self, value: JsonObject) -> None:
        """Write one line."""
        with self._lock:
            sys.stdout.write(json.dumps(value) + "\n")
            sys.stdout.flush()

    def listen(self, event: Event) -> None:
        """Report an event."""
        if isinstance(event, Notice):
            self.write({"type": "notice", "message": event.message})
        elif isinstance(event, Progress):
            stage, subject, shown_at = self._last
            now = time.monotonic()
            is_same = (stage, subject) == (event.stage, event.subject)
            if is_same and event.done != event.total and now - shown_at < _PROGRESS_SECONDS:
                return
            self._last = (event.stage, event.subject, now)
            values = {"stage": event.stage, "subject": event.subject, "done": event.done, "total": event.total}
            self.write({"type": "progress", **values})


def run(root: Path, request: PublishRequest, cancel: CancelToken, output: _Output) -> None:
    """Carry out a request. Raises ReeltuneError."""
    catalog = load_catalog(root)
    hub = open_repository(catalog, request.repository)
    with tempfile.TemporaryDirectory() as folder:
        if request.action == PLAN:
            plan = plan_publication(
                catalog, request.id, request.options, hub, Path(folder), listener=output.listen, cancel=cancel
            )
            output.write(plan_json(plan))
            return

        def confirm(plan: PublishPlan) -> PublishPlan:
            head = "" if plan.state is None else plan.state.head
            if head != request.head:
                message = f"Somebody changed {plan.repository} after the plan was shown."
                raise RepositoryChanged(message, hint="Show the plan again.")
            return replace(plan)

        published = publish(
            catalog, request.id, request.options, hub, Path(folder), confirm, listener=output.listen, cancel=cancel
        )
    values = {"url": published.url, "page": published.page, "edited": published.edited, "tag": published.tag}
    output.write({"type": "done", **values})


def main(arguments: Sequence[str] | None = None) -> None:
    """Read a request from stdin, carry it out, and report how it ended."""
    parser = argparse.ArgumentParser(prog="reeltune.sharing.process")
    parser.add_argument("--root", type=Path, required=True)
    root = parser.parse_args(arguments).root
    request = PublishRequest(**parse_json(sys.stdin.readline(), "the request"))
    cancel, output = CancelToken(), _Output()

    def watch_input() -> None:
        sys.stdin.read()
        cancel.cancel()

    threading.Thread(target=watch_input, daemon=True, name="input").start()
    try:
        run(root, request, cancel, output)
    except Cancelled:
        output.write({"type": "cancelled"})
    except ReeltuneError as error:
        output.write({"type": "failed", "message": error.message, "hint": error.hint})


if __name__ == "__main__":
    main()
