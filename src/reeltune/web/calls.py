"""Checks what browsers and other programs send to the page's events before it reaches them.

Every error of an event becomes a message for the sender; only faults of this program are logged to the terminal.
"""

from __future__ import annotations

import inspect
import logging
import re
from typing import Any

import gradio as gr

from reeltune.errors import InvalidJSON, ReeltuneError
from reeltune.service.workspace import Workspace
from reeltune.untrusted import JsonObject, clean_text, parse_json

MAX_BODY_BYTES = 8_000_000
REFUSED = "reeltune.refused"  # key of a request's scope: the event failed because of its arguments
_EVENTS = ("/gradio_api/run/predict", "/gradio_api/queue/join")
_NUMBERS = ("job", "page")  # data attributes of buttons that are numbers
_NUMBER = re.compile(r"\d{0,9}")
_log = logging.getLogger("reeltune.page")


class Components(dict[int, Any]):
    """The components of a page by id, which can be iterated while another thread adds some.

    Gradio draws a form in one thread and iterates all components of the session to do so; meanwhile its event loop
    adds the components that other events of the session use. A plain dict would fail the drawing now and then.
    """

    def values(self) -> Any:
        """The components of this moment."""
        return list(super().values())

    def __copy__(self) -> Components:
        return Components(self)


class Page(gr.Blocks):  # type: ignore[misc]
    """A Gradio page whose events only accept files from the uploads, and report errors as messages."""

    def __init__(self, workspace: Workspace, **options: Any) -> None:
        self._workspace = workspace
        super().__init__(**options)
        self.default_config.blocks = Components(self.default_config.blocks)

    @property
    def allowed_paths(self) -> list[str]:
        """Folders whose files components may show; the preferences may change them at any time."""
        try:
            return [str(self._workspace.outputs), str(self._workspace.uploads)]
        except ReeltuneError:
            return [str(self._workspace.uploads)]

    @allowed_paths.setter
    def allowed_paths(self, paths: list[str]) -> None:
        """Ignored; Gradio sets this when the page is mounted."""

    async def preprocess_data(self, block_fn: Any, inputs: Any, *args: Any, **more: Any) -> Any:
        """The arguments of an event's function from the values of a request. Raises gr.Error for invalid ones."""
        try:
            confine(self._workspace, inputs)
            values = await super().preprocess_data(block_fn, inputs, *args, **more)
            return [_checked(block, value) for block, value in zip(block_fn.inputs, values, strict=True)]
        except gr.Error as error:
            raise _refusal(error.message) from error
        except Exception as error:  # components raise all kinds of errors for invalid values
            raise _refusal("The request has invalid values. Reload the page.") from error

    def get_config_file(self) -> Any:
        """The configuration that a browser requests first."""
        return encodable(super().get_config_file())

    async def process_api(self, block_fn: Any, inputs: Any, *args: Any, **more: Any) -> Any:
        """Run an event. Raises gr.Error and nothing else."""
        try:
            check_event(block_fn, more.get("event_data"))
            output: JsonObject = await super().process_api(block_fn, inputs, *args, **more)
            return encodable(output)
        except gr.Error as error:
            _mark(more.get("request"))
            raise error
        except ReeltuneError as error:
            _mark(more.get("request"))
            raise _refusal(str(error)) from error
        except Exception as error:
            _log.exception("An event of the page failed: %s", getattr(block_fn, "name", "?"))
            message = "An unexpected error occurred. The terminal shows details."
            raise gr.Error(message, print_exception=False) from error


def encodable(value: Any) -> Any:
    """The value with all texts valid Unicode, since file names on disk may be any bytes."""
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, dict):
        return {encodable(key): encodable(item) for key, item in value.items()}
    if type(value) is list:
        return [encodable(item) for item in value]
    if type(value) is tuple:
        return tuple(encodable(item) for item in value)
    return value


def _checked(block: Any, value: Any) -> Any:
    """The value of a component. Raises gr.Error if it has another type than the component's values have."""
    if isinstance(block, gr.Textbox | gr.Code):
        return _as_text(value)
    if isinstance(block, gr.Dropdown) and not block.multiselect and isinstance(value, list | dict):
        raise _refusal("Choose one item of the list.")
    return value


def _as_text(value: Any) -> str:
    """The text of a text box, "" for None. Raises gr.Error for anything else."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise _refusal("Invalid value: a text was expected.")
    return value


def check_event(block_fn: Any, event: Any) -> None:
    """Raise gr.Error if an event needs the data of a button and doesn't get valid data."""
    if block_fn.fn is None:
        raise _refusal("This event only runs in the browser.")
    parameters = inspect.signature(block_fn.fn).parameters.values()
    if not any("EventData" in str(parameter.annotation) for parameter in parameters):
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


def confine(workspace: Workspace, value: Any) -> None:
    """Raise gr.Error if values contain the path of a file that isn't an upload; remove the URLs of files."""
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, dict):
            if isinstance(item.get("path"), str):
                _check_file(workspace, item)
            stack.extend(item.values())
        elif isinstance(item, list | tuple):
            stack.extend(item)


def _check_file(workspace: Workspace, item: JsonObject) -> None:
    path = workspace.confined(item["path"])
    if path is None or not path.is_relative_to(workspace.uploads.resolve()):
        raise _refusal("The file is not among the uploads. Upload it again.")
    if "url" in item:
        item["url"] = None


def checked_body(page: gr.Blocks, path: str, raw: bytes) -> tuple[int, str] | JsonObject:
    """The JSON object in the body of a request, or the status and the message it is refused with."""
    try:
        body = parse_json(raw, "The request", max_bytes=MAX_BODY_BYTES)
    except InvalidJSON as error:
        return 400, str(error)
    if not isinstance(body, dict):
        return 400, "The request must be a JSON object."
    if path in _EVENTS:
        return _event_refusal(page, body) or dict(body)
    return dict(body)


def _event_refusal(page: gr.Blocks, body: JsonObject) -> tuple[int, str] | None:
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
