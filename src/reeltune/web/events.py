"""How the page's events are attached, and the components of the Make tab that other parts of the page update."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import gradio as gr

from reeltune.errors import ReeltuneError
from reeltune.web.markup import problem, unexpected
from reeltune.web.words import NO_LABELS

Options = dict[str, Any]  # keyword arguments of Gradio's components and events

QUIET: Options = {"api_visibility": "private", "show_progress": "hidden"}  # options of every event
# Options of events that follow an entry and change no state. Without Gradio's queue, as its client may lose the answer
# to a click that is sent while the last answer of the queue arrives: it closes the stream of answers then.
FOLLOWING: Options = {**QUIET, "queue": False}
LIVELY: Options = {  # options of HTML that contains buttons
    "js_on_load": "reeltune.lively(element, trigger, watch);",
    "apply_default_css": False,
}
SCROLL_TO_PROBLEM = "watch('value', () => reeltune.show(element));"
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
class MakeComponents:
    """Components of the Make tab that other parts of the page update.

    `queue_answer`: answers to actions on jobs. `outdated`: changes when the form must follow its definition.
    `file_name`, `file_content`: of a file that the browser downloads.
    """

    models: gr.HTML
    about: gr.HTML
    current_job: gr.HTML
    queue: gr.HTML
    workers: gr.HTML
    queue_answer: gr.HTML
    outdated: gr.Textbox
    file_name: gr.Textbox
    file_content: gr.Textbox
    tabs: gr.Tabs


def on_button(html: gr.HTML, *args: Any, **options: Any) -> Any:
    """Attach a function to the buttons in HTML; its first parameter is the event with the button's data."""
    return html.click(*args, **{**QUIET, **options})


def button_data(event: gr.EventData, name: str) -> str:
    """A data attribute of the button that was pressed; empty if it has none of this name."""
    return str(event._data.get(name) or "")


def reporting(
    place: gr.HTML, labels: Mapping[str, str] = NO_LABELS
) -> Callable[[Callable[..., Updates]], Callable[..., Updates]]:
    """A decorator for functions that answer events: shows the errors they raise in `place`.

    `labels`: those of a form, by setting.
    """

    def wrap(function: Callable[..., Updates]) -> Callable[..., Updates]:
        @functools.wraps(function)
        def reported(*values: Any) -> Updates:
            try:
                return function(*values)
            except ReeltuneError as error:
                return {place: problem(error, labels=labels)}
            except Exception as error:  # whatever happens, the user gets an answer
                _log.exception("An event of the page failed.")
                return {place: unexpected(error)}

        return reported

    return wrap
