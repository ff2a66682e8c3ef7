"""The states of all models, worked out in the background and only when the files they depend on change."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from reeltune.definitions import Catalog, Definition
from reeltune.errors import ReeltuneError
from reeltune.library.index import Index
from reeltune.library.inventory import PARTIAL, Inventory
from reeltune.machine import Machine
from reeltune.planning.plan import Plan, explain
from reeltune.preferences import Preferences

FolderFacts = tuple[tuple[str, int, int, int], ...]  # name, size, modification time and inode of each file
_MAX_FILES = 20_000  # of a folder whose changes are noticed; beyond them the page has a button to refresh
_WAIT_SECONDS = 0.4  # callers wait this long for new states before they get the previous ones
_INVENTORY_SECONDS = 60.0  # changes in model folders are noticed after this time
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ModelState:
    """Whether a model is `ready`; if not, its `missing` bytes (None: unknown), or the `reason` why it can't run."""

    ready: bool
    missing: int | None = None
    reason: str = ""


@dataclass(frozen=True)
class Snapshot:
    """What the states of the models depend on. Catalogs are compared by identity."""

    catalog: Catalog
    preferences: Preferences
    files: FolderFacts

    def same(self, other: Snapshot | None) -> bool:
        """Whether nothing has changed."""
        if other is None or self.catalog is not other.catalog:
            return False
        return self.preferences == other.preferences and self.files == other.files


@dataclass(frozen=True)
class _CachedInventory:
    version: int
    created: float
    inventory: Inventory


def file_facts(path: Path) -> tuple[int, ...]:
    """Size, modification time and inode of a file; empty if it doesn't exist."""
    try:
        facts = path.stat()
    except OSError:
        return ()
    return facts.st_size, facts.st_mtime_ns, facts.st_ino


def folder_facts(folder: Path, suffix: str = "") -> FolderFacts:
    """Names, sizes, times and inodes of the files in a folder and its subfolders, sorted.

    Unfinished downloads and hidden files are left out: they change all the time, and no model depends on them.
    """
    files = []
    for name, facts in _walk(str(folder), "", set()):
        if name.lower().endswith(suffix):
            files.append((name, facts.st_size, facts.st_mtime_ns, facts.st_ino))
        if len(files) >= _MAX_FILES:
            break
    return tuple(sorted(files))


def _walk(folder: str, prefix: str, visited: set[tuple[int, int]]) -> Iterator[tuple[str, os.stat_result]]:
    """Names relative to the first folder, and facts of the files. `visited`: devices and inodes of the folders, as
    links may form loops.
    """
    try:
        facts = os.stat(folder)  # noqa: PTH116 - a hundred folders are looked at whenever the page asks
        # some network drives on Windows tell no inode: 0 for each folder
        place = (facts.st_dev, facts.st_ino or hash(os.path.realpath(folder)))
        if place in visited:
            return
        visited.add(place)
        entries = list(os.scandir(folder))
    except OSError:  # missing or not readable, or links in a circle: the models that need the folder report it
        return
    for entry in entries:
        if entry.name.startswith(".") or entry.name.endswith(PARTIAL):
            continue
        try:
            if entry.is_dir():
                yield from _walk(entry.path, f"{prefix}{entry.name}/", visited)
            else:
                yield f"{prefix}{entry.name}", entry.stat()
        except OSError:  # deleted meanwhile, or a broken link
            continue


def missing_bytes(root: Path, plan: Plan) -> int | None:
    """The size of the missing files; None while a size is unknown."""
    index = Index(root / "ckpts")
    total = 0
    for item in plan.missing:
        size = index.size_of_url(item.url) if item.bytes is None else item.bytes
        if size is None:
            return None
        total += size
    return total


class ModelStates:
    """The states of all models of a root, and the plans of those that were looked at."""

    def __init__(self, root: Path, machine: Machine, read_snapshot: Callable[[], Snapshot]) -> None:
        self._root, self._machine, self._read_snapshot = root, machine, read_snapshot
        self._lock = threading.Lock()
        self._snapshot: Snapshot | None = None
        self._version = 0
        self._states: Mapping[str, ModelState] = {}
        self._updating: threading.Thread | None = None
        self._states_version = 0  # the version whose states are known or being worked out
        self._explanations: dict[tuple[str, str], Plan | ReeltuneError] = {}
        self._inventory: _CachedInventory | None = None

    def forget(self) -> None:
        """Work everything out again, even if no file has changed."""
        with self._lock:
            self._snapshot = None

    def _current(self) -> tuple[int, Snapshot]:
        """The current snapshot, and a number that grows with every change. Raises PreferencesError."""
        snapshot = self._read_snapshot()
        with self._lock:
            if not snapshot.same(self._snapshot):
                self._snapshot, self._version = snapshot, self._version + 1
                self._explanations.clear()
            return self._version, snapshot

    def _inventory_of(self, version: int, snapshot: Snapshot) -> Inventory:
        """The files on disk, listed once for all models."""
        now = time.monotonic()
        with self._lock:
            cached = self._inventory
            if cached is None or cached.version != version or now - cached.created > _INVENTORY_SECONDS:
                inventory = Inventory(self._root, snapshot.preferences.model_folders)
                cached = _CachedInventory(version, now, inventory)
                self._inventory = cached
        return cached.inventory

    def explain(self, definition: Definition) -> Plan:
        """Which files of a definition are used and why; cached while nothing changes. Raises ReeltuneError."""
        version, snapshot = self._current()
        key = (definition.id, definition.config)
        result = self._explanations.get(key)
        if result is None or (isinstance(result, Plan) and result.definition is not definition):
            result = self._explain(definition, snapshot, version)
            with self._lock:
                if version == self._version:
                    self._explanations[key] = result
        if isinstance(result, ReeltuneError):
            raise result
        return result

    def _explain(self, definition: Definition, snapshot: Snapshot, version: int) -> Plan | ReeltuneError:
        try:
            inventory = self._inventory_of(version, snapshot)
            return explain(definition, snapshot.preferences, machine=self._machine, inventory=inventory)
        except ReeltuneError as error:
            return error

    def model_states(self, wait_seconds: float | None = None) -> Mapping[str, ModelState]:
        """The states by model id, as far as they are known. Raises PreferencesError.

        `wait_seconds`: how long to wait for states that are being worked out; by default 0.4 seconds after a change.
        """
        version, snapshot = self._current()
        with self._lock:
            up_to_date, self._states_version = self._states_version == version, version
            if not up_to_date:
                self._updating = threading.Thread(target=self._update_states, args=(version, snapshot), daemon=True)
                self._updating.start()
            updating = self._updating
        if updating is not None and (wait_seconds is not None or not up_to_date):
            updating.join(_WAIT_SECONDS if wait_seconds is None else wait_seconds)
        return self._states

    def _update_states(self, version: int, snapshot: Snapshot) -> None:
        states = {}
        inventory = self._inventory_of(version, snapshot)
        for summary in snapshot.catalog.summaries():
            if self._states_version != version:
                return  # a newer thread works out newer states
            states[summary.id] = self._state_of(snapshot, summary.id, inventory)
        with self._lock:
            if self._states_version == version:
                self._states = states

    def _state_of(self, snapshot: Snapshot, id: str, inventory: Inventory) -> ModelState:
        try:
            definition = snapshot.catalog[id]
            if not definition.runnable:
                return ModelState(False, reason=definition.reason)
            plan = explain(definition, snapshot.preferences, machine=self._machine, inventory=inventory)
            if not plan.missing:
                return ModelState(True)
            return ModelState(False, missing_bytes(self._root, plan))
        except ReeltuneError as error:
            return ModelState(False, reason=str(error))
        except Exception as error:  # one odd file must not hide the states of all other models
            _log.exception("The state of %s could not be worked out.", id)
            return ModelState(False, reason=f"{type(error).__name__}: {error}")
