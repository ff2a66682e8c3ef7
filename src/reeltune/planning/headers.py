"""Headers of files behind URLs, read in a limited time, however many files there are and however slow the servers."""

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
from reeltune.net import Session, UrlSource, run_within, shown
from reeltune.net.civitai import resolve

_SECONDS_PER_FILE = 60.0
_SECONDS = 120.0
_SLOW_SECONDS = 10.0  # a host that fails after a longer time is not asked again


class Headers:
    """Reads headers over shared connections, for at most `seconds` in total.

    `notices`: files whose header could not be read at the moment.
    """

    def __init__(
        self,
        tokens: Mapping[str, str] | None = None,
        *,
        seconds_per_file: float = _SECONDS_PER_FILE,
        seconds: float = _SECONDS,
        cancel: CancelToken | None = None,
    ) -> None:
        self._session = Session(tokens=tokens)
        self._cancel = cancel
        self._seconds_per_file = seconds_per_file
        self._seconds = seconds
        self._end: float | None = None  # the time starts with the first header
        self._skipped_hosts: dict[str, str] = {}  # hosts that are not asked again, and why
        self.notices: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._session.__exit__()

    def identity(self, version: Version) -> Identity | None:
        """The identity of the file behind a URL, by its header; None, with a notice, if it can't be read now.

        Raises CheckpointError and FetchError if something is wrong with the file itself.
        """
        host = origin_of(version.url)
        started = time.monotonic()
        if self._end is None:
            self._end = started + self._seconds
        remaining = min(self._seconds_per_file, self._end - started)
        if remaining <= 0:
            self._skipped_hosts.setdefault(host, "Reading the headers of other files took too long.")
        if host in self._skipped_hosts:
            self.notices.append(f"{version.file_name}: its header was not read. {self._skipped_hosts[host]}")
            return None
        try:
            url = self._resolve(version.url, remaining)
            with UrlSource(url, self._session, seconds=remaining, cancel=self._cancel) as source:
                return identify(parse_header(source))
        except (Offline, Unreachable) as error:
            if time.monotonic() - started > _SLOW_SECONDS:
                self._skipped_hosts[host] = f"{host} took too long for another file."
            self.notices.append(f"{version.file_name}: its header could not be read. {error}")
            return None

    def _resolve(self, url: str, seconds: float) -> str:
        """The URL of the file itself, for a URL of a site's page or API."""
        work = partial(resolve, self._session, url)
        resolved = run_within(seconds, work, stop=self._session.interrupt, name=shown(url), cancel=self._cancel)
        return resolved.url


def origin_of(url: str) -> str:
    """Scheme and host of a URL, without secrets."""
    return "/".join(shown(url).split("/")[:3])
