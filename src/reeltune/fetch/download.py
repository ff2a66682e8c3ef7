"""One file from the network to its name: looked at, locked, downloaded aside, verified, and only then renamed."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from reeltune.errors import BadDownload, FetchError, Unreachable
from reeltune.events import CancelToken, Listener, Notice, Progress, ignore
from reeltune.fetch.link import Link as Link
from reeltune.fetch.link import is_whole
from reeltune.fetch.remote import Remote, look
from reeltune.fetch.transfer import MOST_BYTES, Changed, Pace, Transfer, pause_after
from reeltune.fetch.verifying import check_disk, expected_sum, share, verify_download
from reeltune.files import reason
from reeltune.library.index import Index
from reeltune.library.places import check_name as check_name
from reeltune.net import Session, file_key, run_within
from reeltune.preferences import Preferences

_ATTEMPTS = 5
_LOCK_POLL_SECONDS = 0.3
_LOOK_SECONDS = 60.0  # for a small request, all attempts together
_SMALL_NAMES = (".json", ".txt", ".model", ".jinja", ".md")
_MOST_SMALL_BYTES = 100_000_000
_T = TypeVar("_T")


class Downloader:
    """Downloads files one after another over shared connections. `sums` collects the sha256 of each by its path.

    `index`: where it is kept which file came from which URL; without one whatever stands at a target is replaced.
    """

    def __init__(
        self,
        preferences: Preferences | None = None,
        listener: Listener = ignore,
        cancel: CancelToken | None = None,
        index: Index | None = None,
    ) -> None:
        chosen = preferences or Preferences()
        self.session = Session(stall=chosen.stall_seconds, connections=chosen.connections, tokens=chosen.tokens)
        self.sums: dict[Path, str] = {}
        self.index = index
        self._connections, self._pace = chosen.connections, Pace(chosen.rate_limit * 1e6)
        self._listener, self._cancel = listener, cancel or CancelToken()
        self._said: set[str] = set()

    def __enter__(self) -> Downloader:
        return self

    def __exit__(self, *exc: object) -> None:
        self.session.__exit__()

    def listen(self, listener: Listener) -> None:
        """Report to another listener from now on."""
        self._listener = listener

    def fetch(self, link: Link) -> Path:
        """Download one file and return where it is; its name never holds half of it, nor anything else than announced.

        Where its place has been taken by the file of another URL, it gets a name of its own; where a file of the same
        sha256 is here, nothing is downloaded. Raises FetchError and its kinds, Cancelled; what came by then is kept
        where it can be used again.
        """
        check_name(link.target.name)
        try:
            return self._fetch(link)
        except OSError as error:  # what came by now stays for the next attempt
            message = f"{link.target} can't be written: {reason(error)}."
            raise FetchError(message, hint="Make room, or check the folder, and start again.") from error

    def _fetch(self, link: Link) -> Path:
        link.target.parent.mkdir(parents=True, exist_ok=True)
        with self._locked(link):
            stands = self._stands(link) if link.target.exists() else ""
            if stands == "ours":
                self.say(f"{link.name} is here by now.")
                return link.target
            if stands != "another's":
                return self._adopted(link) or self._bring(link)
        return self._fetch(link.elsewhere())

    def _stands(self, link: Link) -> str:
        """Whose the file is that stands at the target: "ours", "another's" or "unknown"."""
        if link.in_folder:  # nothing else ever gets this name, but it may be of another day
            return "ours" if is_whole(link, self.index) else "unknown"
        sources = self.index.sources(link.target) if self.index else frozenset()
        digest = self.index.sha256(link.target) if self.index else None
        same = bool(link.sha256 and digest and link.sha256.lower() == digest)
        if same or (file_key(link.origin) in sources and not (link.sha256 and digest)):
            return "ours"
        if sources and file_key(link.origin) not in sources and not link.moved:
            return "another's"
        return "unknown"

    def _adopted(self, link: Link) -> Path | None:
        """Where a file of the same sha256 is, or is linked to from now on; None where there is none."""
        twin = next(iter(self.index.with_sha256(link.sha256 or "")), None) if self.index else None
        if twin is None or self.index is None:
            return None
        if link.in_folder:
            if link.listed is not None and twin.stat().st_size != link.listed:
                return None
            link.target.unlink(missing_ok=True)
            share(link, twin)
            self.index.learn(link.target, link.origin, link.sha256 or "")
            self.sums[link.target] = link.sha256 or ""
            return link.target
        self.index.learn(twin, link.origin, link.sha256 or "")
        self.say(f"{link.name} has the same bytes as {twin.name}, which is used for it.")
        return twin

    def _bring(self, link: Link) -> Path:
        remote = self.patiently(lambda: look(self.session, link.url, link.target.name, sha256=link.sha256), link.name)
        self._say_refused()
        sha256 = expected_sum(link, remote)
        remote = replace(remote, sha256=sha256)
        try:
            if link.listed is not None and remote.size not in (None, link.listed):
                message = f"{link.name}: the server has {remote.size:,} bytes, the repository lists {link.listed:,}."
                raise BadDownload(message, hint="Try again later.")
            digest = self._transfer(link, remote)
            verify_download(link, remote, digest, sha256)
        except BadDownload:
            _discard(link)
            raise
        self._rename(link, digest)
        with contextlib.suppress(OSError):  # whoever waited for the lock finds the file
            link.lock.unlink()
        return link.target

    def patiently(self, ask: Callable[[], _T], what: str) -> _T:
        """The answer of a small request, asked again while the trouble may pass; cancelling is heard meanwhile.

        Raises Unreachable after a minute, whatever the server does.
        """
        failures, end = 0, time.monotonic() + _LOOK_SECONDS
        while True:
            left = max(0.1, end - time.monotonic())
            try:
                return run_within(left, ask, stop=self.session.interrupt, name=what, cancel=self._cancel)
            except Unreachable as error:
                failures += 1
                pause = pause_after(failures - 1, error.retry_after)
                if failures >= _ATTEMPTS or time.monotonic() + pause >= end:
                    raise
                self._cancel.wait(pause)

    @contextmanager
    def _locked(self, link: Link) -> Iterator[None]:
        """Hold the file's lock, so that two processes share one download."""
        import filelock

        lock = filelock.FileLock(link.lock)
        while True:
            try:
                lock.acquire(timeout=_LOCK_POLL_SECONDS)
                break
            except filelock.Timeout:
                self._cancel.check()
                self.say(f"Another process is downloading {link.name}: waiting for it.")
        try:
            yield
        finally:
            lock.release()

    def _transfer(self, link: Link, remote: Remote) -> str:
        check_disk(link, (remote.size or 0) - (link.kept if remote.ranges else 0))
        for restarted in (False, True):
            most = link.listed or (_MOST_SMALL_BYTES if link.target.name.lower().endswith(_SMALL_NAMES) else MOST_BYTES)
            transfer = Transfer(
                self.session,
                remote,
                link.partial,
                connections=self._connections,
                pace=self._pace,
                most=most,
                origin=link.origin,
            )
            try:
                return transfer.run(link.journal, self._reporter(link), self._cancel)
            except Changed:
                _discard(link)
                if restarted:
                    raise
                remote = self._anew(link, remote)
            except BaseException:
                if not (link.journal.exists() and link.kept):
                    _discard(link)
                else:
                    self.say(f"{link.kept:,} bytes of {link.name} are kept: the next attempt continues from there.")
                raise
        raise AssertionError("unreachable")

    def _anew(self, link: Link, before: Remote) -> Remote:
        """The file as it is now. A server whose parts don't tell which state they are of must send it as a whole."""
        self.say(f"{link.name} has changed on the server: it is downloaded from its start again.")
        now = self.patiently(lambda: look(self.session, link.url, link.target.name, sha256=link.sha256), link.name)
        same = (now.size, now.validator) == (before.size, before.validator)
        return replace(now, sha256=expected_sum(link, now), ranges=now.ranges and not same)

    def _reporter(self, link: Link) -> Callable[[int, int | None], None]:
        def report(done: int, total: int | None) -> None:
            self._listener(Progress("download", done, total, "bytes", link.name))

        return report

    def _rename(self, link: Link, digest: str) -> None:
        if link.target.exists() and not link.in_folder:
            aside = _free(link.target)
            link.target.replace(aside)
            self.say(f"The {link.target.name} that was there could not be used; it is now {aside.name}.")
        link.partial.replace(link.target)
        _sync_folder(link.target.parent)
        link.journal.unlink(missing_ok=True)
        self.sums[link.target] = digest
        if self.index is not None:
            self.index.learn(link.target, link.origin, digest)  # before the lock is released
        size = link.target.stat().st_size
        self._listener(Notice(f"Downloaded {link.name} ({size:,} bytes, sha256 {digest[:12]}…)."))

    def say(self, message: str) -> None:
        """Report something once."""
        if message not in self._said:
            self._said.add(message)
            self._listener(Notice(message))

    def _say_refused(self) -> None:
        for host in sorted(self.session.refused):
            self.say(f"{host} refused your token, but serves the file without it: renew or remove the token.")


def download(
    url: str,
    target: Path,
    *,
    weights: bool = False,
    sha256: str | None = None,
    preferences: Preferences | None = None,
    listener: Listener = ignore,
    cancel: CancelToken | None = None,
) -> Path:
    """Download one file, see `Downloader.fetch`."""
    with Downloader(preferences, listener, cancel, Index(target.parent)) as downloader:
        return downloader.fetch(Link(url, target, weights, sha256))


def _discard(link: Link) -> None:
    for path in (link.partial, link.journal):
        path.unlink(missing_ok=True)


def _free(target: Path) -> Path:
    """A name beside `target` that nothing has and no definition asks for."""
    number = 1
    while (aside := target.with_name(f"{target.name}.unusable{number}")).exists():
        number += 1
    return aside


def _sync_folder(folder: Path) -> None:
    """Make a rename durable, where folders can be synced (not on Windows)."""
    if hasattr(os, "O_DIRECTORY"):
        with contextlib.suppress(OSError):
            handle = os.open(folder, os.O_DIRECTORY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
