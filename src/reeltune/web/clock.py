"""The clock of the page: once a second every part is shown as things are now; what is as before is left alone.

Each part has a boundary of its own: what goes wrong in it is shown there, and the rest of the page goes on.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import gradio as gr

from reeltune.errors import ReeltuneError
from reeltune.jobs import Job
from reeltune.web.drafts import Draft
from reeltune.web.events import QUIET
from reeltune.web.look import Look
from reeltune.web.markup import failed, problem
from reeltune.web.studio import Studio

_TICK_SECONDS = 1.0
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
    """A component that changes by itself: `show` gives its value, which `update` makes the component's."""

    component: Any
    show: Callable[[View], Any]
    update: Callable[[Any], Any] = field(default=lambda value: value)
    plain: bool = True  # an error can be shown in it


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
    """Keep the parts of a page up to date. `inputs`: the states that `view_of` takes."""
    seen = gr.State({})
    outputs = [part.component for part in parts.values()]

    def tick(draft: Draft, look: Look, before: dict[str, str]) -> tuple[Any, ...]:
        view, marks, updates = view_of(draft, look), dict[str, str](), list[Any]()
        for name, part in parts.items():
            value, error = attempt(part.show, view)
            marks[name] = hashlib.sha1(repr(value).encode("utf-8", "replace")).hexdigest()
            changed = before.get(name) != marks[name]
            if changed and error is not None and not isinstance(error, ReeltuneError):
                _log.error("The page's %s could not be shown.", name, exc_info=error)
            shown = changed and (error is None or part.plain)
            updates.append(part.update(value) if shown and error is None else value if shown else gr.skip())
        return (marks if marks != before else gr.skip(), *updates)

    timer = gr.Timer(_TICK_SECONDS)
    for event in (timer.tick, page.load):
        event(tick, [*inputs, seen], [seen, *outputs], queue=False, **QUIET)
