"""What the missing parts of a plan take, asked of the network before the first byte: files, sizes, sums."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from urllib.parse import quote

from reeltune.checkpoints.names import base_name
from reeltune.errors import FetchError, NotEnoughDisk, Offline
from reeltune.events import Planned, PlannedFile
from reeltune.fetch.civitai import resolve
from reeltune.fetch.download import Downloader, Link, check_name
from reeltune.fetch.plan import Item
from reeltune.fetch.remote import look
from reeltune.inventory import PARTIAL
from reeltune.inventory.index import Index
from reeltune.machine import free_disk
from reeltune.net import hub_endpoint, offline, shown

_MAX_LISTING = 4_000_000
_CHUNK = 64 * 1024


@dataclass(frozen=True)
class Need:
    """Everything one missing item takes: one file, or those of a component's folder, which gather `aside`."""

    item: Item
    links: tuple[Link, ...]
    aside: Path | None = None


@dataclass(frozen=True)
class Survey:
    """All that is to be fetched. Sizes in bytes; `unknown` counts files whose server tells no size."""

    needs: tuple[Need, ...]
    free: int

    @property
    def links(self) -> tuple[Link, ...]:
        """Every file."""
        return tuple(link for need in self.needs for link in need.links)

    @property
    def total(self) -> int:
        """Size of all files whose size is known."""
        return sum(link.size or 0 for link in self.links)

    @property
    def to_fetch(self) -> int:
        """The same without what earlier attempts left."""
        return sum(max(0, (link.size or 0) - link.kept) for link in self.links)

    @property
    def unknown(self) -> int:
        """Files of unknown size."""
        return sum(link.size is None for link in self.links)

    def as_event(self) -> Planned:
        """The same as a plain value."""
        files = tuple(PlannedFile(link.target.name, link.size, link.kept) for link in self.links)
        return Planned(files, self.to_fetch, self.free)

    def remember(self, index: Index) -> None:
        """Keep the sizes, so that they can be told while the network is off."""
        for need in self.needs:
            sizes = [link.size for link in need.links if link.size is not None]
            if sizes and len(sizes) == len(need.links):
                index.learn_size(need.item.url, sum(sizes))

    def check_disk(self) -> None:
        """Raise NotEnoughDisk unless all of it fits."""
        if self.to_fetch > self.free:
            raise NotEnoughDisk(
                f"{self.to_fetch:,} bytes are to be fetched, and the disk has {self.free:,} free.",
                hint="Make room, choose another root, or another version (`--quantization`).",
            )


def survey(items: Sequence[Item], root: Path, downloader: Downloader) -> Survey:
    """Ask for sizes and sums of missing `items`, each path once. Raises FetchError; Offline names every file."""
    refuse_offline(items, Index(root / "ckpts"))
    single = {item.path: item for item in reversed(items)}
    for item in items:
        first = single[item.path]
        if first.url != item.url and first.sums.get(item.path.name) != item.sums.get(item.path.name):
            raise FetchError(
                f"{shown(first.url)} and {shown(item.url)} are different files of one name.",
                hint="Fetch them into two roots, or rename one where it is published.",
            )
    needs = tuple(_need(item, downloader) for item in items if single[item.path] is item)
    return Survey(needs, free_disk(root / "ckpts"))


def refuse_offline(items: Sequence[Item], index: Index) -> None:
    """Raise Offline, naming what would have to be fetched, while the network is switched off."""
    if items and offline():
        listed = "; ".join(f"{item.path.name} from {shown(item.url)} ({_bytes(item, index)})" for item in items)
        raise Offline(f"Missing while the network is switched off: {listed}.", hint="Unset REELTUNE_OFFLINE.")


def _bytes(item: Item, index: Index) -> str:
    count = item.bytes or index.size_of(item.url)
    return f"{count:,} bytes" if count else "size not known yet"


def _need(item: Item, downloader: Downloader) -> Need:
    if item.repository:
        return _component(item, downloader)
    source = downloader.patiently(lambda: resolve(downloader.session, item.url))
    if "://" not in item.url:
        raise FetchError(f"{item.url} is no link, and there is no such file.", hint="Check the path.")
    check_name(base_name(item.url) if source.name is None else source.name)  # before it becomes part of a path
    target = item.path.with_name(source.name) if source.name else item.path
    remote = downloader.patiently(lambda: look(downloader.session, source.url, target.name))
    wanted = item.sums.get(target.name) or source.sha256 or remote.sha256
    return Need(item, (Link(source.url, target, item.weights, wanted, remote.size),))


def _component(item: Item, downloader: Downloader) -> Need:
    aside = item.path.with_name(item.path.name + PARTIAL)
    links = [
        link
        for link in downloader.patiently(lambda: list(_listing(downloader, item.repository, item.path.name, aside)))
        if any(fnmatch.fnmatch(link.target.name, row) for row in item.patterns)
    ]
    if not links:
        message = f"{item.repository} holds no files for the {item.subject}."
        raise FetchError(message, hint="Check `components` in the definition.")
    # files of an interrupted attempt are whole: each was checked before it got its name
    return Need(item, tuple(replace(link, size=0) if link.target.exists() else link for link in links), aside)


def _listing(downloader: Downloader, repository: str, folder: str, aside: Path) -> Iterator[Link]:
    """Files in a folder of a Hub repository (the Hub's `tree` endpoint)."""
    url = f"{hub_endpoint()}/api/models/{repository}/tree/main/{folder}"
    with downloader.session.get(url) as response:
        body = b""
        for chunk in response.iter_raw(_CHUNK):
            body += chunk
            if len(body) > _MAX_LISTING:
                break
    try:
        rows = json.loads(body)
        if not isinstance(rows, list):
            raise TypeError("not a list")
        for row in rows:
            path = PurePosixPath(row["path"])
            if row["type"] != "file" or str(path.parent) != folder:
                continue
            check_name(path.name)
            large = row.get("lfs") or {}
            size = int(large.get("size", row["size"])) if "size" in row or "size" in large else None
            link = f"{hub_endpoint()}/{repository}/resolve/main/{quote(str(path))}"
            yield Link(link, aside / path.name, sha256=large.get("oid"), size=size)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:  # whatever it is, no listing
        hint = "Check the repository's name in `components`."
        raise FetchError(f"{shown(url)} gives no list of files.", hint=hint) from error
