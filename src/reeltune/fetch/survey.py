"""What the missing parts of a plan take, asked of the network before the first byte: files, sizes, sha256."""

from __future__ import annotations

import fnmatch
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar
from urllib.parse import quote

from reeltune.checkpoints.header import read_header
from reeltune.checkpoints.names import base_name
from reeltune.errors import CheckpointError, FetchError, InvalidJSON, NotEnoughDisk, Offline, Unreachable
from reeltune.events import Planned, PlannedFile
from reeltune.fetch.download import Downloader, Link, check_name
from reeltune.fetch.link import is_whole
from reeltune.fetch.remote import Remote, look
from reeltune.library.index import Index, fold
from reeltune.library.inventory import CHECKPOINT_SUFFIXES, PARTIAL
from reeltune.library.places import label, own_name, usable_name
from reeltune.machine import free_disk
from reeltune.net import file_key, hub_endpoint, offline, refuse_offline, shown
from reeltune.net.civitai import resolve
from reeltune.planning.plan import Item
from reeltune.untrusted import parse_json

_MAX_LISTING = 4_000_000
_SURVEY_SECONDS = 180.0  # for a plan that is only shown: what isn't known by then is reported as unknown
_MOST_BYTES = 2**62
_T = TypeVar("_T")


@dataclass(frozen=True)
class Need:
    """Everything one missing item takes: one file, or those of a component's folder, which gather `aside`.

    `notice`: why its files and sizes aren't known (only of plans that are shown); else empty.
    """

    item: Item
    links: tuple[Link, ...]
    aside: Path | None = None
    notice: str = ""

    @property
    def bytes(self) -> int | None:
        """Size of all of it; None where it isn't known."""
        sizes = [link.size for link in self.links if link.size is not None]
        return sum(sizes) if len(sizes) == len(self.links) else None


@dataclass(frozen=True)
class Survey:
    """All that is to be downloaded. Sizes in bytes; `unknown` counts files whose size isn't known."""

    needs: tuple[Need, ...]
    free: int

    @property
    def links(self) -> tuple[Link, ...]:
        """Every file."""
        return tuple(link for need in self.needs for link in need.links)

    @property
    def notices(self) -> tuple[str, ...]:
        """Why sizes aren't known."""
        return tuple(dict.fromkeys(need.notice for need in self.needs if need.notice))

    @property
    def total(self) -> int:
        """Size of all files that are to come and whose size is known."""
        return sum(link.size or 0 for link in self.links if not link.here)

    @property
    def to_fetch(self) -> int:
        """The same without what earlier attempts left."""
        return sum(max(0, (link.size or 0) - link.kept) for link in self.links)

    @property
    def unknown(self) -> int:
        """Files of unknown size."""
        return sum(link.size is None for link in self.links)

    def as_event(self) -> Planned:
        """The same as a plain value, a row for each file and each component."""
        return Planned(tuple(map(_planned, self.needs)), self.to_fetch, self.free)

    def remember(self, index: Index) -> None:
        """Keep sizes and sha256, so that they are known while the network is off."""
        for need in self.needs:
            if need.bytes is not None and not need.notice:
                digest = (need.links[0].sha256 or "").lower() if need.aside is None else ""
                index.learn_url(need.item.url, need.bytes, digest)

    def check_disk(self) -> None:
        """Raise NotEnoughDisk unless all of it fits."""
        if self.to_fetch > self.free:
            raise NotEnoughDisk(
                f"{self.to_fetch:,} bytes are to be downloaded, and the disk has {self.free:,} free.",
                hint="Make room, choose another root, or another version (`--quantization`).",
            )


def _planned(need: Need) -> PlannedFile:
    return PlannedFile(need.links[0].name, need.bytes, sum(link.kept for link in need.links))


def survey(items: Sequence[Item], root: Path, downloader: Downloader, *, shown_only: bool = False) -> Survey:
    """Ask for sizes and sha256 of missing `items`, each URL once.

    Raises FetchError; Offline names every file. `shown_only`: nothing will be downloaded: what can't be reached for now
    stays unknown and is noticed, and nothing takes longer than some minutes.
    """
    index = downloader.index or Index(root / "ckpts")
    if not shown_only:
        refuse_missing(items, index, root / "ckpts")
    single = {_key(item): item for item in reversed(items)}
    asking = _Asking(downloader, index, root / "ckpts", time.monotonic() + _SURVEY_SECONDS if shown_only else None)
    needs = tuple(asking.need(item) for item in items if single[_key(item)] is item)
    return Survey(needs, free_disk(root / "ckpts"))


def _key(item: Item) -> tuple[str, str]:
    """What an item is fetched as: a repository's folder at its path, or a file by its URL."""
    return (item.repository, str(item.path)) if item.repository else ("", file_key(item.url))


def refuse_missing(items: Sequence[Item], index: Index, ckpts: Path) -> None:
    """Raise Offline, naming what would have to be downloaded, while the network is switched off."""
    if items:
        listed = "; ".join(_missing(item, index, ckpts) for item in items)
        refuse_offline(f"Missing while the network is switched off: {listed}.")


def _missing(item: Item, index: Index, ckpts: Path) -> str:
    count = item.bytes or index.size_of(item.url)
    size = f"{count:,} bytes" if count else "size not known yet"
    name = label(item.path, ckpts)
    why = f", since the file here can't be used: {item.obstacle}" if item.obstacle else ""
    return f"{name} from {shown(item.url)} ({size}){why}"


class _Asking:
    """One survey under way: what it has learned so far, and which places and sha256 its files take."""

    def __init__(self, downloader: Downloader, index: Index, ckpts: Path, end: float | None) -> None:
        self._downloader, self._index, self._ckpts, self._end = downloader, index, ckpts, end
        self._taken: dict[str, str] = {}
        self._coming: set[str] = set()

    def need(self, item: Item) -> Need:
        """All that an item takes. Raises FetchError."""
        try:
            if self._end is not None and (offline() or time.monotonic() > self._end):
                refuse_offline("Servers were not asked for sizes: the network is switched off.")
                raise Unreachable(f"{shown(item.url)} was not asked: other servers took too long.")
            return self._component(item) if item.repository else self._single(item)
        except (Offline, Unreachable) as error:
            if self._end is None:
                raise
            return self._unknown(item, str(error))

    def _unknown(self, item: Item, notice: str) -> Need:
        size = item.bytes or self._index.size_of(item.url)
        link = Link(item.url, item.path, item.weights, size=size, label=label(item.path, self._ckpts))
        return Need(item, (link,), notice=notice)

    def _ask(self, question: Callable[[], _T], what: str) -> _T:
        return self._downloader.patiently(question, what)

    # --- files ----------------------------------------------------------------------------------------------

    def _single(self, item: Item) -> Need:
        if "://" not in item.url:
            raise FetchError(f"{item.url} is not a URL, and there is no such file.", hint="Check the path.")
        session, given = self._downloader.session, base_name(item.url)
        source = self._ask(lambda: resolve(session, item.url), shown(item.url))
        for notice in source.notices:
            self._downloader.say(notice)
        check_name(source.name if source.name is not None else given or "")  # before it becomes part of a path
        known = item.sha256(given, source.name or given) or source.sha256
        name = source.name or given
        remote = self._ask(lambda: look(session, source.url, name, sha256=known), shown(source.url))
        wanted = known or remote.sha256
        target = self._place(item, source.name or _disposed(given, remote), remote, wanted)
        link = Link(
            source.url, target, item.weights, wanted, remote.size, source=item.url, label=label(target, self._ckpts)
        )
        return Need(item, (self._shared(link),))

    def _place(self, item: Item, name: str, remote: Remote, sha256: str | None) -> Path:
        """Where the file goes: no other URL's file has been, is, or will be there."""
        key = file_key(item.url)
        plain = item.path if name == base_name(item.url) else item.path.with_name(name)
        if not self._free(plain, key, item, remote, sha256):
            plain = plain.with_name(own_name(name, item.url))
        self._taken[fold(str(plain))] = key
        return plain

    def _free(self, place: Path, key: str, item: Item, remote: Remote, sha256: str | None) -> bool:
        if self._taken.get(fold(str(place)), key) != key:
            return False
        if place == item.path or not place.exists():  # the plan has looked at its own path
            return True
        sources, digest = self._index.sources(place), self._index.sha256(place)
        if sha256 and digest:
            return sha256.lower() == digest
        if sources:
            return key in sources
        if remote.size is None or place.stat().st_size != remote.size or not _sound(place, item.weights):
            return False
        self._index.learn(place, item.url, "")  # of unknown origin, and the server's file by all that is known
        return True

    # --- components -----------------------------------------------------------------------------------------

    def _component(self, item: Item) -> Need:
        aside = item.path.with_name(item.path.name + PARTIAL)
        found = self._ask(lambda: list(self._listing(item, aside)), f"{item.repository}/{item.path.name}")
        if not found:
            message = f"{item.repository} holds no files for the {item.subject}."
            raise FetchError(message, hint="Check `components` in the definition.")
        return Need(item, tuple(map(self._shared, found)), aside)

    def _listing(self, item: Item, aside: Path) -> Iterator[Link]:
        """The files an item takes of a folder of a Hub repository (the Hub's `tree` endpoint)."""
        folder = item.path.name
        url = f"{hub_endpoint()}/api/models/{item.repository}/tree/main/{folder}"
        rows = _rows(self._downloader.session.read(url, _MAX_LISTING), url)
        for row in rows:
            path = PurePosixPath(row["path"])
            if row["type"] != "file" or str(path.parent) != folder:
                continue
            if not any(fnmatch.fnmatch(path.name, pattern) for pattern in item.patterns):
                continue
            check_name(path.name)
            large = row["lfs"] if isinstance(row.get("lfs"), dict) else {}
            size = _count(large.get("size", row.get("size")))
            digest = large.get("oid") if isinstance(large.get("oid"), str) and len(large["oid"]) == 64 else None
            link = f"{hub_endpoint()}/{item.repository}/resolve/main/{quote(str(path))}"
            yield Link(
                link, aside / path.name, sha256=digest, size=size, listed=size, in_folder=True,
                label=label(item.path, self._ckpts),
            )  # fmt: skip

    def _shared(self, link: Link) -> Link:
        """A link marked as here, where a file of its sha256 is on disk or comes with an earlier link."""
        digest = (link.sha256 or "").lower()
        known = digest and (digest in self._coming or self._index.with_sha256(digest))
        here = bool(known) or (link.in_folder and is_whole(link, self._index))
        if digest:
            self._coming.add(digest)
        return replace(link, here=here)


def _sound(path: Path, weights: bool) -> bool:
    if not weights and not path.name.lower().endswith(CHECKPOINT_SUFFIXES):
        return True
    try:
        return bool(read_header(path))
    except CheckpointError:
        return False


def _disposed(given: str, remote: Remote) -> str:
    """The file's name: the URL's where it is one of a checkpoint, else the one the server gives, if it can be used."""
    name = remote.name or ""
    plain = PurePosixPath(given).suffix.lower()
    told = PurePosixPath(name).suffix.lower()
    better = told in CHECKPOINT_SUFFIXES if plain else bool(told)
    return name if plain not in CHECKPOINT_SUFFIXES and better and usable_name(name) else given


def _rows(body: bytes, url: str) -> list[dict[str, Any]]:
    """A listing's rows. Raises FetchError for anything else."""
    try:
        rows = parse_json(body, "the answer")
    except InvalidJSON:
        rows = None
    if not isinstance(rows, list) or not all(map(_is_row, rows)):
        hint = "Check the repository's name in `components`."
        raise FetchError(f"{shown(url)} gives no list of files.", hint=hint)
    return rows


def _is_row(row: Any) -> bool:
    return isinstance(row, dict) and isinstance(row.get("path"), str) and isinstance(row.get("type"), str)


def _count(value: Any) -> int | None:
    """A number of bytes; None for what can't be one."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    return value if whole and 0 <= value < _MOST_BYTES else None
