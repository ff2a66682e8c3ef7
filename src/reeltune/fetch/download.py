"""One file from the network to its name: looked at, locked, fetched aside, verified, and only then renamed."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from reeltune.checkpoints.header import read_header
from reeltune.errors import BadDownload, Cancelled, CheckpointError, FetchError, NotEnoughDisk, Unreachable
from reeltune.events import CancelToken, Listener, Notice, Progress, ignore
from reeltune.fetch.journal import bytes_in
from reeltune.fetch.remote import Remote, look
from reeltune.fetch.transfer import Changed, Pace, Transfer, pause_after
from reeltune.inventory import CHECKPOINT_SUFFIXES, PARTIAL
from reeltune.machine import free_disk
from reeltune.net import Session, shown
from reeltune.preferences import Preferences

_MAX_NAME = 200
_RESERVED = re.compile(r"^(con|prn|aux|nul|com\d|lpt\d)(\..*)?$", re.IGNORECASE)
_ATTEMPTS = 5
_LOCK_POLL_SECONDS = 0.3
_T = TypeVar("_T")


@dataclass(frozen=True)
class Link:
    """A file to fetch: where from, where to, and what is known of it. `weights`: it must be a checkpoint."""

    url: str
    target: Path
    weights: bool = False
    sha256: str | None = None
    size: int | None = None

    @property
    def partial(self) -> Path:
        """Where its bytes gather."""
        return self.target.with_name(self.target.name + PARTIAL)

    @property
    def journal(self) -> Path:
        """What says which of them are there."""
        return self.target.with_name(self.target.name + ".journal" + PARTIAL)

    @property
    def lock(self) -> Path:
        """What a process holds while it fetches the file."""
        return self.target.with_name(self.target.name + ".lock" + PARTIAL)

    @property
    def kept(self) -> int:
        """Bytes that an earlier, interrupted attempt left."""
        return bytes_in(self.journal)


class Downloader:
    """Fetches files one after another over shared connections. `sums` collects the sha256 of each by its path."""

    def __init__(
        self, preferences: Preferences | None = None, listener: Listener = ignore, cancel: CancelToken | None = None
    ) -> None:
        wish = preferences or Preferences()
        self.session = Session(stall=wish.stall_seconds, connections=wish.connections)
        self.sums: dict[Path, str] = {}
        self._connections, self._pace = wish.connections, Pace(wish.rate_limit * 1e6)
        self._listener, self._cancel = listener, cancel or CancelToken()
        self._said: set[str] = set()

    def __enter__(self) -> Downloader:
        return self

    def __exit__(self, *exc: object) -> None:
        self.session.__exit__()

    def listen(self, listener: Listener) -> None:
        """Tell another listener from now on."""
        self._listener = listener

    def fetch(self, link: Link) -> None:
        """Fetch one file; its name never holds half of it, nor anything else than was announced.

        Raises FetchError and its kinds, Cancelled; what came by then is kept where it can be used again.
        """
        check_name(link.target.name)
        link.target.parent.mkdir(parents=True, exist_ok=True)
        with self._locked(link):
            remote = self.patiently(lambda: look(self.session, link.url, link.target.name))
            self._say_refused()
            sha256 = _expected_sum(link, remote)
            if _complete(link, remote):
                self._say(f"{link.target.name} was fetched by another process meanwhile.")
                return
            try:
                digest = self._transfer(link, remote)
                _verify(link, remote, digest, sha256)
            except BadDownload:
                _discard(link)
                raise
            except OSError as error:  # what came by now stays for the next attempt
                message = f"{link.target} can't be written: {error.strerror or error}."
                raise FetchError(message, hint="Make room, or check the folder, and start again.") from error
            self._rename(link, digest)
            with contextlib.suppress(OSError):  # whoever waited for the lock finds the file
                link.lock.unlink()

    def patiently(self, ask: Callable[[], _T]) -> _T:
        """The answer of a small request, asked again while the trouble may pass."""
        failures = 0
        while True:
            try:
                self._cancel.check()
                return ask()
            except Unreachable as error:
                failures += 1
                if failures >= _ATTEMPTS:
                    raise
                time.sleep(pause_after(failures - 1, error.retry_after))

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
                self._say(f"Another process is fetching {link.target.name}: waiting for it.")
        try:
            yield
        finally:
            lock.release()

    def _transfer(self, link: Link, remote: Remote) -> str:
        kept = link.kept if remote.ranges else 0
        _check_disk(link, remote, kept)
        for restarted in (False, True):
            transfer = Transfer(self.session, remote, link.partial, connections=self._connections, pace=self._pace)
            try:
                return transfer.run(link.journal, self._reporter(link), self._cancel)
            except Changed:
                _discard(link)
                if restarted:
                    raise
                self._say(f"{link.target.name} has changed on the server: it is fetched from its start again.")
                remote = self.patiently(lambda: look(self.session, link.url, link.target.name))
            except (Cancelled, Unreachable, KeyboardInterrupt):
                if not link.journal.exists():
                    _discard(link)
                elif link.kept:
                    self._say(
                        f"{link.kept:,} bytes of {link.target.name} are kept: the next attempt goes on from there."
                    )
                raise
        raise AssertionError("unreachable")

    def _reporter(self, link: Link) -> Callable[[int, int | None], None]:
        def report(done: int, total: int | None) -> None:
            self._listener(Progress("download", done, total, "bytes", link.target.name))

        return report

    def _rename(self, link: Link, digest: str) -> None:
        if link.target.exists():
            aside = _free(link.target)
            link.target.replace(aside)
            self._say(f"The {link.target.name} that was there could not be used; it is now {aside.name}.")
        link.partial.replace(link.target)
        _sync_folder(link.target.parent)
        link.journal.unlink(missing_ok=True)
        self.sums[link.target] = digest
        self._listener(
            Notice(f"Fetched {link.target.name} ({link.target.stat().st_size:,} bytes, sha256 {digest[:12]}…).")
        )

    def _say(self, message: str) -> None:
        if message not in self._said:
            self._said.add(message)
            self._listener(Notice(message))

    def _say_refused(self) -> None:
        for host in sorted(self.session.refused):
            self._say(f"{host} refused your token, but serves the file without it: renew or remove the token.")


def download(
    url: str,
    target: Path,
    *,
    weights: bool = False,
    sha256: str | None = None,
    preferences: Preferences | None = None,
    listener: Listener = ignore,
    cancel: CancelToken | None = None,
) -> None:
    """Fetch one file, see `Downloader.fetch`."""
    with Downloader(preferences, listener, cancel) as downloader:
        downloader.fetch(Link(url, target, weights, sha256))


def check_name(name: str) -> None:
    """Refuse a file name that could leave its folder or that a file system can't hold. Raises FetchError."""
    bad = name in ("", ".", "..") or any(sign in name for sign in '/\\\0:*?"<>|') or not name.isprintable()
    if bad or len(name.encode("utf-8", "replace")) > _MAX_NAME or _RESERVED.match(name) or name.endswith((".", " ")):
        raise FetchError(
            f"{name[:80]!r} can't be used as a file name.", hint="Write a link that ends in the file's name."
        )


def _expected_sum(link: Link, remote: Remote) -> str | None:
    """The sum the file must have; raises BadDownload when two that are known differ, before the first byte."""
    wanted = link.sha256.lower() if link.sha256 else None
    if wanted and remote.sha256 and wanted != remote.sha256:
        raise BadDownload(
            f"{shown(link.url)} serves a file with the sha256 {remote.sha256}, {wanted} is wanted.",
            hint="The file was changed: ask the definition's author.",
        )
    return wanted or remote.sha256


def _complete(link: Link, remote: Remote) -> bool:
    """Whether the file stands there by now, as another process leaves it."""
    if remote.size is None or not link.target.is_file() or link.target.stat().st_size != remote.size:
        return False
    try:
        return not link.weights or bool(read_header(link.target))
    except CheckpointError:
        return False


def _check_disk(link: Link, remote: Remote, kept: int) -> None:
    free, needed = free_disk(link.target.parent), (remote.size or 0) - kept
    if needed > free:
        raise NotEnoughDisk(
            f"{link.target.name} needs {needed:,} more bytes, the disk of {link.target.parent} has {free:,} free.",
            hint="Make room, or choose another root.",
        )


def _verify(link: Link, remote: Remote, digest: str, sha256: str | None) -> None:
    """Size, sum and header of what came. Raises BadDownload."""
    size = link.partial.stat().st_size
    if remote.size is not None and size != remote.size:
        raise BadDownload(f"{shown(link.url)}: {size:,} bytes of {remote.size:,} came.", hint="Try again.")
    if sha256 and digest != sha256:
        raise BadDownload(
            f"{link.target.name} from {shown(link.url)} has the sha256 {digest}, {sha256} is wanted.",
            hint="It was damaged on the way, or changed: try again, then ask the definition's author.",
        )
    if link.weights or link.target.name.lower().endswith(CHECKPOINT_SUFFIXES):
        try:
            read_header(link.partial)
        except CheckpointError as error:
            message = error.message.replace(str(link.partial), link.target.name)
            raise BadDownload(f"What {shown(link.url)} serves is not usable: {message}", hint=error.hint) from error


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
