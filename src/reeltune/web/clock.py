"""Updates the page once a second: sends the parts that differ from what the browser shows.

An error in one part is shown in place of that part and does not affect the others.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import gradio as gr

from reeltune.errors import ReeltuneError
from reeltune.jobs import Job
from reeltune.service.drafts import VideoDraft
from reeltune.service.workspace import Workspace
from reeltune.untrusted import JsonObject, parse_json
from reeltune.web.events import QUIET
from reeltune.web.gallery_state import GalleryState
from reeltune.web.markup import hash_of, marked, problem, unexpected

_INTERVAL_SECONDS = 1.0
_SHOWN_JS = "(draft, gallery, shown) => [draft, gallery, reeltune.marks(shown)]"
MODELS, MODEL, CURRENT_JOB = "list of models", "model", "current job"  # parts updated by clicks too
QUEUE, WORKERS = "queue", "workers"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class View:
    """What the parts of a page are shown for: the draft and the gallery of a browser session."""

    workspace: Workspace
    draft: VideoDraft
    gallery: GalleryState

    @cached_property
    def jobs(self) -> list[Job]:
        """All jobs, read once for all parts. Raises QueueError."""
        return self.workspace.queue.jobs()


@dataclass(frozen=True)
class PagePart:
    """A component that is updated by the clock.

    `show` returns its value for a view. `html`: whether that is HTML, which can also show an error. For all other
    components `update` converts the value to what the component expects.
    """

    component: Any
    show: Callable[[View], Any]
    update: Callable[[Any], Any] = field(default=lambda value: value)
    html: bool = True


def attempt(show: Callable[[View], Any], view: View) -> tuple[Any, Exception | None]:
    """The value of a part and None, or the message of an error and the error."""
    try:
        return show(view), None
    except ReeltuneError as error:
        return problem(error), error
    except Exception as error:  # an error in one part must not affect the others
        return unexpected(error), error


def start_clock(
    view_of: Callable[[VideoDraft, GalleryState], View],
    inputs: list[gr.State],
    parts: Mapping[str, PagePart],
    page: gr.Blocks,
) -> None:
    """Update the parts of a page every second. `inputs`: the states that `view_of` takes.

    The browser sends hashes of what it shows: clicks update parts too, and their answers may arrive after a newer
    update of the clock.
    """
    shown_hashes = gr.Textbox(visible="hidden")  # JSON, of the parts that aren't HTML
    outputs = [part.component for part in parts.values()]

    def tick(draft: VideoDraft, gallery: GalleryState, shown: str) -> tuple[Any, ...]:
        hashes, updates = changes(view_of(draft, gallery), parts, _parse_hashes(shown))
        return json.dumps(hashes), *updates

    timer = gr.Timer(_INTERVAL_SECONDS)
    for event in (timer.tick, page.load):
        event(tick, [*inputs, shown_hashes], [shown_hashes, *outputs], queue=False, js=_SHOWN_JS, **QUIET)


def changes(view: View, parts: Mapping[str, PagePart], shown_hashes: JsonObject) -> tuple[dict[str, str], list[Any]]:
    """Hashes of the parts that aren't HTML, and an update of each part. `shown_hashes`: of what the browser shows."""
    hashes = dict[str, str]()
    updates = list[Any]()
    for name, part in parts.items():
        value, error = attempt(part.show, view)
        value_hash = hash_of(value)
        if not part.html:
            hashes[name] = value_hash
        if shown_hashes.get(name) == value_hash:
            updates.append(gr.skip())
            continue
        if error is not None and not isinstance(error, ReeltuneError):
            _log.error("The page's %s could not be shown.", name, exc_info=error)
        updates.append(_update(name, part, value, error))
    return hashes, updates


def _update(name: str, part: PagePart, value: Any, error: Exception | None) -> Any:
    if part.html:
        return marked(name, value)
    return part.update(value) if error is None else gr.skip()


def _parse_hashes(shown: str) -> JsonObject:
    """Hashes by part as the browser sends them; without valid ones everything is sent again."""
    try:
        hashes = parse_json(shown or "{}", "what the browser shows")
    except ReeltuneError:
        return {}
    return hashes if isinstance(hashes, dict) else {}
