"""`lock`: the size and sha256 of every file that a definition uses, written beside it."""

from __future__ import annotations

import fnmatch
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from urllib.parse import quote

from reeltune.checkpoints.names import format_objection
from reeltune.definitions import Catalog, Definition, Version
from reeltune.definitions.locks import SUFFIX, Lock, LockedFile, lock_path, read_lock, write_lock
from reeltune.definitions.slots import PRELOAD
from reeltune.errors import InvalidJSON, LockError, LockMismatch
from reeltune.events import CancelToken, Listener, Notice, ignore
from reeltune.fetch.locked import component_url, verify_locked
from reeltune.files import is_file
from reeltune.library.digests import sha256_of
from reeltune.library.index import Index
from reeltune.library.inventory import Inventory
from reeltune.library.places import check_name
from reeltune.net import Session, file_key, hub_endpoint, offline, shown
from reeltune.planning.facts import file_query, listed_sha256
from reeltune.planning.item import Item
from reeltune.planning.loras import default_loras, planned_loras, split_source
from reeltune.planning.plan import explain
from reeltune.preferences import Preferences, load_preferences
from reeltune.sharing.probing import Question, probe_all
from reeltune.untrusted import JsonObject, parse_json

_MAX_LISTING_BYTES = 4_000_000
_MAX_SMALL_BYTES = 50_000_000  # of a component's file whose sha256 the Hub doesn't report
_MAX_FILE_BYTES = 2**62


def lock_definition(
    catalog: Catalog, id: str, *, listener: Listener = ignore, cancel: CancelToken | None = None
) -> tuple[Path, Lock]:
    """Write the lock of a definition; returns its path and content.

    Files on disk are hashed. For all others, the server must report the sha256, or the definition must list it. Raises
    LockError for a file whose sha256 can't be found out, LockMismatch for a file that differs from its URL's,
    FetchError and FileError.
    """
    definition = catalog[id]
    own_file = definition.own_file
    if own_file is None:
        message = f"{id} is built in, and a lock is written beside a definition of your own."
        raise LockError(message, hint=f"`reeltune definitions copy {id} NEW` makes one.")
    preferences, _ = load_preferences(catalog.root)
    files = {file_key(file.source): file for file in _files(definition, preferences, listener, cancel)}
    for item in _component_items(definition, preferences):
        for file in _component_files(item, preferences, Index(catalog.root / "ckpts"), listener, cancel):
            files.setdefault(file_key(file.source), file)
    path = lock_path(own_file)
    lock = Lock(id, files)
    write_lock(path, lock)
    return path, lock


def check_lock(
    catalog: Catalog, id: str, *, listener: Listener = ignore, cancel: CancelToken | None = None
) -> tuple[str, ...]:
    """Compare the files on disk that a definition uses with its lock; returns the names of those that are missing.

    Raises LockMismatch, LockError.
    """
    definition = catalog[id]
    path = None if definition.own_file is None else lock_path(definition.own_file)
    if path is None or not is_file(path):
        raise LockError(f"{id} has no lock.", hint=f"`reeltune lock {id}` writes it.")
    read_lock(path)
    plan = explain(definition)
    verify_locked([plan], listener, cancel)
    return tuple(item.path.name for item in plan.missing)


# --- files ------------------------------------------------------------------------------------------------------


def _files(
    definition: Definition, preferences: Preferences, listener: Listener, cancel: CancelToken | None
) -> Iterator[LockedFile]:
    """All versions, further files and LoRAs of a definition."""
    on_disk = _paths_on_disk(definition, preferences)
    remote = [source for source in on_disk if Version(source).remote]
    questions = [] if offline() else [Question(source, weights=False) for source in remote]
    answers = probe_all(questions, preferences.tokens, cancel=cancel)
    index = Index(definition.root / "ckpts")
    for source, path in on_disk.items():
        answer = answers.get(source)
        reported = (answer.sha256 or "").lower() if answer is not None else ""
        if path is not None:
            digest = sha256_of(path, index, listener, cancel)
            if reported and reported != digest:
                message = f"{path} is not the file that {shown(source)} serves: their sha256 differ."
                raise LockMismatch(message, hint="Move the file away and run `reeltune pull`, then lock again.")
            if answer is not None and answer.error is not None:
                listener(Notice(f"{shown(source)} can't be compared with the file on disk: {answer.error.message}"))
            yield LockedFile(source, path.stat().st_size, digest)
            continue
        name = Version(source).file_name
        listed = listed_sha256(definition.sha256, source, name, "" if answer is None else answer.name)
        digest = reported or (listed or "").lower()
        if answer is not None and answer.error is not None:
            raise LockError(f"{shown(source)} can't be locked: {answer.error.message}", hint=answer.error.hint)
        if answer is None or answer.bytes is None or not digest:
            message = f"The sha256 of {name} is unknown: it isn't on disk, and its server doesn't report it."
            raise LockError(message, hint=f"Download it first: `reeltune pull {definition.id} --all-versions`.")
        yield LockedFile(source, answer.bytes, digest)


def _paths_on_disk(definition: Definition, preferences: Preferences) -> dict[str, Path | None]:
    """Everything that a definition lists, with its file; None for what isn't on disk. Raises LockError for a path."""
    inventory = Inventory(definition.root, preferences.model_folders)
    paths: dict[str, Path | None] = {}
    for slot, versions in [*definition.all_versions.items(), (PRELOAD, definition.preload)]:
        for version in versions:
            if format_objection(version.url):
                continue
            found, _ = inventory.find(file_query(definition, version, slot))
            paths[version.url] = None if found is None else found.path
    for lora in planned_loras(definition, preferences, default_loras(definition)):
        paths[split_source(lora.source)[0]] = lora.item.path if lora.item.present else None
    for source, path in paths.items():
        if path is None and not Version(source).remote:
            raise LockError(f"{source} doesn't exist.", hint="Put the file there, or correct the definition.")
    return paths


# --- components -------------------------------------------------------------------------------------------------


def _component_items(definition: Definition, preferences: Preferences) -> list[Item]:
    return [item for item in explain(definition, preferences).items if item.repository]


def _component_files(
    item: Item, preferences: Preferences, index: Index, listener: Listener, cancel: CancelToken | None
) -> Iterator[LockedFile]:
    """The files of a component: those on disk, otherwise those that the Hub lists."""
    folder_url = component_url(item)
    if item.present and item.path.is_dir() and item.path.name == item.subject:
        for path in sorted(item.path.iterdir()):
            if path.is_file() and _is_needed(path.name, item):
                digest = sha256_of(path, index, listener, cancel)
                yield LockedFile(folder_url + quote(path.name), path.stat().st_size, digest)
        return
    if item.present:
        listener(Notice(f"{item.path} is used for {item.subject}; the lock lists the files of {item.repository}."))
    with Session(tokens=preferences.tokens) as session:
        for entry in _listing(session, item):
            name = PurePosixPath(str(entry.get("path"))).name
            if entry.get("type") == "file" and _is_needed(name, item):
                check_name(name)
                yield _listed_file(session, item, name, entry)


def _is_needed(name: str, item: Item) -> bool:
    return not name.endswith(SUFFIX) and any(fnmatch.fnmatch(name, pattern) for pattern in item.patterns)


def _listing(session: Session, item: Item) -> Sequence[JsonObject]:
    url = f"{hub_endpoint()}/api/models/{item.repository}/tree/main/{item.subject}"
    try:
        entries = parse_json(session.read(url, _MAX_LISTING_BYTES), "the list of files")
    except InvalidJSON as error:
        raise LockError(f"The files of {item.repository} can't be listed: {error}") from error
    if not isinstance(entries, list):
        raise LockError(f"The files of {item.repository} can't be listed.")
    return [entry for entry in entries if isinstance(entry, dict)]


def _listed_file(session: Session, item: Item, name: str, entry: JsonObject) -> LockedFile:
    """A component's file as the Hub lists it; a small one is downloaded for its sha256."""
    source = component_url(item) + quote(name)
    details = entry.get("lfs")
    if isinstance(details, dict) and isinstance(details.get("oid"), str):
        size = details.get("size", entry.get("size"))
        if isinstance(size, int) and not isinstance(size, bool) and 0 <= size < _MAX_FILE_BYTES:
            return LockedFile(source, size, details["oid"].lower())
    content = session.read(source, _MAX_SMALL_BYTES)
    return LockedFile(source, len(content), hashlib.sha256(content).hexdigest())
