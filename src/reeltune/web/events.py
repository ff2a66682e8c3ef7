"""What all parts of the page attach their events with, and the components of the first tab that others speak to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from reeltune.web.markup import CLICKS

QUIET: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}  # of every event on the page
LIVELY: dict[str, Any] = {"js_on_load": CLICKS, "apply_default_css": False}  # of HTML with buttons in it
INTO_VIEW = """watch('value', () => {
  const narrow = window.innerWidth <= 720 && element.querySelector('.rt-good');
  (narrow ? document.querySelector('#now') : element).scrollIntoView({block: 'nearest', behavior: 'smooth'});
});"""
DOWNLOAD = """(name, text) => {
  if (!name) return;
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob([text], {type: 'application/json'}));
  link.download = name; link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}"""


@dataclass(frozen=True)
class Make:
    """Components of the tab that others speak to."""

    models: gr.HTML
    about: gr.HTML
    said: gr.HTML
    now: gr.HTML
    queue: gr.HTML
    name: gr.Textbox
    content: gr.Textbox
    tabs: gr.Tabs


def listen(html: gr.HTML, *args: Any, **more: Any) -> Any:
    """Attach to the buttons inside a piece of HTML; the function's last argument is what the button is about."""
    return html.click(*args, **{**QUIET, **more})
