"""Fetch what a plan lacks: under a partial name, checked, and only then under the final one."""

from __future__ import annotations

import fnmatch
import hashlib
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from reeltune.checkpoints.header import read_header
from reeltune.definitions import Definition
from reeltune.errors import BadDownload, CheckpointError, FetchError, NotEnoughDisk, Offline
from reeltune.events import CancelToken, Listener, Notice, Progress, ignore
from reeltune.fetch.plan import Explanation, Item, explain
from reeltune.inventory import PARTIAL
from reeltune.machine import Machine, free_disk
from reeltune.net import get, hub_endpoint, hub_token, offline, shown
from reeltune.preferences import Preferences

_CHUNK = 1024 * 1024
_MAX_NAME = 200
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
        for url, target in _files(item, definition):
            if not target.exists():
                download(url, target, sha256=definition.sha256.get(target.name), listener=listener, cancel=cancel)
    return explain(definition, explanation.preferences, machine=explanation.machine)


def _files(item: Item, definition: Definition) -> Iterator[tuple[str, Path]]:
    """URL and target of each file an item takes; a component's files are listed by the Hub."""
    if not item.repository:
        check_name(item.path.name)
        yield item.url, item.path
        return
    component = next(row for row in definition.architecture.family.components if row.name == item.subject)
    for name in _listing(item.repository, component.name):
        relative = PurePosixPath(name).relative_to(component.name)
        if len(relative.parts) == 1 and any(fnmatch.fnmatch(relative.name, pattern) for pattern in component.files):
            check_name(relative.name)
            yield f"{hub_endpoint()}/{item.repository}/resolve/main/{name}", item.path / relative.name


def _listing(repository: str, folder: str) -> list[str]:
    """Files of a folder of a Hub repository."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        api = HfApi(endpoint=hub_endpoint(), token=hub_token() or False)
        return [row.path for row in api.list_repo_tree(repository, folder) if hasattr(row, "size")]
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise FetchError(
            f"The files of {repository}/{folder} can't be listed: {type(error).__name__}.",
            hint="Check the repository's name and the network.",
        ) from error


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
    sha256: str | None = None,
    listener: Listener = ignore,
    cancel: CancelToken | None = None,
) -> None:
    """Fetch one file: partial name, then size, header and sum (where known), then the rename.

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
        _verify(url, partial, target, digest, sha256)
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


def _verify(url: str, partial: Path, target: Path, digest: str, sha256: str | None) -> None:
    if sha256 and digest != sha256.lower():
        raise BadDownload(
            f"{target.name} from {shown(url)} has the sha256 {digest}, the definition says {sha256.lower()}.",
            hint="The file changed or was damaged: ask the definition's author.",
        )
    if target.suffix.lower() in (".safetensors", ".sft"):
        try:
            read_header(partial)
        except CheckpointError as error:
            message = error.message.replace(str(partial), target.name)
            raise BadDownload(f"What {shown(url)} serves is not usable: {message}", hint=error.hint) from error
