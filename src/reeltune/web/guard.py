"""Stands before every request: which hosts may ask, how much may be uploaded, and what the browser may load."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import unquote

from reeltune.machine import free_disk
from reeltune.web.uploads import MOST_BYTES

_KEPT_FREE = 1_000_000_000  # bytes of the disk that uploads leave
_OVERHEAD = 1_000_000  # of the envelope around a file
# Parts of Gradio that the page doesn't use: fetching other sites for the browser, live monitoring, reloading.
_CLOSED = re.compile(r"/(gradio_api/)?(proxy=|file=\s*(https?:|//|\\)|monitoring|dev/|profiling|mcp)", re.IGNORECASE)
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' blob: data:; "
    "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'self'"
)
_HEADERS = (
    (b"content-security-policy", _POLICY.encode("ascii")),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)


class Guard:
    """ASGI middleware. `hosts`: names the page may be asked under, empty for any (where a password protects it):
    a stranger's page in the same browser could otherwise reach it under a name of its own.
    """

    def __init__(self, app: Any, hosts: Sequence[str], uploads: Any) -> None:
        self._app, self._hosts, self._uploads = app, frozenset(hosts), uploads

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer what is refused; pass the rest on, with headers that keep the browser to this server."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if refusal := self._refusal(scope):
            await _answer(send, *refusal)
            return
        await self._app(scope, receive, _with_headers(send))

    def _refusal(self, scope: Any) -> tuple[int, str] | None:
        headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
        if self._hosts and _host(headers.get(b"host", "")) not in self._hosts:
            return 421, "This page is for this machine only."
        path = unquote(scope.get("path", ""))
        if _CLOSED.match(path):
            return 403, "Not part of this page."
        if scope["method"] == "POST" and path.rstrip("/").endswith("/upload"):
            return self._upload(headers)
        return None

    def _upload(self, headers: dict[bytes, str]) -> tuple[int, str] | None:
        length = headers.get(b"content-length", "")
        if not length.isdigit():
            return 411, "Say how long it is."
        if int(length) > MOST_BYTES + _OVERHEAD:
            return 413, f"At most {MOST_BYTES:,} bytes are taken."
        if int(length) > free_disk(self._uploads) - _KEPT_FREE:
            return 507, "The disk is nearly full."
        return None


def _host(header: str) -> str:
    """The name in a Host header, without its port; of an IPv6 address without its brackets."""
    return header[1:].partition("]")[0] if header.startswith("[") else header.partition(":")[0].lower()


def _with_headers(send: Any) -> Any:
    async def sending(message: Any) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), *_HEADERS]}
        await send(message)

    return sending


async def _answer(send: Any, status: int, words: str) -> None:
    body = words.encode("utf-8")
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode("ascii"))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
