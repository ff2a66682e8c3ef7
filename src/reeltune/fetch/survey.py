"""The survey before a download: which files the missing items consist of, their sizes and sha256."""

from __future__ import annotations

import fnmatch
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TypeVar
from urllib.parse import quote

from reeltune.checkpoints.header import read_header
from reeltune.checkpoints.names import base_name
from reeltune.errors import CheckpointError, FetchError, InvalidJSON, NotEnoughDisk, Offline, Unreachable
from reeltune.events import Planned, PlannedFile
from reeltune.fetch.download import Downloader
from reeltune.fetch.remote import RemoteFile, query_file
from reeltune.fetch.task import DownloadTask, is_complete
from reeltune.library.index import Index, fold
from reeltune.library.inventory import CHECKPOINT_SUFFIXES, PARTIAL
from reeltune.library.places import check_name, is_valid_name, label, unique_name
from reeltune.machine import free_disk
from reeltune.net import HUB, file_key, hub_endpoint, offline, refuse_offline, shown
from reeltune.net.civitai import resolve
from reeltune.planning.item import Item
from reeltune.untrusted import JsonObject, parse_json

_MAX_LISTING_BYTES = 4_000_000
_MAX_FILE_BYTES = 2**62
_DRY_RUN_SECONDS = 180.0  # sizes that are unknown by then are reported as unknown
_SHA256_LENGTH = 64
_T = TypeVar("_T")


@dataclass(frozen=True)
class ItemDownload:
    """The files to download for one missing item: a single file, or those of a component.

    `partial_folder`: the folder of a component's files until all are complete; None for a single file. `notice`: why
    files or sizes are unknown (dry runs only); otherwise empty.
    """

    item: Item
    tasks: tuple[DownloadTask, ...]
    partial_folder: Path | None = None
    notice: str = ""

    @property
    def bytes(self) -> int | None:
        """Size of all files together; None while unknown."""
        sizes = [task.size for task in self.tasks if task.size is not None]
        return sum(sizes) if len(sizes) == len(self.tasks) else None


@dataclass(frozen=True)
class Survey:
    """Everything that is to be downloaded. `free`: bytes free on the disk."""

    downloads: tuple[ItemDownload, ...]
    free: int

    @property
    def tasks(self) -> tuple[DownloadTask, ...]:
        """Every file."""
        return tuple(task for download in self.downloads for task in download.tasks)

    @property
    def notices(self) -> tuple[str, ...]:
        """Why files or sizes are unknown."""
        return tuple(dict.fromkeys(download.notice for download in self.downloads if download.notice))

    @property
    def total_bytes(self) -> int:
        """Size of all files that aren't on disk and whose size is known."""
        return sum(task.size or 0 for task in self.tasks if not task.available)

    @property
    def bytes_to_download(self) -> int:
        """The same without the bytes of interrupted downloads."""
        return sum(max(0, (task.size or 0) - task.bytes_present) for task in self.tasks)

    @property
    def unknown_sizes(self) -> int:
        """The number of files whose size is unknown."""
        return sum(task.size is None for task in self.tasks)

    def as_event(self) -> Planned:
        """The survey as an event, with one entry for each file or component."""
        files = []
        for download in self.downloads:
            present = sum(task.bytes_present for task in download.tasks)
            files.append(PlannedFile(download.tasks[0].name, download.bytes, present))
        return Planned(tuple(files), self.bytes_to_download, self.free)

    def remember(self, index: Index) -> None:
        """Record sizes and sha256 in the index, so that they are known offline."""
        for download in self.downloads:
            if download.bytes is None or download.notice:
                continue
            digest = ""
            if download.partial_folder is None:
                digest = (download.tasks[0].sha256 or "").lower()
            index.record_url(download.item.url, download.bytes, digest)

    def check_disk(self) -> None:
        """Raise NotEnoughDisk unless everything fits on the disk."""
        if self.bytes_to_download > self.free:
            raise NotEnoughDisk(
                f"The download takes {self.bytes_to_download:,} bytes, but the disk has {self.free:,} free.",
                hint="Free some disk space, or choose another root or another version (`--quantization`).",
            )


def survey(items: Sequence[Item], root: Path, downloader: Downloader, *, dry_run: bool = False) -> Survey:
    """Ask servers for the sizes and sha256 of missing `items`, each URL once.

    With `dry_run`, a server that can't be reached leads to an unknown size and a notice, and the survey takes a few
    minutes at most. Raises FetchError; Offline, naming every file, unless `dry_run`.
    """
    index = downloader.index or Index(root / "ckpts")
    if not dry_run:
        for item in items:
            _refuse_path(item)
        _refuse_if_offline(items, index, root / "ckpts")
    first_items: dict[tuple[str, str], Item] = {}
    for item in items:
        first_items.setdefault(_download_key(item), item)
    end = time.monotonic() + _DRY_RUN_SECONDS if dry_run else None
    surveyor = _Surveyor(downloader, index, root / "ckpts", end)
    downloads = tuple(surveyor.survey(item) for item in first_items.values())
    return Survey(downloads, free_disk(root / "ckpts"))


def _refuse_path(item: Item) -> None:
    """Raise FetchError for the path of a file that is missing or can't be used: it can't be downloaded."""
    if item.repository or "://" in item.url:
        return
    if item.obstacle:
        raise FetchError(f"{item.url} can't be used: {item.obstacle}", hint="Use another file.")
    raise FetchError(f"{item.url} is neither a URL nor an existing file.", hint="Check the path.")


def _download_key(item: Item) -> tuple[str, str]:
    """Equal for items that are the same download: a repository's folder, or the file of a URL."""
    if item.repository:
        return (item.repository, str(item.path))
    return ("", file_key(item.url))


def _refuse_if_offline(items: Sequence[Item], index: Index, ckpts: Path) -> None:
    """Raise Offline, naming the missing files, if the network is switched off."""
    if items:
        missing = "; ".join(_describe_missing(item, index, ckpts) for item in items)
        refuse_offline(f"Missing while the network is switched off: {missing}.")


def _describe_missing(item: Item, index: Index, ckpts: Path) -> str:
    size = item.bytes or index.size_of_url(item.url)
    size_text = f"{size:,} bytes" if size else "unknown size"
    text = f"{label(item.path, ckpts)} from {shown(item.url)} ({size_text})"
    if item.obstacle:
        text += f", because the existing file can't be used: {item.obstacle.rstrip('.')}"
    return text


class _Surveyor:
    """One survey. `end`: the time at which a dry run stops asking servers; None for a download."""

    def __init__(self, downloader: Downloader, index: Index, ckpts: Path, end: float | None) -> None:
        self._downloader = downloader
        self._index = index
        self._ckpts = ckpts
        self._end = end
        self._reserved: dict[str, str] = {}  # keys of URLs by the folded paths that their files will have
        self._planned_sha256: set[str] = set()

    def survey(self, item: Item) -> ItemDownload:
        """The files to download for an item. Raises FetchError."""
        try:
            if self._end is not None and (offline() or time.monotonic() > self._end):
                refuse_offline("Servers were not asked for sizes: the network is switched off.")
                raise Unreachable(f"{shown(item.url)} was not asked: other servers took too long.")
            return self._component(item) if item.repository else self._file(item)
        except (Offline, Unreachable) as error:
            if self._end is None:
                raise
            return self._unknown(item, str(error))

    def _unknown(self, item: Item, notice: str) -> ItemDownload:
        size = item.bytes or self._index.size_of_url(item.url)
        task = DownloadTask(item.url, item.path, item.weights, size=size, label=label(item.path, self._ckpts))
        return ItemDownload(item, (task,), notice=notice)

    def _request(self, request: Callable[[], _T], what: str) -> _T:
        return self._downloader.with_retries(request, what)

    # --- files ----------------------------------------------------------------------------------------------

    def _file(self, item: Item) -> ItemDownload:
        _refuse_path(item)
        session = self._downloader.session
        url_name = base_name(item.url)
        source = self._request(lambda: resolve(session, item.url), shown(item.url))
        for notice in source.notices:
            self._downloader.notify(notice)
        check_name(url_name if source.name is None else source.name)  # before it becomes part of a path
        name = source.name or url_name
        known_sha256 = item.sha256(url_name, name) or source.sha256
        remote = self._request(lambda: query_file(session, source.url, name, sha256=known_sha256), shown(source.url))
        sha256 = known_sha256 or remote.sha256
        target = self._target(item, source.name or _better_name(url_name, remote), remote, sha256)
        task = DownloadTask(
            source.url,
            target,
            item.weights,
            sha256,
            remote.size,
            listed_url=item.url,
            label=label(target, self._ckpts),
        )
        return ItemDownload(item, (self._with_availability(task),))

    def _target(self, item: Item, name: str, remote: RemoteFile, sha256: str | None) -> Path:
        """The path for a file at which there is no file of another URL, now or after the download."""
        path = item.path if name == base_name(item.url) else item.path.with_name(name)
        if not self._is_usable(path, item, remote, sha256):
            path = path.with_name(unique_name(name, item.url))
        self._reserved[fold(str(path))] = file_key(item.url)
        return path

    def _is_usable(self, path: Path, item: Item, remote: RemoteFile, sha256: str | None) -> bool:
        """Whether a path is free, or has the very file that the server has."""
        key = file_key(item.url)
        if self._reserved.get(fold(str(path)), key) != key:
            return False
        if path == item.path or not path.exists():  # the plan has checked its own path
            return True
        digest = self._index.sha256(path)
        if sha256 and digest:
            return sha256.lower() == digest
        sources = self._index.sources(path)
        if sources:
            return key in sources
        if remote.size is None or path.stat().st_size != remote.size or not _is_sound(path, item.weights):
            return False
        self._index.record_file(path, item.url, "")  # of unknown origin, but equal to the server's by all known facts
        return True

    # --- components -----------------------------------------------------------------------------------------

    def _component(self, item: Item) -> ItemDownload:
        partial_folder = item.path.with_name(item.path.name + PARTIAL)
        name = f"{item.repository}/{item.path.name}"
        tasks = self._request(lambda: list(self._component_tasks(item, partial_folder)), name)
        if not tasks:
            message = f"{item.repository} has no files for the {item.subject}."
            raise FetchError(message, hint="Check `components` in the definition.")
        return ItemDownload(item, tuple(self._with_availability(task) for task in tasks), partial_folder)

    def _component_tasks(self, item: Item, partial_folder: Path) -> Iterator[DownloadTask]:
        """The needed files in a folder of a Hub repository, listed by the Hub's `tree` endpoint."""
        folder = item.path.name
        url = f"{hub_endpoint()}/api/models/{item.repository}/tree/main/{folder}"
        for entry in _parse_listing(self._downloader.session.read(url, _MAX_LISTING_BYTES), url):
            path = PurePosixPath(entry["path"])
            if entry["type"] != "file" or str(path.parent) != folder:
                continue
            if not any(fnmatch.fnmatch(path.name, pattern) for pattern in item.patterns):
                continue
            check_name(path.name)
            size, sha256 = _size_and_sha256(entry)
            sha256 = item.sha256(f"{HUB}/{item.repository}/resolve/main/{path}") or sha256
            yield DownloadTask(
                f"{hub_endpoint()}/{item.repository}/resolve/main/{quote(str(path))}",
                partial_folder / path.name,
                sha256=sha256,
                size=size,
                required_size=size,
                in_folder=True,
                label=label(item.path, self._ckpts),
            )

    def _with_availability(self, task: DownloadTask) -> DownloadTask:
        """The task, marked as available if its file is on disk or is downloaded by an earlier task."""
        digest = (task.sha256 or "").lower()
        available = task.in_folder and is_complete(task, self._index)
        if digest:
            available = available or digest in self._planned_sha256 or bool(self._index.files_with_sha256(digest))
            self._planned_sha256.add(digest)
        return replace(task, available=available)


def _is_sound(path: Path, weights: bool) -> bool:
    """Whether a checkpoint has a valid header; other files are always sound."""
    if not weights and not path.name.lower().endswith(CHECKPOINT_SUFFIXES):
        return True
    try:
        read_header(path)
    except CheckpointError:
        return False
    return True


def _better_name(url_name: str, remote: RemoteFile) -> str:
    """The file name from the URL, or the one that the server reports if that is better.

    It is better if it has the suffix of a checkpoint and the URL's doesn't, or any suffix and the URL's has none.
    """
    reported_name = remote.name or ""
    url_suffix = PurePosixPath(url_name).suffix.lower()
    reported_suffix = PurePosixPath(reported_name).suffix.lower()
    if url_suffix in CHECKPOINT_SUFFIXES or not is_valid_name(reported_name):
        return url_name
    if reported_suffix in CHECKPOINT_SUFFIXES:
        return reported_name
    if reported_suffix and not url_suffix:
        return reported_name
    return url_name


def _parse_listing(body: bytes, url: str) -> list[JsonObject]:
    """The entries of a folder's listing. Raises FetchError for anything else."""
    try:
        entries = parse_json(body, "the response")
    except InvalidJSON:
        entries = None
    if not isinstance(entries, list) or not all(_is_entry(entry) for entry in entries):
        hint = "Check the repository's name in `components`."
        raise FetchError(f"{shown(url)} doesn't return a list of files.", hint=hint)
    return entries


def _is_entry(value: object) -> bool:
    return isinstance(value, dict) and isinstance(value.get("path"), str) and isinstance(value.get("type"), str)


def _size_and_sha256(entry: JsonObject) -> tuple[int | None, str | None]:
    """Size and sha256 in an entry of a listing, None where missing or invalid. Only large files have a sha256."""
    details = entry.get("lfs")
    if not isinstance(details, dict):
        details = {}
    size = details.get("size", entry.get("size"))
    sha256 = details.get("oid")
    is_size = isinstance(size, int) and not isinstance(size, bool) and 0 <= size < _MAX_FILE_BYTES
    is_sha256 = isinstance(sha256, str) and len(sha256) == _SHA256_LENGTH
    return (size if is_size else None), (sha256 if is_sha256 else None)
