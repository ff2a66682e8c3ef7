"""What the parts of the page share: the root's catalog, preferences, queue and files, as they are on disk now."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from reeltune.definitions import Catalog, Definition, load_catalog
from reeltune.errors import ReeltuneError
from reeltune.fetch import Explanation, explain
from reeltune.files import expand
from reeltune.inventory.index import Index
from reeltune.jobs import Runner
from reeltune.machine import Machine, probe
from reeltune.preferences import FILE_NAME, Preferences, load_preferences

Signature = tuple[tuple[str, int, int], ...]
UPLOADS = "uploads"
_PATIENCE_SECONDS = 0.4  # a page waits so long for the states of its models; later ones come by themselves


@dataclass(frozen=True)
class Standing:
    """How a model stands: `ready` to make videos, or `missing` bytes (None: not known), or why it can't run."""

    ready: bool
    missing: int | None = None
    reason: str = ""


class Studio:
    """One root as the page sees it. `local`: whether only this machine can reach the page, so that whoever uses it may
    name any of its files; else paths stay inside the root and its model folders.
    """

    def __init__(self, root: Path, runner: Runner, *, local: bool = True) -> None:
        self.root, self.runner, self.local = root, runner, local
        self.queue = runner.queue
        self.machine: Machine = probe()
        self._guard = threading.Lock()
        self._seen: Signature | None = None
        self._catalog: Catalog | None = None
        self._standings: Mapping[str, Standing] = {}
        self._told_of: tuple[Catalog, Preferences, Signature] | None = None

    # --- as it is on disk now -------------------------------------------------------------------------------

    def catalog(self) -> Catalog:
        """The definitions; read again whenever a file in `finetunes/` is new, gone or changed."""
        with self._guard:
            seen = _signature(self.root / "finetunes", ".json")
            if self._catalog is None or seen != self._seen:
                self._catalog, self._seen = load_catalog(self.root), seen
            return self._catalog

    def reload(self) -> None:
        """Read everything again, whatever the files' times say."""
        with self._guard:
            self._seen = self._told_of = None

    def preferences(self) -> Preferences:
        """The preferences; a value of the file that can't be used has its default."""
        return load_preferences(self.root)[0]

    def explain(self, definition: Definition) -> Explanation:
        """The chooser's result for a definition. Raises what `fetch.explain` does."""
        return explain(definition, self.preferences(), machine=self.machine)

    def missing_bytes(self, explanation: Explanation) -> int | None:
        """Bytes to fetch; None while a server hasn't told all sizes yet."""
        index = Index(self.root / "ckpts")
        sizes = [item.bytes or index.size_of(item.url) for item in explanation.missing]
        known = [size for size in sizes if size is not None]
        return sum(known) if len(known) == len(sizes) else None

    # --- folders --------------------------------------------------------------------------------------------

    @property
    def uploads(self) -> Path:
        """Where files go that come through the page."""
        return self.root / UPLOADS

    @property
    def outputs(self) -> Path:
        """Where the videos are."""
        return self.root / expand(self.preferences().outputs)

    def confined(self, path: str | Path) -> Path | None:
        """A path inside outputs or uploads, links followed; None for any other."""
        try:
            real = (self.root / expand(path)).resolve()
            inside = any(real.is_relative_to(folder.resolve()) for folder in (self.outputs, self.uploads))
        except (OSError, ValueError, ReeltuneError):
            return None
        return real if inside else None

    def relative(self, path: str | Path) -> str:
        """A path as settings keep it: relative to the root where it lies there."""
        real = Path(path).resolve()
        return real.relative_to(self.root).as_posix() if real.is_relative_to(self.root) else str(real)

    # --- how the models stand -------------------------------------------------------------------------------

    def standings(self) -> Mapping[str, Standing]:
        """How every model stands, by id, as far as it is known; what has changed is found out in the background."""
        catalog, preferences = self.catalog(), self.preferences()
        now = (catalog, preferences, _signature(self.root / "ckpts", ""))
        with self._guard:
            fresh, self._told_of = self._told_of == now, now
        if not fresh:
            finding = threading.Thread(target=self._find_out, args=now, daemon=True)
            finding.start()
            finding.join(_PATIENCE_SECONDS)
        return self._standings

    def _find_out(self, catalog: Catalog, preferences: Preferences, seen: Signature) -> None:
        found = {row.id: self._standing(catalog, row.id, preferences) for row in catalog.summaries()}
        with self._guard:
            if self._told_of == (catalog, preferences, seen):
                self._standings = found

    def _standing(self, catalog: Catalog, id: str, preferences: Preferences) -> Standing:
        try:
            definition = catalog[id]
            if not definition.runnable:
                return Standing(False, reason=definition.reason)
            explanation = explain(definition, preferences, machine=self.machine)
        except ReeltuneError as error:
            return Standing(False, reason=str(error))
        if not explanation.missing:
            return Standing(True)
        return Standing(False, self.missing_bytes(explanation))


def _signature(folder: Path, suffix: str) -> Signature:
    """Names, sizes and times of what lies in a folder."""
    try:
        with os.scandir(folder) as entries:
            facts = [(entry.name, entry.stat()) for entry in entries if entry.name.endswith(suffix)]
    except OSError:
        return ()
    return tuple(sorted((name, row.st_size, row.st_mtime_ns) for name, row in facts))


def preferences_file(root: Path) -> Path:
    """Where the preferences are kept."""
    return root / FILE_NAME
