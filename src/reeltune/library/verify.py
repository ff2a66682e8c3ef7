"""`verify`: read files completely and check them against their headers and their expected sha256."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from reeltune.checkpoints.header import read_header
from reeltune.checkpoints.names import base_name
from reeltune.definitions import Catalog, Definition
from reeltune.errors import CheckpointError, DefinitionError, FileError
from reeltune.events import CancelToken, Listener, Progress, ignore
from reeltune.files import open_regular, reason
from reeltune.library.cleanup import LibraryEntry
from reeltune.library.index import Index
from reeltune.library.inventory import CHECKPOINT_SUFFIXES
from reeltune.library.places import label
from reeltune.net import file_key

_CHUNK_BYTES = 4 * 1024 * 1024
_START_BYTES = 64  # enough to recognize JSON
_GZIP = b"\x1f\x8b"


@dataclass(frozen=True)
class VerifiedFile:
    """The result of reading a file completely.

    `fault`: what is wrong with it; empty for a sound file. `compared`: there was an expected sha256 to compare with.
    `recorded`: its sha256 is in the index now.
    """

    path: Path
    sha256: str
    compared: bool
    fault: str
    recorded: bool = False


@dataclass
class _ExpectedSha256:
    """The sha256 that definitions list, by the key of a file's URL and by file name."""

    by_url: dict[str, set[str]] = field(default_factory=dict)
    by_name: dict[str, set[str]] = field(default_factory=dict)

    def of(self, path: Path, sources: frozenset[str]) -> set[str]:
        """Those listed for the URLs in `sources`; if there are none, those listed for the file's name."""
        listed = [self.by_url[key] for key in sources if key in self.by_url]
        if listed:
            return set[str]().union(*listed)
        return self.by_name.get(path.name, set())


def verify(
    catalog: Catalog, entries: Sequence[LibraryEntry], listener: Listener = ignore, cancel: CancelToken | None = None
) -> Iterator[VerifiedFile]:
    """Read files completely and check their headers and sha256.

    The expected sha256 is the one that a definition lists, and the one recorded when the file was downloaded. The
    sha256 of a sound file is recorded in the index. Raises Cancelled.
    """
    expected = _expected_sha256(catalog)
    index = Index(catalog.root / "ckpts")
    cancel = cancel or CancelToken()
    for entry in entries:
        if entry.state not in ("file", "component"):
            continue
        # names of component files, such as config.json, are too common to look up in definitions
        expected_here = expected if entry.state == "file" else _ExpectedSha256()
        for path in entry.files:
            try:
                yield _verify_file(path, expected_here, index, listener, cancel)
            except FileError as error:
                yield VerifiedFile(path, "", False, error.message)
            except OSError as error:
                yield VerifiedFile(path, "", False, f"it can't be read: {reason(error)}")


def _verify_file(
    path: Path, expected: _ExpectedSha256, index: Index, listener: Listener, cancel: CancelToken
) -> VerifiedFile:
    digest, start = _hash_file(path, index, listener, cancel)
    fault = _json_fault(path, start) or _header_fault(path)
    listed = expected.of(path, index.sources(path))
    recorded = index.recorded_sha256(path)
    if not fault:
        fault = _sha256_fault(digest, listed)
    if not fault and recorded:
        fault = _sha256_fault(digest, {recorded})
    if not fault:
        for url in index.recorded_urls(path) or ("",):
            index.record_file(path, url, digest)
    compared = bool(listed or recorded)
    return VerifiedFile(path, digest, compared, fault, recorded=index.sha256(path) == digest)


def _sha256_fault(digest: str, expected: set[str]) -> str:
    if not expected or digest in expected:
        return ""
    return f"its sha256 is {digest}, but {' or '.join(sorted(expected))} was expected"


def _json_fault(path: Path, start: bytes) -> str:
    """Why a .json file is not JSON, by its first bytes; empty if it may be JSON."""
    if path.suffix.lower() != ".json" or start.lstrip()[:1] in (b"{", b"["):
        return ""
    if start.startswith(_GZIP):
        return "it is compressed (gzip), not JSON"
    return "it is not JSON"


def _header_fault(path: Path) -> str:
    if path.name.lower().endswith(CHECKPOINT_SUFFIXES):
        try:
            read_header(path)
        except CheckpointError as error:
            return error.message
    return ""


def _expected_sha256(catalog: Catalog) -> _ExpectedSha256:
    expected = _ExpectedSha256()
    for id in catalog:
        try:
            definition = catalog[id]
        except DefinitionError:
            continue
        urls = _remote_urls(definition)
        for name, digest in definition.sha256.items():
            expected.by_name.setdefault(base_name(name), set()).add(digest.lower())
            for url in urls:
                if name in (url, base_name(url)):
                    expected.by_url.setdefault(file_key(url), set()).add(digest.lower())
    return expected


def _remote_urls(definition: Definition) -> list[str]:
    lists = (*definition.all_versions.values(), definition.preload)
    return [version.url for versions in lists for version in versions if version.remote]


def _hash_file(path: Path, index: Index, listener: Listener, cancel: CancelToken) -> tuple[str, bytes]:
    """The sha256 of a file, and its first bytes."""
    digest = hashlib.sha256()
    done = 0
    start = b""
    with open_regular(path) as file:
        total = path.stat().st_size
        while chunk := file.read(_CHUNK_BYTES):
            cancel.check()
            start = start or chunk[:_START_BYTES]
            digest.update(chunk)
            done += len(chunk)
            listener(Progress("verify", done, total, "bytes", label(path, index.folder)))
    return digest.hexdigest(), start
