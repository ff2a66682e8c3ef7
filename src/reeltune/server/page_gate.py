"""What the page may be asked: its own addresses, and calls whose bodies are small and valid."""

from __future__ import annotations

import json
import re
from typing import Any

from reeltune.server.answers import Answer, read_body
from reeltune.web.calls import MAX_BODY_BYTES, REFUSED, checked_body

_READ = re.compile(
    r"/(login|config|theme\.css|favicon\.ico|manifest\.json|robots\.txt|(static|assets|svelte)/.+|"
    r"gradio_api/(theme\.css|app_id|startup-events|heartbeat/\w+|queue/data|upload_progress|file=.+))?",
    re.DOTALL,
)
_WRITE = re.compile(r"/(login|logout|gradio_api/(upload|queue/join|run/predict|cancel|reset))")
_UPLOAD = "/gradio_api/upload"  # has its own limit of size
_NOTHING = "There is nothing at this address."
_REPLACED = (b"content-length", b"transfer-encoding", b"content-type", b"content-encoding")


class PageGate:
    """ASGI middleware around the page. `page`: the Gradio page whose events are called.

    An event that failed because of its arguments gets status 400.
    """

    def __init__(self, app: Any, page: Any) -> None:
        self._app, self._page = app, page

    def refusal(self, method: str, path: str) -> tuple[int, str] | None:
        """The status and the message for a request that the page doesn't answer; None for one that it does."""
        if method in ("GET", "HEAD"):
            return None if _READ.fullmatch(path) else (404, _NOTHING)
        if method != "POST":
            return 405, _NOTHING
        return None if _WRITE.fullmatch(path) else (404, _NOTHING)

    async def __call__(self, scope: Any, receive: Any, answer: Answer) -> None:
        """Pass a request on; the body of a call is checked first."""

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start" and message["status"] == 500 and scope.get(REFUSED):
                message = {**message, "status": 400}
            await answer(message)

        if scope["method"] != "POST" or scope["path"] == _UPLOAD:
            await self._app(scope, receive, send)
            return
        raw = await read_body(receive, MAX_BODY_BYTES)
        if isinstance(raw, tuple):
            await answer.plain(*raw)
            return
        body = checked_body(self._page, scope["path"], raw)
        if isinstance(body, tuple):
            await answer.plain(*body)
            return
        encoded = json.dumps(body, ensure_ascii=False).encode("utf-8")
        await self._app(_with_length(scope, len(encoded)), _replayed(encoded, receive), send)


def _with_length(scope: Any, length: int) -> Any:
    others = [(name, value) for name, value in scope["headers"] if name.lower() not in _REPLACED]
    replaced = [(b"content-length", str(length).encode("ascii")), (b"content-type", b"application/json")]
    scope["headers"] = [*others, *replaced]
    return scope


def _replayed(body: bytes, receive: Any) -> Any:
    pending = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Any:
        return pending.pop() if pending else await receive()

    return replay
