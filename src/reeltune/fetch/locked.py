"""The files of a locked definition, compared with its lock: a video is made from the same bytes or not at all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import unquote

from reeltune.definitions.locks import Lock, LockedFile, lock_beside
from reeltune.errors import LockError, LockMismatch
from reeltune.events import CancelToken, Listener, Notice
from reeltune.library.digests import sha256_of
from reeltune.library.index import Index
from reeltune.library.places import check_name
from reeltune.net import HUB
from reeltune.planning.item import Item
from reeltune.planning.loras import default_loras, split_source
from reeltune.planning.plan import Plan


def verify_locked(plans: Sequence[Plan], listener: Listener, cancel: CancelToken | None) -> None:
    """Compare the files on disk of each plan whose definition has a lock.

    Raises LockMismatch for another file, LockError for a file that the lock doesn't list.
    """
    for plan in plans:
        lock = lock_beside(plan.definition.own_file)
        if lock is None:
            continue
        index = Index(plan.definition.root / "ckpts")
        for path, locked in _locked_files(plan, lock, listener):
            check_file(path, locked, index, listener, cancel)


def check_file(
    path: Path, locked: LockedFile, index: Index, listener: Listener, cancel: CancelToken | None = None
) -> None:
    """Compare one file with its entry in a lock. Raises LockMismatch, FileError, Cancelled."""
    size = path.stat().st_size
    if size != locked.bytes:
        raise _mismatch(path, f"it has {size:,} bytes, and the lock lists {locked.bytes:,}")
    digest = sha256_of(path, index, listener, cancel)
    if digest != locked.sha256:
        raise _mismatch(path, f"its sha256 is {digest}, and the lock lists {locked.sha256}")


def _mismatch(path: Path, difference: str) -> LockMismatch:
    hint = "Run the command again, which downloads the locked file, or write the lock again with `reeltune lock`."
    return LockMismatch(f"{path} is not the locked file: {difference}.", hint=hint)


def _locked_files(plan: Plan, lock: Lock, listener: Listener) -> Iterator[tuple[Path, LockedFile]]:
    """The files of a plan on disk with their entries. Raises LockError for a file without an entry."""
    own_loras = {split_source(source)[0] for source in default_loras(plan.definition)}
    for item in plan.items:
        if not item.present:
            continue
        if item.repository:
            yield from _component_files(plan, item, lock, listener)
            continue
        locked = lock.get(item.url)
        if locked is not None:
            yield item.path, locked
        elif item.url in own_loras or not item.subject.startswith("loras"):
            raise _not_listed(plan, item.path.name)


def _component_files(plan: Plan, item: Item, lock: Lock, listener: Listener) -> Iterator[tuple[Path, LockedFile]]:
    folder_url = component_url(item)
    entries = [file for file in lock.files.values() if file.source.startswith(folder_url)]
    if not entries:
        raise _not_listed(plan, f"the component {item.path.name}")
    if not item.path.is_dir() or item.path.name != folder_url.rstrip("/").rpartition("/")[2]:
        listener(Notice(f"{item.path} is used for {item.subject} and is not covered by the lock."))
        return
    for locked in entries:
        name = unquote(locked.source.removeprefix(folder_url))
        check_name(name)
        path = item.path / name
        if not path.is_file():
            raise LockMismatch(f"{path} is missing, and the lock lists it.", hint="Delete its folder, and pull again.")
        yield path, locked


def component_url(item: Item) -> str:
    """The start of the URLs of a component's files, which locks list."""
    return f"{HUB}/{item.repository}/resolve/main/{item.subject}/"


def _not_listed(plan: Plan, name: str) -> LockError:
    message = f"The lock of {plan.definition.id} doesn't list {name}: the definition has changed since."
    return LockError(message, hint=f"`reeltune lock {plan.definition.id}` writes the lock again.")
