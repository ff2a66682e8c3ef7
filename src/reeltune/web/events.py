"""What all parts of the page attach their events with, and the components of the first tab that others use."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gradio as gr

from reeltune.errors import ReeltuneError
from reeltune.web.markup import failed, problem

QUIET: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}  # of every event on the page
LIVELY: dict[str, Any] = {  # of HTML with buttons in it
    "js_on_load": "reeltune.lively(element, trigger, watch);", "apply_default_css": False,
}  # fmt: skip
INTO_VIEW = "watch('value', () => reeltune.show(element));"
DOWNLOAD = """(name, text) => {
  if (!name) return;
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob([text], {type: 'application/json'}));
  link.download = name; link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}"""
_log = logging.getLogger(__name__)
Updates = dict[Any, Any]  # new values by component


@dataclass(frozen=True)
class Make:
    """Components of the tab that others use. `queue_said`: answers to what was done with jobs; `stale`: changes when
    the form has to follow its definition; `name`, `content`: of a file that the browser is to save.
    """

    models: gr.HTML
    about: gr.HTML
    now: gr.HTML
    queue: gr.HTML
    queue_said: gr.HTML
    stale: gr.Textbox
    name: gr.Textbox
    content: gr.Textbox
    tabs: gr.Tabs


def listen(html: gr.HTML, *args: Any, **more: Any) -> Any:
    """Attach to the buttons inside a piece of HTML; the function's last argument is what the button is about."""
    return html.click(*args, **{**QUIET, **more})


def reporting(said: gr.HTML) -> Callable[[Callable[..., Updates]], Callable[..., Updates]]:
    """For functions that answer events: whatever they raise is shown in `said`, so that no click does nothing."""

    def wrap(function: Callable[..., Updates]) -> Callable[..., Updates]:
        @functools.wraps(function)
        def answer(*values: Any) -> Updates:
            try:
                return function(*values)
            except ReeltuneError as error:
                return {said: problem(error)}
            except Exception as error:  # the boundary of an event
                _log.exception("An event of the page failed.")
                return {said: failed(error)}

        return answer

    return wrap
