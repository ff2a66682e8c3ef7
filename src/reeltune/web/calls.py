"""What a browser, or any other program, sends to the page's events: checked before it reaches them.

Every failure of an event ends here as words for whoever sent it; only faults of this program reach the terminal.
"""

from __future__ import annotations

import inspect
import logging
import re
from collections.abc import Mapping
from typing import Any

import gradio as gr

from reeltune.errors import InvalidJSON, ReeltuneError
from reeltune.service.studio import Studio
from reeltune.untrusted import clean_text, parse_json

MOST_BODY_BYTES = 8_000_000
REFUSED = "reeltune.refused"  # in a request's scope: its arguments, not this program, are at fault
_EVENTS = ("/gradio_api/run/predict", "/gradio_api/queue/join")
_NUMBERS = ("job", "page")  # what buttons say of themselves as a number
_NUMBER = re.compile(r"\d{0,9}")
_log = logging.getLogger("reeltune.page")


class Page(gr.Blocks):  # type: ignore[misc]
    """Gradio's page, which takes files from `studio`'s uploads only and reports errors in words."""

    def __init__(self, studio: Studio, **options: Any) -> None:
        self._studio = studio
        super().__init__(**options)

    @property
    def allowed_paths(self) -> list[str]:
        """Folders that Gradio's components may show files of: as they are now, not as they were at the start."""
        try:
            return [str(self._studio.outputs), str(self._studio.uploads)]
        except ReeltuneError:
            return [str(self._studio.uploads)]

    @allowed_paths.setter
    def allowed_paths(self, paths: list[str]) -> None:
        """Gradio sets them once, when it is mounted."""

    async def preprocess_data(self, block_fn: Any, inputs: Any, *args: Any, **more: Any) -> Any:
        """What an event's function gets, from what was sent. Raises gr.Error for whatever doesn't fit."""
        try:
            confine(self._studio, inputs)
            values = await super().preprocess_data(block_fn, inputs, *args, **more)
            return [_fitting(block, value) for block, value in zip(block_fn.inputs, values, strict=True)]
        except gr.Error as error:
            raise _refusal(error.message) from error
        except Exception as error:  # whatever Gradio's components raise for values they can't take
            raise _refusal("These values can't be used. Reload the page.") from error

    def get_config_file(self) -> Any:
        """What a browser gets first."""
        return encodable(super().get_config_file())

    async def process_api(self, block_fn: Any, inputs: Any, *args: Any, **more: Any) -> Any:
        """Run an event. Raises gr.Error only."""
        try:
            check_event(block_fn, more.get("event_data"))
            output: dict[str, Any] = await super().process_api(block_fn, inputs, *args, **more)
            return encodable(output)
        except gr.Error as error:
            _mark(more.get("request"))
            raise error
        except ReeltuneError as error:
            _mark(more.get("request"))
            raise _refusal(str(error)) from error
        except Exception as error:
            _log.exception("An event of the page failed: %s", getattr(block_fn, "name", "?"))
            message = "Something went wrong in this program; the terminal has the details."
            raise gr.Error(message, print_exception=False) from error


def encodable(value: Any) -> Any:
    """The same with every text valid Unicode: names of files on disk may hold any bytes."""
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, dict):
        return {encodable(key): encodable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(encodable(item) for item in value) if type(value) in (list, tuple) else value
    return value


def _fitting(block: Any, value: Any) -> Any:
    """A component's value as the functions of events expect it. Raises gr.Error for one of another kind."""
    if isinstance(block, gr.Textbox | gr.Code):
        return _as_text(value)
    if isinstance(block, gr.Dropdown) and not block.multiselect and isinstance(value, list | dict):
        raise _refusal("One of the list was expected.")
    return value


def _as_text(value: Any) -> str:
    """The text of a text box, which is never absent. Raises gr.Error for anything else."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise _refusal("A text was expected.")
    return value


def check_event(block_fn: Any, event: Any) -> None:
    """Raise gr.Error unless what a button says of itself is what an event's function asks for."""
    if block_fn.fn is None:
        raise _refusal("This event runs in the browser.")
    takes = any("EventData" in str(row.annotation) for row in inspect.signature(block_fn.fn).parameters.values())
    if not takes:
        return
    data = getattr(event, "_data", None)
    if not isinstance(data, dict):
        raise _refusal("This event needs the data of a button.")
    for name, value in data.items():
        if not isinstance(value, str | int | float | None):
            raise _refusal(f"Invalid value for {name}: a text was expected.")
        if name in _NUMBERS and not _NUMBER.fullmatch(str(value)):
            raise _refusal(f"Invalid value {str(value)[:40]!r} for {name}: a whole number was expected.")


def _refusal(message: str) -> gr.Error:
    return gr.Error(message, print_exception=False, title="")


def _mark(request: Any) -> None:
    scope = getattr(getattr(request, "request", None), "scope", None)
    if scope is not None:
        scope[REFUSED] = True


def confine(studio: Studio, value: Any) -> None:
    """Raise gr.Error where sent values name a file that isn't an upload; URLs beside files are left out."""
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, dict):
            if isinstance(item.get("path"), str):
                _confined(studio, item)
            stack.extend(item.values())
        elif isinstance(item, list | tuple):
            stack.extend(item)


def _confined(studio: Studio, item: dict[str, Any]) -> None:
    path = studio.confined(item["path"])
    if path is None or not path.is_relative_to(studio.uploads.resolve()):
        raise _refusal("That file isn't among the uploads. Upload it again.")
    if "url" in item:
        item["url"] = None


def checked_body(page: gr.Blocks, path: str, raw: bytes) -> tuple[int, str] | dict[str, Any]:
    """A request's JSON object, harmless; or the status and the words it is refused with."""
    try:
        body = parse_json(raw, "The request", max_bytes=MOST_BODY_BYTES)
    except InvalidJSON as error:
        return 400, str(error)
    if not isinstance(body, dict):
        return 400, "The request must be a JSON object."
    if path in _EVENTS:
        return _event_refusal(page, body) or dict(body)
    return dict(body)


def _event_refusal(page: gr.Blocks, body: Mapping[str, Any]) -> tuple[int, str] | None:
    number, session = body.get("fn_index"), body.get("session_hash")
    if not isinstance(session, str) or not 0 < len(session) <= 100:
        return 422, "session_hash must be a text of 1 to 100 characters."
    if isinstance(number, bool) or not isinstance(number, int):
        return 422, "fn_index must be a whole number."
    if not isinstance(body.get("data"), list):
        return 422, "data must be a list."
    known = page.state_holder.session_data.get(session)
    functions = page.fns if known is None else known.blocks_config.fns
    if number not in functions:
        return 404, f"This page has no event {number}. Reload it."
    return None
