"""Stands before every request: who may ask, for what, from which page, how much is taken, what the browser loads."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException

from reeltune.web.calls import MOST_BODY_BYTES, REFUSED, checked_body
from reeltune.web.login import MOST_FORM_BYTES, Login, form

_BODY_SECONDS = 30.0  # for a whole body that isn't an upload
_DEFAULT_PORTS = {"http": "80", "https": "443"}
_READ = re.compile(
    r"/(login|config|theme\.css|favicon\.ico|manifest\.json|robots\.txt|(static|assets|svelte)/.+|"
    r"gradio_api/(theme\.css|app_id|startup-events|heartbeat/\w+|queue/data|upload_progress|file=.+))?",
    re.DOTALL,
)
_WRITE = re.compile(r"/(login|logout|gradio_api/(upload|queue/join|run/predict|cancel|reset))")
_OPEN = ("/login",)  # to whoever isn't logged in
_PAGES = ("/", "/login")  # a link on another site may lead to these
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
_REPLACED = (b"content-length", b"transfer-encoding", b"content-type", b"content-encoding")
_log = logging.getLogger("reeltune.page")


@dataclass(frozen=True)
class Incoming:
    """A request, as far as it decides whether it is answered."""

    method: str
    path: str
    headers: dict[str, str]
    address: str

    @classmethod
    def of(cls, scope: Any) -> Incoming:
        """From an ASGI scope."""
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        client = scope.get("client") or ("",)
        return cls(scope["method"], scope["path"], headers, str(client[0]))

    @property
    def reads(self) -> bool:
        """Whether it changes nothing."""
        return self.method in ("GET", "HEAD")


class Guard:
    """ASGI middleware around the whole page.

    `hosts`: names the page may be opened under, empty for any (where a password protects it): a page of a stranger in
    the same browser could otherwise reach it under a name of its own. `page`: the Gradio page whose events are called.
    """

    def __init__(self, app: Any, page: Any, hosts: Sequence[str], login: Login) -> None:
        self._app, self._page, self._hosts, self._login = app, page, frozenset(hosts), login

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer what is refused; pass the rest on, with headers that keep the browser to this server."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            answer = Answer(send, scope)
            try:
                await self._guarded(Incoming.of(scope), scope, receive, answer)
            except HTTPException as error:  # after an answer has begun; before, Gradio answers it
                await answer.end(error.status_code, str(error.detail))
            except Exception as error:  # a fault of this program or of a library: the page goes on
                if isinstance(error.__cause__, HTTPException):  # in a stream that has begun: a tab that was closed, say
                    await answer.end(error.__cause__.status_code, str(error.__cause__.detail))
                    return
                _log.exception("A request failed: %s", scope.get("path", "")[:80])
                await answer.end(500, "Something went wrong in this program; the terminal has the details.")
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})

    async def _guarded(self, incoming: Incoming, scope: Any, receive: Any, answer: Answer) -> None:
        if refusal := self._refusal(incoming):
            await answer.plain(*refusal)
        elif incoming.path in ("/login", "/logout"):
            await self._log_in_or_out(incoming, receive, answer)
        elif self._login.needed and not self._login.known(incoming.headers.get("cookie", "")):
            if incoming.path == "/":
                await answer.page(401, form())
            else:
                await answer.plain(401, "Log in first.")
        elif incoming.reads or incoming.path == "/gradio_api/upload":  # uploads are bounded where they are read
            await self._app(scope, receive, answer)
        else:
            await self._call(incoming, scope, receive, answer)

    def _refusal(self, incoming: Incoming) -> tuple[int, str] | None:
        if self._hosts and _host(incoming.headers.get("host", "")) not in self._hosts:
            return 421, "This page is for this machine only."
        if not _from_this_page(incoming):
            return 403, "Another site sent this. Open the page itself."
        if incoming.reads:
            return None if _READ.fullmatch(incoming.path) else (404, "Not part of this page.")
        if incoming.method != "POST":
            return 405, "Not part of this page."
        return None if _WRITE.fullmatch(incoming.path) else (404, "Not part of this page.")

    async def _call(self, incoming: Incoming, scope: Any, receive: Any, answer: Answer) -> None:
        raw = await _body(receive, MOST_BODY_BYTES)
        if isinstance(raw, tuple):
            await answer.plain(*raw)
            return
        body = checked_body(self._page, incoming.path, raw)
        if isinstance(body, tuple):
            await answer.plain(*body)
            return
        encoded = json.dumps(body, ensure_ascii=False).encode("utf-8")
        await self._app(_with_length(scope, len(encoded)), _replayed(encoded, receive), answer)

    # --- logging in -----------------------------------------------------------------------------------------

    async def _log_in_or_out(self, incoming: Incoming, receive: Any, answer: Answer) -> None:
        secure = incoming.headers.get("origin", "").startswith("https:")
        if not self._login.needed:
            await answer.redirect("./")
        elif incoming.path == "/logout":
            self._login.end(incoming.headers.get("cookie", ""))
            await answer.redirect("./", self._login.cookie("", secure=secure))
        elif incoming.reads:
            await answer.page(200, form())
        elif self._login.busy(incoming.address):
            await answer.page(429, form("Too many attempts at once. Wait some seconds."))
        else:
            raw = await _body(receive, MOST_FORM_BYTES)
            token = await self._login.attempt(raw, incoming.address) if isinstance(raw, bytes) else ""
            if token:
                await answer.redirect("./", self._login.cookie(token, secure=secure))
            else:
                await answer.page(400, form("The name or the password is wrong."))


def _from_this_page(incoming: Incoming) -> bool:
    """Whether a request comes from the page itself, a program, or a person who opens the page."""
    origin = incoming.headers.get("origin")
    if origin is not None:
        own = (incoming.headers.get("host", ""), incoming.headers.get("x-forwarded-host", ""))
        return any(_same(origin, host.partition(",")[0].strip()) for host in own)
    site = incoming.headers.get("sec-fetch-site", "none").lower()
    if site in ("same-origin", "none"):
        return True
    mode, destination = incoming.headers.get("sec-fetch-mode"), incoming.headers.get("sec-fetch-dest")
    return incoming.reads and incoming.path in _PAGES and (mode, destination) == ("navigate", "document")


def _same(origin: str, host: str) -> bool:
    """Whether an Origin is a Host's: name and port; a port left out is that of the origin's scheme."""
    scheme, separator, name = origin.lower().partition("://")
    if not separator or scheme not in _DEFAULT_PORTS or not host:
        return False
    return _with_port(name, scheme) == _with_port(host.lower(), scheme)


def _with_port(name: str, scheme: str) -> tuple[str, str]:
    try:
        parts = urlsplit(f"//{name}")
        port = parts.port
    except ValueError:
        return name, ""
    return parts.hostname or "", str(port) if port is not None else _DEFAULT_PORTS[scheme]


def _host(header: str) -> str:
    """The name in a Host header, without its port; of an IPv6 address without its brackets."""
    return header[1:].partition("]")[0] if header.startswith("[") else header.partition(":")[0].lower()


# --- bodies and answers -----------------------------------------------------------------------------------------


async def _body(receive: Any, most: int) -> bytes | tuple[int, str]:
    """A whole body, however it is cut into pieces; or the status and the words it is refused with."""
    content = bytearray()
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    return 400, "The request broke off."
                content += message.get("body", b"")
                if len(content) > most:
                    return 413, f"At most {most:,} bytes are taken."
                if not message.get("more_body", False):
                    return bytes(content)
    except TimeoutError:
        return 408, "The request took too long."


def _with_length(scope: Any, length: int) -> Any:
    kept = [row for row in scope["headers"] if row[0].lower() not in _REPLACED]
    added = [(b"content-length", str(length).encode("ascii")), (b"content-type", b"application/json")]
    scope["headers"] = [*kept, *added]
    return scope


def _replayed(body: bytes, receive: Any) -> Any:
    pending = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Any:
        return pending.pop() if pending else await receive()

    return replay


class Answer:
    """Sends an answer with the page's headers. A failed event whose arguments were at fault has status 400."""

    def __init__(self, send: Any, scope: Any) -> None:
        self._send, self._scope, self._begun = send, scope, False

    async def __call__(self, message: Any) -> None:
        """ASGI's send."""
        if message["type"] == "http.response.start":
            self._begun = True
            kept = [row for row in message.get("headers", ()) if not row[0].lower().startswith(b"access-control-")]
            names = {name.lower() for name, _ in kept}
            status = 400 if message["status"] == 500 and self._scope.get(REFUSED) else message["status"]
            added = [row for row in _HEADERS if row[0] not in names]
            message = {**message, "status": status, "headers": [*kept, *added]}
        await self._send(message)

    async def plain(self, status: int, words: str) -> None:
        """An answer in words."""
        await self._whole(status, words.encode("utf-8"), b"text/plain; charset=utf-8")

    async def end(self, status: int, words: str) -> None:
        """An answer in words; where one has begun already, its end."""
        if self._begun:
            await self._send({"type": "http.response.body", "body": b""})
        else:
            await self.plain(status, words)

    async def page(self, status: int, content: bytes) -> None:
        """A page of this module's own, which no browser keeps."""
        await self._whole(status, content, b"text/html; charset=utf-8", (b"cache-control", b"no-store"))

    async def redirect(self, where: str, cookie: str = "") -> None:
        """Send a browser on; `cookie`: what it keeps."""
        more = [(b"set-cookie", cookie.encode("ascii"))] if cookie else []
        await self._whole(303, b"", b"text/plain", (b"location", where.encode("ascii")), *more)

    async def _whole(self, status: int, body: bytes, kind: bytes, *more: tuple[bytes, bytes]) -> None:
        headers = [(b"content-type", kind), (b"content-length", str(len(body)).encode("ascii")), *more]
        await self({"type": "http.response.start", "status": status, "headers": headers})
        await self({"type": "http.response.body", "body": b"" if self._scope["method"] == "HEAD" else body})
