"""Requests: one client with the user's tokens, redirects, timeouts; what goes wrong becomes an error in words."""

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
from typing import TYPE_CHECKING, Any, Self

from reeltune.errors import FetchError, InvalidJSON, Unreachable
from reeltune.net.tokens import token_for, token_name
from reeltune.net.urls import normalise, origin, refuse_offline, shown
from reeltune.untrusted import clean_text, parse_json

if TYPE_CHECKING:
    import httpx

STALL_SECONDS = 30.0
_CONNECT_SECONDS = 10.0
_PASSING = {408, 425, 429, 500, 502, 503, 504}
_CONNECTED = ("connection.connect_tcp.complete", "connection.start_tls.complete", "proxy_stream.start_tls.complete")
_ENCODINGS = ("gzip", "deflate")  # what can be decoded without another package
_SENTENCE = 300  # characters of a server's own words that are shown
_SENTENCE_BYTES = 16_000
_SENTENCE_SECONDS = 5.0


class Session:
    """Connections that the requests of one job share. `stall`: seconds without a byte until a request fails.

    `tokens`: the user's, by "hub" and "civitai"; without them those of the environment are used. `refused` names the
    hosts that refused the user's token and answered without it.
    """

    def __init__(
        self, *, stall: float = STALL_SECONDS, connections: int = 4, tokens: Mapping[str, str] | None = None
    ) -> None:
        self._stall, self._connections = stall, connections
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
        """Cut every connection, so that all threads that wait for a server go on at once. New ones can be made."""
        with self._lock:
            streams = list(self._streams)
        for stream in streams:
            with contextlib.suppress(OSError, AttributeError):
                stream.get_extra_info("socket").shutdown(socket.SHUT_RDWR)

    def _trace(self, event: str, info: Mapping[str, Any]) -> None:
        """Remember each connection that is made (httpx's `trace` extension)."""
        if event in _CONNECTED:
            with self._lock:
                self._streams.add(info["return_value"])

    @contextmanager
    def get(
        self, url: str, *, first: int | None = None, last: int | None = None, if_range: str = ""
    ) -> Iterator[httpx.Response]:
        """A streamed GET of a URL or a range of its bytes (both ends included); read it by `chunks`.

        `if_range`: what the file was known by; where it changed, the answer is the whole of it. Raises Offline,
        Unreachable for what may pass, FetchError for what won't, with the server's answer in words.
        """
        import httpx

        refuse_offline(f"{shown(url)} is needed, but the network is switched off.")
        headers = {"Accept-Encoding": "identity", "User-Agent": "reeltune"}
        if first is not None:
            headers["Range"] = f"bytes={first}-{'' if last is None else last}"
            headers |= {"If-Range": if_range} if if_range else {}
        try:
            target = normalise(url)
            host = origin(target)[1]
            token = token_for(target, self._tokens) if host not in self.refused else None
        except ValueError as error:
            raise FetchError(f"{shown(url)!r} is not a URL that can be followed.", hint="Check the URL.") from error
        try:
            with ExitStack() as stack:
                login = {"Authorization": f"Bearer {token}"} if token else {}
                response = self._send(stack, target, headers | login)
                if response.status_code in (401, 403) and token:  # a stale token is refused even for public files
                    words = _sentence(response)
                    stack.close()
                    response = self._send(stack, target, headers)
                    if response.status_code >= 400:
                        _refuse(url, target, response, words, token_sent=True)
                    self.refused.add(host)
                if response.status_code >= 400:
                    _refuse(url, target, response, _sentence(response))
                yield response
        except (httpx.InvalidURL, httpx.UnsupportedProtocol, httpx.TooManyRedirects, UnicodeError) as error:
            message = f"{shown(url)} can't be followed: {_reason(error)}."
            raise FetchError(message, hint="Check the URL.") from error
        except httpx.HTTPError as error:
            message = f"{shown(url)} can't be reached: {_reason(error)}."
            raise Unreachable(message, hint="Check the URL and the network.") from error

    def _send(self, stack: ExitStack, target: str, headers: Mapping[str, str]) -> httpx.Response:
        extensions = {"trace": self._trace}
        return stack.enter_context(self._client.stream("GET", target, headers=headers, extensions=extensions))

    def read(self, url: str, most: int) -> bytes:
        """The whole of a small answer, such as a listing. Raises as `get`; FetchError for more than `most` bytes."""
        body = bytearray()
        with self.get(url) as response:
            for chunk in chunks(response):
                body += chunk
                if len(body) > most:
                    raise FetchError(f"{shown(url)} answers with more than {most:,} bytes.", hint="Check the URL.")
        return bytes(body)


def encoded(response: httpx.Response) -> bool:
    """Whether a server compresses the answer, though it was asked not to."""
    return response.headers.get("Content-Encoding", "").strip().lower() not in ("", "identity")


def chunks(response: httpx.Response) -> Iterator[bytes]:
    """The bytes of the file as they come, decoded where the server compresses them. Raises FetchError where it sends a
    part of a compressed file, or compresses in a way that isn't known.
    """
    if not encoded(response):
        return response.iter_raw()
    encoding = response.headers["Content-Encoding"].strip().lower()
    if encoding not in _ENCODINGS or response.status_code == 206:
        message = f"{shown(str(response.url))} is sent compressed ({encoding[:40]!r}), which can't be used."
        raise FetchError(message, hint="Download it from another server.")
    return response.iter_bytes()


def natural(text: str) -> int | None:
    """A count in a header, or None for anything else a server may put there."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None


def _refuse(url: str, target: str, response: httpx.Response, words: str, *, token_sent: bool = False) -> None:
    """Raise the error for a status of 400 and above."""
    status = response.status_code
    message = f"{shown(url)}: {_answer(status)}" + (f' It says: "{words}"' if words else "")
    if status in _PASSING:
        pause = response.headers.get("Retry-After", "")
        raise Unreachable(message, hint="Try again later.", retry_after=natural(pause))
    raise FetchError(message, hint=_hint(status, target, token_sent))


def _answer(status: int) -> str:
    known = {
        401: "a login is needed",
        403: "access is refused",
        404: "there is no such file",
        429: "too many requests",
    }
    return f"the server answers {status}" + (f" ({known[status]})." if status in known else ".")


def _hint(status: int, target: str, token_sent: bool) -> str:
    if status == 404:
        return "Check the URL in the definition."
    if status not in (401, 403):
        return "Try again later."
    name = token_name(target)
    if not name:
        return "This host may need a login, which only the Hub and CivitAI can be given. Download the file by hand."
    terms = ", and accept the model's terms on its page if it is gated" if name == "HF_TOKEN" else ""
    return f"Your token ({name}) was refused: renew it{terms}." if token_sent else f"Set {name}{terms}."


def _sentence(response: httpx.Response) -> str:
    """What the server itself says of a refusal: in the Hub's header, or in a JSON or plain text answer."""
    words = response.headers.get("X-Error-Message", "") or _told(_body(response), response)
    words = " ".join("".join(character if character.isprintable() else " " for character in clean_text(words)).split())
    return words if len(words) <= _SENTENCE else words[: _SENTENCE - 1] + "…"


def _body(response: httpx.Response) -> bytes:
    import httpx

    body, end = bytearray(), time.monotonic() + _SENTENCE_SECONDS
    with contextlib.suppress(httpx.HTTPError, FetchError):
        for chunk in chunks(response):
            body += chunk
            if len(body) > _SENTENCE_BYTES or time.monotonic() > end:
                break
    return bytes(body[:_SENTENCE_BYTES])


def _told(body: bytes, response: httpx.Response) -> str:
    kind = response.headers.get("Content-Type", "")
    if kind.startswith("text/plain"):
        return body.decode("utf-8", "replace")
    try:
        value = parse_json(body, "the answer")
    except InvalidJSON:
        return ""
    for key in ("message", "error", "detail"):
        found = value.get(key) if isinstance(value, dict) else None
        found = found.get("message") if isinstance(found, dict) else found
        if isinstance(found, str) and found:
            return found
    return ""


def _reason(error: BaseException) -> str:
    """Why a request failed, in words."""
    import httpx

    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, socket.gaierror):
            return "the host name is not known"
        if isinstance(cause, ConnectionRefusedError):
            return "the connection is refused"
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its certificate can't be verified ({cause.verify_message})"
        if isinstance(cause, ssl.SSLError):
            return "no secure connection can be made"
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, httpx.ConnectTimeout):
        return "it can't be connected to in time"
    if isinstance(error, httpx.TimeoutException):
        return "no byte comes for too long"
    words = {
        httpx.ConnectError: "no connection can be made",
        httpx.ProxyError: "the proxy refuses it",
        httpx.TooManyRedirects: "it redirects without end",
        httpx.UnsupportedProtocol: "only http and https can be used",
        httpx.DecodingError: "its compressed answer is damaged",
        httpx.ProtocolError: "the server breaks off or doesn't answer in HTTP",
        httpx.NetworkError: "the connection broke off",
    }
    return next((text for kind, text in words.items() if isinstance(error, kind)), "it is not a valid URL")
