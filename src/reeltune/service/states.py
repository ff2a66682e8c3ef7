"""How the models stand, found out in the background and again only when the files they depend on change."""

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
from reeltune.planning.plan import Explanation, explain
from reeltune.preferences import Preferences

FileFacts = tuple[tuple[str, int, int, int], ...]
_MOST_FILES = 20_000  # of a folder whose changes are noticed; beyond them the page's refresh button helps
_PATIENCE_SECONDS = 0.4  # a page waits this long for the states of its models; later ones arrive with a later tick
_STALE_SECONDS = 60.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Standing:
    """How a model stands: `ready`, or `missing` bytes (None: not known), or the `reason` why it can't run."""

    ready: bool
    missing: int | None = None
    reason: str = ""


@dataclass(frozen=True)
class Facts:
    """What the state of every model depends on; two catalogs are the same only if they are one object."""

    catalog: Catalog
    preferences: Preferences
    files: FileFacts

    def same(self, other: Facts | None) -> bool:
        """Whether nothing has changed."""
        if other is None or self.catalog is not other.catalog:
            return False
        return self.preferences == other.preferences and self.files == other.files


def file_facts(folder: Path, suffix: str = "", *, deep: bool = False) -> FileFacts:
    """Names, sizes, times and inodes of the files in a folder, sorted; `deep`: of those in its subfolders too.

    Unfinished downloads and hidden files don't count: they change all the time, and no model depends on them.
    """
    found = []
    for name, facts in _walk(folder, "", deep, set()):
        if name.lower().endswith(suffix):
            found.append((name, facts.st_size, facts.st_mtime_ns, facts.st_ino))
        if len(found) >= _MOST_FILES:
            break
    return tuple(sorted(found))


def _walk(folder: Path | str, prefix: str, deep: bool, seen: set[str]) -> Iterator[tuple[str, os.stat_result]]:
    """Relative names and facts of the files; `seen`: real paths of folders, since links may lead in circles."""
    try:
        seen.add(os.path.realpath(folder))  # noqa: PTH
        entries = list(os.scandir(folder))
    except OSError:  # not there yet, or not readable: the model that needs it reports it
        return
    for entry in entries:
        if entry.name.startswith(".") or entry.name.endswith(PARTIAL):
            continue
        try:
            if not entry.is_dir():
                yield f"{prefix}{entry.name}", entry.stat()
            elif deep and os.path.realpath(entry.path) not in seen:  # noqa: PTH
                yield from _walk(entry.path, f"{prefix}{entry.name}/", deep, seen)
        except OSError:  # gone meanwhile, or a link to nothing
            continue


class States:
    """The states of all models of a root, and the explanations of those that were looked at."""

    def __init__(self, root: Path, machine: Machine, facts: Callable[[], Facts]) -> None:
        self._root, self._machine, self._read = root, machine, facts
        self._guard = threading.Lock()
        self._facts: Facts | None = None
        self._version = 0
        self._standings: Mapping[str, Standing] = {}
        self._asked = 0  # the version whose states are known, or being found out
        self._explained: dict[str, Explanation | ReeltuneError] = {}
        self._inventory: tuple[int, float, Inventory] | None = None  # of which version, and when it was made

    def current(self) -> tuple[int, Facts]:
        """The facts as they are now, and a number that grows whenever they change. Raises PreferencesError."""
        facts = self._read()
        with self._guard:
            if not facts.same(self._facts):
                self._facts, self._version = facts, self._version + 1
                self._explained.clear()
            return self._version, facts

    def forget(self) -> None:
        """Find everything out again, whatever the files' facts are."""
        with self._guard:
            self._facts = None

    def _on_disk(self, version: int, facts: Facts) -> Inventory:
        """What is on disk, looked through once for all models; again after a while, as no change of a model folder is
        noticed.
        """
        now = time.monotonic()
        with self._guard:
            known = self._inventory
            if known is None or known[0] != version or now - known[1] > _STALE_SECONDS:
                known = (version, now, Inventory(self._root, facts.preferences.model_folders))
                self._inventory = known
        return known[2]

    def explain(self, definition: Definition) -> Explanation:
        """The chooser's result for a definition, the last one while nothing has changed. Raises as `fetch.explain`."""
        version, facts = self.current()
        known = self._explained.get(definition.id)
        if known is None or (isinstance(known, Explanation) and known.definition is not definition):
            try:
                inventory = self._on_disk(version, facts)
                known = explain(definition, facts.preferences, machine=self._machine, inventory=inventory)
            except ReeltuneError as error:
                known = error
            with self._guard:
                if version == self._version:
                    self._explained[definition.id] = known
        if isinstance(known, ReeltuneError):
            raise known
        return known

    def standings(self) -> Mapping[str, Standing]:
        """How every model stands, by id, as far as it is known. Raises PreferencesError."""
        version, facts = self.current()
        with self._guard:
            known, self._asked = self._asked == version, version
        if not known:
            finding = threading.Thread(target=self._find_out, args=(version, facts), daemon=True)
            finding.start()
            finding.join(_PATIENCE_SECONDS)
        return self._standings

    def _find_out(self, version: int, facts: Facts) -> None:
        found = {}
        inventory = self._on_disk(version, facts)
        for row in facts.catalog.summaries():
            if self._asked != version:
                return  # a newer thread is at it
            found[row.id] = self._standing(facts, row.id, inventory)
        with self._guard:
            if self._asked == version:
                self._standings = found

    def _standing(self, facts: Facts, id: str, inventory: Inventory) -> Standing:
        try:
            definition = facts.catalog[id]
            if not definition.runnable:
                return Standing(False, reason=definition.reason)
            explanation = explain(definition, facts.preferences, machine=self._machine, inventory=inventory)
            if not explanation.missing:
                return Standing(True)
            return Standing(False, missing_bytes(self._root, explanation))
        except ReeltuneError as error:
            return Standing(False, reason=str(error))
        except Exception as error:  # the boundary of a model: one odd file must not hide the states of all others
            _log.exception("The state of %s could not be found out.", id)
            return Standing(False, reason=f"{type(error).__name__}: {error}")


def missing_bytes(root: Path, explanation: Explanation) -> int | None:
    """Bytes to download; None while the size of a file is not known."""
    index = Index(root / "ckpts")
    sizes = [item.bytes or index.size_of_url(item.url) for item in explanation.missing]
    known = [size for size in sizes if size is not None]
    return sum(known) if len(known) == len(sizes) else None
