"""Answers that the server gives by itself, the security headers of all answers, and bodies of limited size."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from reeltune.api.errors import error_body

_BODY_SECONDS = 30.0  # for a whole body that isn't an upload
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' blob: data:; "
    "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'self'"
)
_HEADERS = (
    (b"content-security-policy", _POLICY.encode("ascii")),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
)


async def read_body(receive: Any, max_bytes: int) -> bytes | tuple[int, str]:
    """The whole body of a request, or the status and the message it is refused with."""
    content = bytearray()
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    return 400, "The request was interrupted."
                content += message.get("body", b"")
                if len(content) > max_bytes:
                    return 413, f"A request may have at most {max_bytes:,} bytes."
                if not message.get("more_body", False):
                    return bytes(content)
    except TimeoutError:
        return 408, "The request took too long."


class Answer:
    """Sends answers with the security headers of the server."""

    def __init__(self, send: Any, scope: Any) -> None:
        self._send, self._scope = send, scope
        self._begun = self.complete = False

    async def __call__(self, message: Any) -> None:
        """Send an ASGI message."""
        if message["type"] == "http.response.start":
            self._begun = True
            headers = [
                (name, value)
                for name, value in message.get("headers", ())
                if not name.lower().startswith(b"access-control-")
            ]
            names = {name.lower() for name, _ in headers}
            headers += [(name, value) for name, value in _HEADERS if name not in names]
            message = {**message, "headers": headers}
        elif message["type"] == "http.response.body":
            self.complete = not message.get("more_body", False)
        await self._send(message)

    async def plain(self, status: int, message: str) -> None:
        """Answer with a text."""
        await self._whole(status, message.encode("utf-8"), b"text/plain; charset=utf-8")

    async def refusal(self, status: int, message: str, *, as_json: bool) -> None:
        """Answer with a text, or with an error as the API's clients read it."""
        if as_json:
            content = json.dumps(error_body(status, message), ensure_ascii=False).encode("utf-8")
            await self._whole(status, content, b"application/json")
        else:
            await self.plain(status, message)

    async def end(self, status: int, message: str, *, as_json: bool) -> None:
        """Answer as `refusal`, or end an answer that has begun."""
        if not self._begun:
            await self.refusal(status, message, as_json=as_json)
        elif not self.complete:
            await self._send({"type": "http.response.body", "body": b""})

    async def page(self, status: int, content: bytes) -> None:
        """Answer with HTML that browsers must not store."""
        await self._whole(status, content, b"text/html; charset=utf-8", (b"cache-control", b"no-store"))

    async def redirect(self, location: str, cookie: str = "") -> None:
        """Redirect the browser and set a cookie."""
        headers = [(b"location", location.encode("ascii"))]
        if cookie:
            headers.append((b"set-cookie", cookie.encode("ascii")))
        await self._whole(303, b"", b"text/plain", *headers)

    async def _whole(self, status: int, body: bytes, content_type: bytes, *others: tuple[bytes, bytes]) -> None:
        length = str(len(body)).encode("ascii")
        headers = [(b"content-type", content_type), (b"content-length", length), *others]
        await self({"type": "http.response.start", "status": status, "headers": headers})
        await self({"type": "http.response.body", "body": b"" if self._scope["method"] == "HEAD" else body})
