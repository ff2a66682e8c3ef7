"""The clock of the page: once a second every part is shown as things are now; what is as before is left alone.

Each part has a boundary of its own: what goes wrong in it is shown there, and the rest of the page goes on.
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
from reeltune.service.drafts import Draft
from reeltune.service.studio import Studio
from reeltune.untrusted import parse_json
from reeltune.web.events import QUIET
from reeltune.web.look import Look
from reeltune.web.markup import failed, mark_of, marked, problem

_TICK_SECONDS = 1.0
_SHOWN_JS = "(draft, look, seen) => [draft, look, reeltune.marks(seen)]"
MODELS, MODEL, NOW, QUEUE = "list of models", "model", "current job", "queue"  # parts that answers to clicks show too
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class View:
    """What the parts are shown for: a session's draft, and what it looks at in the gallery."""

    studio: Studio
    draft: Draft
    look: Look

    @cached_property
    def jobs(self) -> list[Job]:
        """The queue, read once for all parts. Raises QueueError."""
        return self.studio.queue.jobs()


@dataclass(frozen=True)
class Part:
    """A component that changes by itself: `show` gives its value; where that isn't HTML, `update` makes it the
    component's.
    """

    component: Any
    show: Callable[[View], Any]
    update: Callable[[Any], Any] = field(default=lambda value: value)
    html: bool = True  # HTML, which carries its own mark, and can show an error


def attempt(show: Callable[[View], Any], view: View) -> tuple[Any, Exception | None]:
    """The value of a part, or the error in words and the error."""
    try:
        return show(view), None
    except ReeltuneError as error:
        return problem(error), error
    except Exception as error:  # the boundary of a part: whatever it was, the others go on
        return failed(error), error


def clock(
    view_of: Callable[[Draft, Look], View], inputs: list[gr.State], parts: Mapping[str, Part], page: gr.Blocks
) -> None:
    """Keep the parts of a page up to date. `inputs`: the states that `view_of` takes.

    Which parts are as they should be is read off what the browser shows: answers to clicks change parts too, and may
    arrive later than one of the clock that was worked out after them.
    """
    seen = gr.Textbox(visible="hidden")  # JSON: marks by part, of those that can't carry one
    outputs = [part.component for part in parts.values()]

    def tick(draft: Draft, look: Look, shown: str) -> tuple[Any, ...]:
        marks, updates = changes(view_of(draft, look), parts, _marks(shown))
        return json.dumps(marks), *updates

    timer = gr.Timer(_TICK_SECONDS)
    for event in (timer.tick, page.load):
        event(tick, [*inputs, seen], [seen, *outputs], queue=False, js=_SHOWN_JS, **QUIET)


def changes(view: View, parts: Mapping[str, Part], before: Mapping[str, Any]) -> tuple[dict[str, str], list[Any]]:
    """Marks of the parts that aren't HTML, and an update for each part. `before`: marks of what the browser shows."""
    marks, updates = dict[str, str](), list[Any]()
    for name, part in parts.items():
        value, error = attempt(part.show, view)
        mark = mark_of(value)
        changed = before.get(name) != mark
        if not part.html:
            marks[name] = mark
        if changed and error is not None and not isinstance(error, ReeltuneError):
            _log.error("The page's %s could not be shown.", name, exc_info=error)
        updates.append(_update(name, part, value, error) if changed else gr.skip())
    return marks, updates


def _update(name: str, part: Part, value: Any, error: Exception | None) -> Any:
    if part.html:
        return marked(name, value)
    return part.update(value) if error is None else gr.skip()


def _marks(shown: str) -> dict[str, Any]:
    """Marks by part, as the browser gives them; none where they can't be read: then everything is shown again."""
    try:
        value = parse_json(shown or "{}", "what the browser shows")
    except ReeltuneError:
        return {}
    return value if isinstance(value, dict) else {}
