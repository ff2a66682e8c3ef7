"""`verify`: files read in full and held against their sha256 and headers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from reeltune.checkpoints.header import read_header
from reeltune.checkpoints.names import base_name
from reeltune.definitions import Catalog
from reeltune.errors import CheckpointError, DefinitionError, FileError
from reeltune.events import CancelToken, Listener, Progress, ignore
from reeltune.files import open_regular, reason
from reeltune.library.cleanup import Kept
from reeltune.library.index import Index
from reeltune.library.inventory import CHECKPOINT_SUFFIXES
from reeltune.library.places import label
from reeltune.net import file_key

_CHUNK = 4 * 1024 * 1024
_GZIP = b"\x1f\x8b"


@dataclass(frozen=True)
class Verdict:
    """The result of reading a whole file: `fault` is empty for a sound one; `known`: there was a sha256 to compare
    with; `stored`: its sha256 is in the index now.
    """

    path: Path
    sha256: str
    known: bool
    fault: str
    stored: bool = False


@dataclass
class _Sums:
    """Sha256 that definitions give, by the key of a file's URL and by file name."""

    by_key: dict[str, set[str]] = field(default_factory=dict)
    by_name: dict[str, set[str]] = field(default_factory=dict)

    def of(self, path: Path, sources: frozenset[str]) -> set[str]:
        """Those of a file that came from `sources`; where that isn't known, those given for its name."""
        known = set[str]().union(*(self.by_key.get(key, set()) for key in sources))
        return known if known or any(key in self.by_key for key in sources) else self.by_name.get(path.name, set())


def verify(
    catalog: Catalog, entries: Sequence[Kept], listener: Listener = ignore, cancel: CancelToken | None = None
) -> Iterator[Verdict]:
    """Read files in full: header, extents, and the sha256 of the definition or of the day they were downloaded.

    A sound file whose sha256 nobody knew is remembered with it. Raises Cancelled.
    """
    wanted = _sums(catalog)
    index, cancel = Index(catalog.root / "ckpts"), cancel or CancelToken()
    for entry in entries:
        for path in entry.parts if entry.state in ("file", "component") else ():
            try:
                yield _verdict(path, wanted if entry.state == "file" else _Sums(), index, listener, cancel)
            except FileError as error:
                yield Verdict(path, "", False, error.message)
            except OSError as error:
                yield Verdict(path, "", False, f"it can't be read: {reason(error)}")


def _verdict(path: Path, wanted: _Sums, index: Index, listener: Listener, cancel: CancelToken) -> Verdict:
    fault = _header_fault(path)
    digest, start = _sum(path, index, listener, cancel)
    if path.suffix.lower() == ".json" and start.lstrip()[:1] not in (b"{", b"["):
        fault = "it is compressed (gzip), not JSON" if start.startswith(_GZIP) else "it is not JSON"
    listed, recorded = wanted.of(path, index.sources(path)), index.recorded(path)
    for sums in (listed, {recorded} if recorded else set()):
        if sums and digest not in sums and not fault:
            fault = f"its sha256 is {digest}, {' or '.join(sorted(sums))} is known"
    if not fault:
        for url in index.links(path) or ("",):
            index.learn(path, url, digest)
    return Verdict(path, digest, bool(listed or recorded), fault, index.sha256(path) == digest)


def _header_fault(path: Path) -> str:
    if path.name.lower().endswith(CHECKPOINT_SUFFIXES):
        try:
            read_header(path)
        except CheckpointError as error:
            return error.message
    return ""


def _sums(catalog: Catalog) -> _Sums:
    found = _Sums()
    for id in catalog:
        try:
            definition = catalog[id]
        except DefinitionError:
            continue
        urls = [row.url for rows in (*definition.slots.values(), definition.preload) for row in rows if row.remote]
        for name, digest in definition.sha256.items():
            found.by_name.setdefault(base_name(name), set()).add(digest.lower())
            for url in urls:
                if name in (url, base_name(url)):
                    found.by_key.setdefault(file_key(url), set()).add(digest.lower())
    return found


def _sum(path: Path, index: Index, listener: Listener, cancel: CancelToken) -> tuple[str, bytes]:
    """Sha256 of a file, and its first bytes."""
    digest, done, start = hashlib.sha256(), 0, b""
    with open_regular(path) as file:
        total = path.stat().st_size
        while chunk := file.read(_CHUNK):
            cancel.check()
            start = start or chunk[:64]
            digest.update(chunk)
            done += len(chunk)
            listener(Progress("verify", done, total, "bytes", label(path, index.folder)))
    return digest.hexdigest(), start
