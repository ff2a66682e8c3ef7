"""Checks every request before the page or the API answers it: its host, its origin, and who sends it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException

from reeltune.api import HEALTH, TOPS
from reeltune.server.access import Access
from reeltune.server.answers import Answer, read_body
from reeltune.server.login import MAX_FORM_BYTES, login_page

if TYPE_CHECKING:
    from reeltune.server.page_gate import PageGate

_DEFAULT_PORTS = {"http": "80", "https": "443"}
_PAGES = ("/", "/login", "/docs")  # links on other sites may lead to these
_ONLY_LOCAL = "This server can only be used on this machine, as localhost or 127.0.0.1."
_FOREIGN = "This request came from another site."
_NO_PAGE = "There is no page here: the server was started with --no-page."
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

    @property
    def is_for_api(self) -> bool:
        """Whether programs send such requests, and not the page."""
        return self.path == HEALTH or any(self.path == top or self.path.startswith(f"{top}/") for top in TOPS)


class Guard:
    """ASGI middleware around everything.

    `api` answers the requests of programs, `page` those of the page; None without a page. `hosts`: host names that
    requests may use; empty for any, if a password or a key protects the server. Otherwise a foreign page in the same
    browser could reach this one by a host name of its own.
    """

    def __init__(self, api: Any, page: PageGate | None, hosts: Sequence[str], access: Access) -> None:
        self._api, self._page, self._hosts, self._access = api, page, frozenset(hosts), access

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Refuse a request or pass it on; headers of the answer restrict the browser to this server."""
        if scope["type"] == "lifespan":
            await self._api(scope, receive, send)
        elif scope["type"] == "http":
            answer, incoming = Answer(send, scope), Incoming.of(scope)
            try:
                await self._guarded(incoming, scope, receive, answer)
            except HTTPException as error:  # raised after an answer has begun; the application handles earlier ones
                await answer.end(error.status_code, str(error.detail), as_json=incoming.is_for_api)
            except Exception as error:  # a fault of this program or a library must not stop the server
                if isinstance(error.__cause__, HTTPException):  # for example when a tab was closed during a stream
                    cause = error.__cause__
                    await answer.end(cause.status_code, str(cause.detail), as_json=incoming.is_for_api)
                    return
                if incoming.is_for_api and answer.complete:  # the API has answered and logged it
                    return
                _log.exception("A request failed: %s", scope.get("path", "")[:80])
                message = "An unexpected error occurred. The terminal shows details."
                await answer.end(500, message, as_json=incoming.is_for_api)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})

    async def _guarded(self, incoming: Incoming, scope: Any, receive: Any, answer: Answer) -> None:
        if self._hosts and _host(incoming.headers.get("host", "")) not in self._hosts:
            await answer.refusal(421, _ONLY_LOCAL, as_json=incoming.is_for_api)
        elif not _from_this_server(incoming):
            await answer.refusal(403, _FOREIGN, as_json=incoming.is_for_api)
        elif incoming.is_for_api:
            await self._for_program(incoming, scope, receive, answer)
        elif self._page is None:
            await answer.refusal(404, _NO_PAGE, as_json=True)
        elif refusal := self._page.refusal(incoming.method, incoming.path):
            await answer.plain(*refusal)
        elif incoming.path in ("/login", "/logout"):
            await self._log_in_or_out(incoming, receive, answer)
        elif self._access.allows_visitor(incoming.headers):
            await self._page(scope, receive, answer)
        elif incoming.path == "/":
            await answer.page(401, login_page())
        else:
            await answer.plain(401, "Log in first.")

    async def _for_program(self, incoming: Incoming, scope: Any, receive: Any, answer: Answer) -> None:
        if incoming.path == HEALTH or self._access.allows_program(incoming.headers):
            await self._api(scope, receive, answer)
        else:
            await answer.refusal(401, self._access.refusal, as_json=True)

    # --- logging in -----------------------------------------------------------------------------------------

    async def _log_in_or_out(self, incoming: Incoming, receive: Any, answer: Answer) -> None:
        login, cookies = self._access.login, incoming.headers.get("cookie", "")
        secure = incoming.headers.get("origin", "").startswith("https:")
        if not login.needed:
            await answer.redirect("./")
        elif incoming.path == "/logout":
            login.end(cookies)
            await answer.redirect("./", login.cookie("", secure=secure))
        elif incoming.reads:
            await answer.page(200, login_page())
        elif login.busy(incoming.address):
            await answer.page(429, login_page("Too many attempts at once. Wait some seconds."))
        else:
            raw = await read_body(receive, MAX_FORM_BYTES)
            token = await login.attempt(raw, incoming.address) if isinstance(raw, bytes) else ""
            if token:
                await answer.redirect("./", login.cookie(token, secure=secure))
            else:
                await answer.page(400, login_page("The name or the password is wrong."))


def _from_this_server(incoming: Incoming) -> bool:
    """Whether a request comes from a page of this server, from a program, or from opening the page in a browser."""
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
