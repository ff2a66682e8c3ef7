"""The one way to the network: tokens, mirrors, redirects, the offline switch, and URLs as header sources.

The Hub's token (`HF_TOKEN`, or the stored login) goes to the Hub only, CivitAI's (`CIVITAI_TOKEN`) to CivitAI
only: httpx drops them on redirects to another host, and no message ever shows them. `HF_ENDPOINT` names a mirror.
`REELTUNE_OFFLINE=1` forbids all network use.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit, urlunsplit

from reeltune.errors import FetchError, Offline, Unreachable

if TYPE_CHECKING:
    import httpx

HUB = "https://huggingface.co"
CIVITAI = "https://civitai.com"
STALL_SECONDS = 30.0
_PASSING = {408, 425, 429, 500, 502, 503, 504}
_FIRST_READ = 512 * 1024  # covers the header of every 14B file seen, so that one request is enough
_HUB_HOSTS = ("huggingface.co", "www.huggingface.co", "hf.co")
_HUB_PAGE = re.compile(r"^((?:/[^/]+){1,3}?)/(?:blob|raw)/")  # below the name of a repository
_TRUE = {"1", "true", "yes", "on"}


def offline() -> bool:
    """Whether the user forbade network use."""
    return any(os.environ.get(name, "").lower() in _TRUE for name in ("REELTUNE_OFFLINE", "HF_HUB_OFFLINE"))


def hub_endpoint() -> str:
    """Address of the Hub or of the mirror that stands in for it."""
    return os.environ.get("HF_ENDPOINT", HUB).rstrip("/")


def civitai_endpoint() -> str:
    """Address of CivitAI or of what stands in for it."""
    return os.environ.get("CIVITAI_ENDPOINT", CIVITAI).rstrip("/")


def normalise(url: str) -> str:
    """The URL that serves the file, as `file_url` has it, with the mirror in place of the Hub."""
    parts = urlsplit(file_url(url))
    if parts.hostname in _HUB_HOSTS:
        mirror = urlsplit(hub_endpoint())
        return urlunsplit((mirror.scheme, mirror.netloc, mirror.path.rstrip("/") + parts.path, parts.query, ""))
    return file_url(url)


def file_url(url: str) -> str:
    """The URL of the file behind a page of the Hub: `/blob/` shows a page, and `/raw/` answers with a Git LFS pointer
    in place of a large file. Other URLs stay as they are.
    """
    parts = urlsplit(url)
    if parts.hostname not in _HUB_HOSTS and parts.netloc != urlsplit(hub_endpoint()).netloc:
        return url
    return urlunsplit(parts._replace(path=_HUB_PAGE.sub(r"\1/resolve/", parts.path, count=1)))


def shown(url: str) -> str:
    """A URL fit for messages: without user, query or fragment, where tokens hide."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


_SECRETS = {
    "token", "api_key", "apikey", "access_token", "key", "auth", "signature", "sig", "policy", "key-pair-id",
    "awsaccesskeyid", "googleaccessid",
}  # fmt: skip
_SECRET_STARTS = ("x-amz-", "x-goog-")


def without_secrets(url: str) -> str:
    """A link fit for files: without user, password, fragment and the query's tokens; the rest as it is."""
    if "://" not in url:
        return url
    parts = urlsplit(url)
    query = "&".join(field for field in parts.query.split("&") if not _secret(field.partition("=")[0].lower()))
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, query, ""))


def _secret(name: str) -> bool:
    return name in _SECRETS or name.startswith(_SECRET_STARTS)


def hub_token() -> str | None:
    """The Hub's token from the environment or the stored login."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        if token := os.environ.get(name, "").strip():
            return token
    home = Path(os.environ.get("HF_HOME", Path.home() / ".cache" / "huggingface"))
    stored = Path(os.environ.get("HF_TOKEN_PATH", home / "token"))
    try:
        return stored.read_text(encoding="utf-8").strip() or None
    except OSError:
        return None


def _token(url: str) -> str | None:
    """The token for a URL's host: the Hub's or CivitAI's, and no other host's."""
    host = urlsplit(url).netloc
    if host == urlsplit(hub_endpoint()).netloc:
        return hub_token()
    if host == urlsplit(civitai_endpoint()).netloc:
        return os.environ.get("CIVITAI_TOKEN", "").strip() or None
    return None


class Session:
    """Connections that the requests of one job share. `stall`: seconds without a byte until a request fails.

    `refused` names the hosts that refused the user's token and answered without it.
    """

    def __init__(self, *, stall: float = STALL_SECONDS, connections: int = 4) -> None:
        self._stall, self._connections = stall, connections
        self.refused: set[str] = set()

    @cached_property
    def _client(self) -> httpx.Client:
        import httpx

        limits = httpx.Limits(max_connections=self._connections + 1, max_keepalive_connections=self._connections)
        return httpx.Client(follow_redirects=True, timeout=self._stall, limits=limits)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        if "_client" in self.__dict__:
            self._client.close()

    @contextmanager
    def get(
        self, url: str, *, first: int | None = None, last: int | None = None, if_range: str = ""
    ) -> Iterator[httpx.Response]:
        """A streamed GET of a URL or a range of its bytes (both ends included).

        `if_range`: what the file was known by; where it changed, the answer is the whole of it. Raises Offline,
        Unreachable for what may pass, FetchError for what won't, with the server's answer in words.
        """
        import httpx

        if offline():
            raise Offline(f"{shown(url)} is needed, but the network is switched off.", hint="Unset REELTUNE_OFFLINE.")
        headers = {"Accept-Encoding": "identity", "User-Agent": "reeltune"}
        if first is not None:
            headers["Range"] = f"bytes={first}-{'' if last is None else last}"
            headers |= {"If-Range": if_range} if if_range else {}
        try:
            target = normalise(url)
            host = urlsplit(target).netloc
            token = _token(target) if host not in self.refused else None
        except ValueError as error:
            raise FetchError(f"{url[:200]!r} is no link that can be followed.", hint="Check the link.") from error
        try:
            with ExitStack() as stack:
                login = {"Authorization": f"Bearer {token}"} if token else {}
                response = stack.enter_context(self._client.stream("GET", target, headers=headers | login))
                if response.status_code in (401, 403) and token:  # a stale token is refused even for public files
                    stack.close()
                    response = stack.enter_context(self._client.stream("GET", target, headers=headers))
                    if response.status_code < 400:
                        self.refused.add(host)
                _refuse(url, response)
                yield response
        except (httpx.InvalidURL, httpx.UnsupportedProtocol, httpx.TooManyRedirects, UnicodeError) as error:
            message = f"{shown(url)} leads nowhere: {type(error).__name__}."
            raise FetchError(message, hint="Check the link.") from error
        except httpx.HTTPError as error:
            message = f"{shown(url)} can't be reached: {type(error).__name__}."
            raise Unreachable(message, hint="Check the link and the network.") from error


def natural(text: str) -> int | None:
    """A count in a header, or None for anything else a server may put there."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None


def _refuse(url: str, response: httpx.Response) -> None:
    status = response.status_code
    if status < 400:
        return
    message = f"{shown(url)}: {_answer(status)}"
    if status in _PASSING:
        pause = response.headers.get("Retry-After", "")
        raise Unreachable(message, hint=_hint(status), retry_after=natural(pause))
    raise FetchError(message, hint=_hint(status))


def _answer(status: int) -> str:
    known = {
        401: "a login is needed",
        403: "access is refused",
        404: "there is no such file",
        429: "too many requests",
    }
    return f"the server answers {status}" + (f" ({known[status]})." if status in known else ".")


def _hint(status: int) -> str:
    if status in (401, 403):
        return "Set HF_TOKEN, and accept the model's terms on its page if it is gated."
    return "Check the link in the definition." if status == 404 else "Try again later."


class UrlSource:
    """A remote file as a header source: reads by Range requests, never the whole body.

    The first request takes the start of the file and its size; what it brought serves later reads.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._session = Session()
        self._start = b""
        self._size: int | None = None
        self.requests = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._start = b""
        self._session.__exit__()

    @property
    def name(self) -> str:
        """The URL, without anything secret."""
        return shown(self._url)

    def size(self) -> int:
        """Length in bytes, as the server announces it."""
        if self._size is None:
            self._start = self._fetch(0, _FIRST_READ)
        if self._size is None:
            raise FetchError(f"{self.name}: the server does not tell the file's size.")
        return self._size

    def read_at(self, offset: int, length: int) -> bytes:
        """Exactly `length` bytes from `offset`, or fewer at the end."""
        if offset + length <= len(self._start) or len(self._start) == self.size():
            return self._start[offset : offset + length]
        return self._fetch(offset, length)

    def _fetch(self, offset: int, length: int) -> bytes:
        self.requests += 1
        with self._session.get(self._url, first=offset, last=offset + length - 1) as response:
            if response.status_code == 206:
                total = response.headers.get("Content-Range", "").rpartition("/")[2]
                self._size = natural(total) if natural(total) is not None else self._size
                skip = 0
            else:  # the server ignores Range: read from the start, and no further than needed
                announced = response.headers.get("Content-Length", "")
                self._size = natural(announced) if natural(announced) is not None else self._size
                skip = offset
            received = bytearray()
            for chunk in response.iter_raw(64 * 1024):
                received += chunk
                if len(received) >= skip + length:
                    break
            return bytes(received[skip : skip + length])
