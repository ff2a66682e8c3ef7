"""Fetch what a plan lacks: under a partial name, checked, and only then under the final one."""

from __future__ import annotations

import fnmatch
import hashlib
import json
import os
import re
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from urllib.parse import quote

from reeltune.checkpoints.header import read_header
from reeltune.definitions import Definition
from reeltune.errors import BadDownload, CheckpointError, FetchError, NotEnoughDisk, Offline
from reeltune.events import CancelToken, Listener, Notice, Progress, ignore
from reeltune.fetch.plan import Explanation, Item, explain
from reeltune.inventory import CHECKPOINT_SUFFIXES, PARTIAL
from reeltune.machine import Machine, free_disk
from reeltune.net import get, hub_endpoint, offline, shown
from reeltune.preferences import Preferences

_CHUNK = 1024 * 1024
_MAX_NAME = 200
_MAX_LISTING = 4_000_000
_RESERVED = re.compile(r"^(con|prn|aux|nul|com\d|lpt\d)(\..*)?$", re.IGNORECASE)
_PAGES = ("text/html", "application/json", "application/xhtml+xml")


def pull(
    definition: Definition,
    preferences: Preferences | None = None,
    *,
    weights_only: bool = False,
    listener: Listener = ignore,
    cancel: CancelToken | None = None,
    machine: Machine | None = None,
) -> Explanation:
    """Fetch everything a definition lacks under the preferences, and return what it then comes to.

    `weights_only` leaves components and preloaded files out. Raises FetchError and its kinds, Cancelled.
    """
    explanation = explain(definition, preferences, machine=machine)
    wanted = [item for item in explanation.missing if not weights_only or item.subject in explanation.selection.choices]
    if not wanted:
        return explanation
    if offline():
        listed = "; ".join(f"{item.path.name} from {shown(item.url)}" for item in wanted)
        raise Offline(f"Missing while the network is switched off: {listed}.", hint="Unset REELTUNE_OFFLINE.")
    cancel = cancel or CancelToken()
    for item in wanted:
        if item.repository:
            _fetch_component(item, definition, listener, cancel)
        else:
            check_name(item.path.name)
            download(
                item.url,
                item.path,
                weights=item.subject in explanation.selection.choices,
                sha256=definition.sha256.get(item.path.name),
                listener=listener,
                cancel=cancel,
            )
    return explain(definition, explanation.preferences, machine=explanation.machine)


def _fetch_component(item: Item, definition: Definition, listener: Listener, cancel: CancelToken) -> None:
    """Fetch a component's files into a folder aside, which takes its name once all of them are there."""
    component = next(row for row in definition.architecture.family.components if row.name == item.subject)
    paths = [PurePosixPath(path) for path in _listing(item.repository, component.name)]
    wanted = [
        path
        for path in paths
        if str(path.parent) == component.name and any(fnmatch.fnmatch(path.name, row) for row in component.files)
    ]
    if not wanted:
        message = f"{item.repository} holds no files for the {item.subject}."
        raise FetchError(message, hint="Check `components` in the definition.")
    aside = item.path.with_name(item.path.name + PARTIAL)
    for path in wanted:
        check_name(path.name)
        target = aside / path.name
        if not target.exists():  # files of an interrupted attempt are whole: each was checked before its rename
            url = f"{hub_endpoint()}/{item.repository}/resolve/main/{quote(str(path))}"
            download(url, target, listener=listener, cancel=cancel)
    if item.path.is_dir():
        item.path.rmdir()  # nothing in it counted as present
    aside.replace(item.path)


def _listing(repository: str, folder: str) -> list[str]:
    """Paths of the files in a folder of a Hub repository (the Hub's `tree` endpoint)."""
    url = f"{hub_endpoint()}/api/models/{repository}/tree/main/{folder}"
    with get(url) as response:
        body = b""
        for chunk in response.iter_raw(_CHUNK):
            body += chunk
            if len(body) > _MAX_LISTING:
                break
    try:
        rows = json.loads(body)
        if isinstance(rows, list):
            return [str(row["path"]) for row in rows if row["type"] == "file"]
    except (ValueError, TypeError, KeyError, RecursionError):
        pass  # whatever it is, it is no listing
    raise FetchError(f"{shown(url)} gives no list of files.", hint="Check the repository's name in `components`.")


def check_name(name: str) -> None:
    """Refuse a file name that could leave its folder or that a file system can't hold. Raises FetchError."""
    bad = name in ("", ".", "..") or any(sign in name for sign in '/\\\0:*?"<>|') or not name.isprintable()
    if bad or len(name.encode("utf-8")) > _MAX_NAME or _RESERVED.match(name) or name.endswith((".", " ")):
        raise FetchError(
            f"{name[:80]!r} can't be used as a file name.", hint="Write a link that ends in the file's name."
        )


def download(
    url: str,
    target: Path,
    *,
    weights: bool = False,
    sha256: str | None = None,
    listener: Listener = ignore,
    cancel: CancelToken | None = None,
) -> None:
    """Fetch one file: partial name, then size, header and sum (where known), then the rename.

    `weights`: it must be a checkpoint, whatever its name; else only a file named like one.

    Raises FetchError, BadDownload, NotEnoughDisk or Cancelled; the final name never holds half a file.
    """
    partial = target.with_name(target.name + PARTIAL)
    target.parent.mkdir(parents=True, exist_ok=True)
    cancel = cancel or CancelToken()

    def report(done: int, total: int | None) -> None:
        cancel.check()
        listener(Progress("download", done, total, "bytes", target.name))

    try:
        digest = _stream(url, target, partial, report)
        _verify_sum(url, target, digest, sha256)
        if weights or target.name.lower().endswith(CHECKPOINT_SUFFIXES):
            _verify_header(url, partial, target)
        partial.replace(target)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    listener(Notice(f"Fetched {target.name} ({target.stat().st_size:,} bytes)."))


def _stream(url: str, target: Path, partial: Path, report: Callable[[int, int | None], None]) -> str:
    """Write the body to the partial file, synced to disk; returns its sha256."""
    digest = hashlib.sha256()
    with get(url) as response:
        kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if kind in _PAGES and target.suffix not in (".json", ".html"):
            raise BadDownload(
                f"{shown(url)} serves a page ({kind}), not {target.name}.",
                hint="The link probably needs a login (HF_TOKEN), is gated, or leads to a page instead of the file.",
            )
        announced = response.headers.get("Content-Length", "")
        total = int(announced) if announced.isdigit() else None
        free = free_disk(target.parent)
        if total is not None and total > free:
            raise NotEnoughDisk(
                f"{target.name} has {total:,} bytes, the disk of {target.parent} has {free:,} free.",
                hint="Make room, or choose another root.",
            )
        done = 0
        with partial.open("wb") as file:
            for chunk in response.iter_raw(_CHUNK):
                file.write(chunk)
                digest.update(chunk)
                done += len(chunk)
                report(done, total)
            file.flush()
            os.fsync(file.fileno())
    if total is not None and done != total:
        raise BadDownload(f"{shown(url)}: {done:,} bytes of {total:,} came.", hint="Try again.")
    return digest.hexdigest()


def _verify_sum(url: str, target: Path, digest: str, sha256: str | None) -> None:
    if sha256 and digest != sha256.lower():
        raise BadDownload(
            f"{target.name} from {shown(url)} has the sha256 {digest}, the definition says {sha256.lower()}.",
            hint="The file changed or was damaged: ask the definition's author.",
        )


def _verify_header(url: str, partial: Path, target: Path) -> None:
    try:
        read_header(partial)
    except CheckpointError as error:
        message = error.message.replace(str(partial), target.name)
        raise BadDownload(f"What {shown(url)} serves is not usable: {message}", hint=error.hint) from error
