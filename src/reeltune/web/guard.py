"""Checks every request before the page answers it: sender, path, origin and size; adds security headers to answers."""

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

from reeltune.web.calls import MAX_BODY_BYTES, REFUSED, checked_body
from reeltune.web.login import MAX_FORM_BYTES, Login, login_page

_BODY_SECONDS = 30.0  # for a whole body that isn't an upload
_DEFAULT_PORTS = {"http": "80", "https": "443"}
_READ = re.compile(
    r"/(login|config|theme\.css|favicon\.ico|manifest\.json|robots\.txt|(static|assets|svelte)/.+|"
    r"gradio_api/(theme\.css|app_id|startup-events|heartbeat/\w+|queue/data|upload_progress|file=.+))?",
    re.DOTALL,
)
_WRITE = re.compile(r"/(login|logout|gradio_api/(upload|queue/join|run/predict|cancel|reset))")
_PAGES = ("/", "/login")  # links on other sites may lead to these
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
    """The parts of a request that decide whether it is answered."""

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
        """Whether the request changes nothing."""
        return self.method in ("GET", "HEAD")


class Guard:
    """ASGI middleware around the whole page.

    `hosts`: host names that requests may use; empty for any, if a password protects the page. Otherwise a foreign page
    in the same browser could reach this one by a host name of its own. `page`: the Gradio page whose events are called.
    """

    def __init__(self, app: Any, page: Any, hosts: Sequence[str], login: Login) -> None:
        self._app, self._page, self._hosts, self._login = app, page, frozenset(hosts), login

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Refuse a request or pass it on; headers of the answer restrict the browser to this server."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            answer = Answer(send, scope)
            try:
                await self._guarded(Incoming.of(scope), scope, receive, answer)
            except HTTPException as error:  # raised after an answer has begun; Gradio handles earlier ones
                await answer.end(error.status_code, str(error.detail))
            except Exception as error:  # a fault of this program or a library must not stop the page
                if isinstance(error.__cause__, HTTPException):  # for example when a tab was closed during a stream
                    await answer.end(error.__cause__.status_code, str(error.__cause__.detail))
                    return
                _log.exception("A request failed: %s", scope.get("path", "")[:80])
                await answer.end(500, "An unexpected error occurred. The terminal shows details.")
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})

    async def _guarded(self, incoming: Incoming, scope: Any, receive: Any, answer: Answer) -> None:
        if refusal := self._refusal(incoming):
            await answer.plain(*refusal)
        elif incoming.path in ("/login", "/logout"):
            await self._log_in_or_out(incoming, receive, answer)
        elif self._login.needed and not self._login.is_logged_in(incoming.headers.get("cookie", "")):
            if incoming.path == "/":
                await answer.page(401, login_page())
            else:
                await answer.plain(401, "Log in first.")
        elif incoming.reads or incoming.path == "/gradio_api/upload":  # uploads have their own limit
            await self._app(scope, receive, answer)
        else:
            await self._call(incoming, scope, receive, answer)

    def _refusal(self, incoming: Incoming) -> tuple[int, str] | None:
        if self._hosts and _host(incoming.headers.get("host", "")) not in self._hosts:
            return 421, "This page can only be opened on this machine."
        if not _from_this_page(incoming):
            return 403, "This request came from another site. Open the page itself."
        if incoming.reads:
            return None if _READ.fullmatch(incoming.path) else (404, "There is nothing at this address.")
        if incoming.method != "POST":
            return 405, "There is nothing at this address."
        return None if _WRITE.fullmatch(incoming.path) else (404, "There is nothing at this address.")

    async def _call(self, incoming: Incoming, scope: Any, receive: Any, answer: Answer) -> None:
        raw = await _body(receive, MAX_BODY_BYTES)
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
            await answer.page(200, login_page())
        elif self._login.busy(incoming.address):
            await answer.page(429, login_page("Too many attempts at once. Wait some seconds."))
        else:
            raw = await _body(receive, MAX_FORM_BYTES)
            token = await self._login.attempt(raw, incoming.address) if isinstance(raw, bytes) else ""
            if token:
                await answer.redirect("./", self._login.cookie(token, secure=secure))
            else:
                await answer.page(400, login_page("The name or the password is wrong."))


def _from_this_page(incoming: Incoming) -> bool:
    """Whether a request comes from the page itself, from a program, or from opening the page in a browser."""
    origin = incoming.headers.get("origin")
    if origin is not None:
        hosts = (incoming.headers.get("host", ""), incoming.headers.get("x-forwarded-host", ""))
        return any(_same_host(origin, host.partition(",")[0].strip()) for host in hosts)
    site = incoming.headers.get("sec-fetch-site", "none").lower()
    if site in ("same-origin", "none"):
        return True
    mode, destination = incoming.headers.get("sec-fetch-mode"), incoming.headers.get("sec-fetch-dest")
    return incoming.reads and incoming.path in _PAGES and (mode, destination) == ("navigate", "document")


def _same_host(origin: str, host: str) -> bool:
    """Whether an Origin header has the name and port of a Host header; the default port depends on the scheme."""
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
    """The host name in a Host header, without the port and without the brackets of an IPv6 address."""
    return header[1:].partition("]")[0] if header.startswith("[") else header.partition(":")[0].lower()


# --- bodies and answers -----------------------------------------------------------------------------------------


async def _body(receive: Any, max_bytes: int) -> bytes | tuple[int, str]:
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


class Answer:
    """Sends answers with the security headers of the page.

    An event that failed because of its arguments gets status 400.
    """

    def __init__(self, send: Any, scope: Any) -> None:
        self._send, self._scope, self._begun = send, scope, False

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
            status = 400 if message["status"] == 500 and self._scope.get(REFUSED) else message["status"]
            message = {**message, "status": status, "headers": headers}
        await self._send(message)

    async def plain(self, status: int, message: str) -> None:
        """Answer with a text."""
        await self._whole(status, message.encode("utf-8"), b"text/plain; charset=utf-8")

    async def end(self, status: int, message: str) -> None:
        """Answer with a text, or end an answer that has begun."""
        if self._begun:
            await self._send({"type": "http.response.body", "body": b""})
        else:
            await self.plain(status, message)

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
