"""Headers of files behind URLs, read in bounded time however many there are and however slow their servers."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from typing import Self

from reeltune.checkpoints.header import parse_header
from reeltune.checkpoints.identify import Identity, identify
from reeltune.definitions import Version
from reeltune.errors import Offline, Unreachable
from reeltune.events import CancelToken
from reeltune.net import Session, UrlSource, shown
from reeltune.net.civitai import resolve
from reeltune.net.waiting import run_within

_SECONDS_EACH = 60.0
_SECONDS = 120.0
_PATIENCE_SECONDS = 10.0  # a host that kept us waiting so long for nothing isn't asked again


class Headers:
    """Reads headers over shared connections. `notices`: files whose header could not be read for now."""

    def __init__(
        self,
        tokens: Mapping[str, str] | None = None,
        *,
        each: float = _SECONDS_EACH,
        seconds: float = _SECONDS,
        cancel: CancelToken | None = None,
    ) -> None:
        self._session = Session(tokens=tokens)
        self._cancel = cancel
        self._each, self._seconds = each, seconds
        self._end: float | None = None
        self._failing: dict[str, str] = {}  # hosts, and why they aren't asked again
        self.notices: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._session.__exit__()

    def identity(self, version: Version) -> Identity | None:
        """What the header behind a URL says; None, with a notice, where it can't be read for now.

        Raises CheckpointError and FetchError for what is wrong with the file.
        """
        host = origin_of(version.url)
        began = time.monotonic()
        self._end = self._end or began + self._seconds
        left = min(self._each, self._end - began)
        if left <= 0:
            self._failing.setdefault(host, "Reading the headers of other files took too long.")
        if host in self._failing:
            self.notices.append(f"{version.file_name}: its header was not read. {self._failing[host]}")
            return None
        try:
            with UrlSource(
                self._resolved(version.url, left), self._session, seconds=left, cancel=self._cancel
            ) as source:
                return identify(parse_header(source))
        except (Offline, Unreachable) as error:
            if time.monotonic() - began > _PATIENCE_SECONDS:
                self._failing[host] = f"{host} took too long for another file."
            self.notices.append(f"{version.file_name}: its header could not be read. {error}")
            return None

    def _resolved(self, url: str, seconds: float) -> str:
        """The URL of the file itself, where a site's own pages and queries stand for one."""
        stop = self._session.interrupt
        work = partial(resolve, self._session, url)
        return run_within(seconds, work, stop=stop, name=shown(url), cancel=self._cancel).url


def origin_of(url: str) -> str:
    """Scheme and host of a URL, as a message may show them."""
    return "/".join(shown(url).split("/")[:3])
