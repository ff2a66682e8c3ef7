"""HTTP requests with the user's tokens, redirects and timeouts, whose failures become readable errors."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
import weakref
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn, Self

from reeltune._text import shortened
from reeltune.errors import FetchError, InvalidJSON, Unreachable
from reeltune.net.tokens import token_for, token_name
from reeltune.net.urls import normalise, origin, refuse_offline, shown
from reeltune.untrusted import clean_text, parse_json

if TYPE_CHECKING:
    import httpx

STALL_SECONDS = 30.0
_CONNECT_SECONDS = 10.0
_TEMPORARY_STATUSES = {408, 425, 429, 500, 502, 503, 504}
_CONNECTED = ("connection.connect_tcp.complete", "connection.start_tls.complete", "proxy_stream.start_tls.complete")
_ENCODINGS = ("gzip", "deflate")  # those that httpx decodes without another package
_MAX_EXPLANATION = 300  # characters of a server's explanation that a message shows
_MAX_EXPLANATION_BYTES = 16_000
_EXPLANATION_SECONDS = 5.0


class Session:
    """A pool of connections shared by the requests of one operation.

    `stall`: seconds without a byte after which a request fails. `tokens`: the user's tokens by "hub" and "civitai";
    those of the environment are used where it has none. `refused`: hosts that refused the user's token and served the
    file without it.
    """

    def __init__(
        self, *, stall: float = STALL_SECONDS, connections: int = 4, tokens: Mapping[str, str] | None = None
    ) -> None:
        self._stall = stall
        self._connections = connections
        self._tokens = dict(tokens or {})
        self._streams: weakref.WeakSet[Any] = weakref.WeakSet()
        self._lock = threading.Lock()
        self.refused: set[str] = set()

    @cached_property
    def _client(self) -> httpx.Client:
        import httpx

        limits = httpx.Limits(max_connections=self._connections + 1, max_keepalive_connections=self._connections)
        timeout = httpx.Timeout(self._stall, connect=min(self._stall, _CONNECT_SECONDS))
        return httpx.Client(follow_redirects=True, timeout=timeout, limits=limits)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        if "_client" in self.__dict__:
            self._client.close()

    def interrupt(self) -> None:
        """Close every connection, so that threads that wait for a server continue. The session stays usable."""
        with self._lock:
            streams = list(self._streams)
        for stream in streams:
            with contextlib.suppress(OSError, AttributeError):
                stream.get_extra_info("socket").shutdown(socket.SHUT_RDWR)

    def _trace(self, event: str, info: Mapping[str, Any]) -> None:
        """Record each new connection (httpx's `trace` extension)."""
        if event in _CONNECTED:
            with self._lock:
                self._streams.add(info["return_value"])

    @contextmanager
    def get(
        self, url: str, *, first: int | None = None, last: int | None = None, if_range: str = ""
    ) -> Iterator[httpx.Response]:
        """Stream a GET request of a URL; read the response with `chunks`.

        `first`, `last`: the range of bytes to request, both included. `if_range`: the ETag or date of the file; if the
        file has changed since, the response holds all of it. Raises Offline, Unreachable for temporary failures, and
        FetchError for others, with the server's explanation.
        """
        import httpx

        refuse_offline(f"{shown(url)} can't be downloaded: reeltune is offline.")
        headers = {"Accept-Encoding": "identity", "User-Agent": "reeltune"}
        if first is not None:
            headers["Range"] = f"bytes={first}-{'' if last is None else last}"
            if if_range:
                headers["If-Range"] = if_range
        try:
            target = normalise(url)
            host = origin(target)[1]
            token = token_for(target, self._tokens) if host not in self.refused else None
        except ValueError as error:
            raise FetchError(f"{shown(url)!r} is not a valid URL.", hint="Check the URL.") from error
        try:
            with ExitStack() as stack:
                login = {"Authorization": f"Bearer {token}"} if token else {}
                response = self._send(stack, target, headers | login)
                if response.status_code in (401, 403) and token:  # an expired token is refused even for public files
                    explanation = _explanation(response)
                    stack.close()
                    response = self._send(stack, target, headers)
                    if response.status_code >= 400:
                        _raise_for_status(url, target, response, explanation, token_sent=True)
                    self.refused.add(host)
                if response.status_code >= 400:
                    _raise_for_status(url, target, response, _explanation(response))
                yield response
        except (httpx.InvalidURL, httpx.UnsupportedProtocol, httpx.TooManyRedirects, UnicodeError) as error:
            message = f"{shown(url)} can't be downloaded: {_reason(error)}."
            raise FetchError(message, hint="Check the URL.") from error
        except httpx.HTTPError as error:
            message = f"{shown(url)} can't be reached: {_reason(error)}."
            raise Unreachable(message, hint="Check the URL and the network.") from error

    def _send(self, stack: ExitStack, target: str, headers: Mapping[str, str]) -> httpx.Response:
        extensions = {"trace": self._trace}
        return stack.enter_context(self._client.stream("GET", target, headers=headers, extensions=extensions))

    def read(self, url: str, max_bytes: int) -> bytes:
        """The body of a small response. Raises as `get`, and FetchError for more than `max_bytes`."""
        body = bytearray()
        with self.get(url) as response:
            for chunk in chunks(response):
                body += chunk
                if len(body) > max_bytes:
                    message = f"The response of {shown(url)} has more than {max_bytes:,} bytes."
                    raise FetchError(message, hint="Check the URL.")
        return bytes(body)


def is_compressed(response: httpx.Response) -> bool:
    """Whether the server compressed the response although the request doesn't accept that."""
    return response.headers.get("Content-Encoding", "").strip().lower() not in ("", "identity")


def chunks(response: httpx.Response) -> Iterator[bytes]:
    """The bytes of the file as they arrive, decompressed if necessary.

    Raises FetchError if the server sends a part of a compressed file, or uses an unsupported compression.
    """
    if not is_compressed(response):
        return response.iter_raw()
    encoding = response.headers["Content-Encoding"].strip().lower()
    if encoding not in _ENCODINGS or response.status_code == 206:
        message = f"{shown(str(response.url))} is sent compressed ({encoding[:40]!r}), which is not supported."
        raise FetchError(message, hint="Download it from another server.")
    return response.iter_bytes()


def header_number(text: str) -> int | None:
    """The number in a header such as Content-Length; None if it is not a non-negative integer."""
    if not text.isascii() or not text.isdigit() or len(text) >= 19:
        return None
    return int(text)


def _raise_for_status(
    url: str, target: str, response: httpx.Response, explanation: str, *, token_sent: bool = False
) -> NoReturn:
    """Raise the error for a status of 400 or above."""
    status = response.status_code
    message = f"{shown(url)}: {_status_text(status)}"
    if explanation:
        message += f' It reports: "{explanation}"'
    if status in _TEMPORARY_STATUSES:
        retry_after = header_number(response.headers.get("Retry-After", ""))
        raise Unreachable(message, hint="Try again later.", retry_after=retry_after)
    raise FetchError(message, hint=_hint(status, target, token_sent))


def _status_text(status: int) -> str:
    meanings = {
        401: "login required",
        403: "access denied",
        404: "file not found",
        429: "too many requests",
    }
    meaning = f" ({meanings[status]})" if status in meanings else ""
    return f"the server responded with status {status}{meaning}."


def _hint(status: int, target: str, token_sent: bool) -> str:
    if status == 404:
        return "Check the URL in the definition."
    if status not in (401, 403):
        return "Try again later."
    name = token_name(target)
    if not name:
        return "Logins are supported for the Hub and CivitAI only: download the file with a browser."
    terms = ", and accept the model's terms on its page if it is gated" if name == "HF_TOKEN" else ""
    if token_sent:
        return f"Your token ({name}) was refused: renew it{terms}."
    return f"Set {name}{terms}."


def _explanation(response: httpx.Response) -> str:
    """The server's explanation of an error: the Hub's header, or the message in a JSON or plain text response."""
    text = response.headers.get("X-Error-Message", "") or _error_text(_body(response), response)
    printable = "".join(character if character.isprintable() else " " for character in clean_text(text))
    return shortened(" ".join(printable.split()), _MAX_EXPLANATION)


def _body(response: httpx.Response) -> bytes:
    import httpx

    body = bytearray()
    deadline = time.monotonic() + _EXPLANATION_SECONDS
    with contextlib.suppress(httpx.HTTPError, FetchError):
        for chunk in chunks(response):
            body += chunk
            if len(body) > _MAX_EXPLANATION_BYTES or time.monotonic() > deadline:
                break
    return bytes(body[:_MAX_EXPLANATION_BYTES])


def _error_text(body: bytes, response: httpx.Response) -> str:
    """The message in the body of an error response; empty if there is none."""
    content_type = response.headers.get("Content-Type", "")
    if content_type.startswith("text/plain"):
        return body.decode("utf-8", "replace")
    try:
        value = parse_json(body, "the response")
    except InvalidJSON:
        return ""
    if not isinstance(value, dict):
        return ""
    for key in ("message", "error", "detail"):
        text = value.get(key)
        if isinstance(text, dict):
            text = text.get("message")
        if isinstance(text, str) and text:
            return text
    return ""


def _reason(error: BaseException) -> str:
    """Why a request failed."""
    import httpx

    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, socket.gaierror):
            return "the host name can't be resolved"
        if isinstance(cause, ConnectionRefusedError):
            return "the connection was refused"
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its certificate can't be verified ({cause.verify_message})"
        if isinstance(cause, ssl.SSLError):
            return "no secure connection can be made"
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, httpx.ConnectTimeout):
        return "connecting timed out"
    if isinstance(error, httpx.TimeoutException):
        return "the server sent no data in time"
    reasons = {
        httpx.ConnectError: "no connection can be made",
        httpx.ProxyError: "the proxy refused the request",
        httpx.TooManyRedirects: "too many redirects",
        httpx.UnsupportedProtocol: "only http and https are supported",
        httpx.DecodingError: "its compressed response is damaged",
        httpx.ProtocolError: "the server closed the connection, or didn't respond in HTTP",
        httpx.NetworkError: "the connection was lost",
    }
    for error_type, text in reasons.items():
        if isinstance(error, error_type):
            return text
    return "it is not a valid URL"
