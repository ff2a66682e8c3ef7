"""What the parts of the page share: the root's catalog, preferences, queue and files, as they are on disk now."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path

from reeltune.definitions import Catalog, Definition, resolve_root
from reeltune.definitions.reader import DefinitionReader
from reeltune.errors import ReeltuneError
from reeltune.files import expand
from reeltune.jobs import Runner
from reeltune.machine import Machine, probe
from reeltune.planning.plan import Explanation
from reeltune.preferences import FILE_NAME, Preferences, load_preferences
from reeltune.service.states import Facts, FileFacts, Standing, States, file_facts, missing_bytes

UPLOADS = "uploads"


class Studio:
    """One root as the page sees it. `local`: whether only this machine can reach the page, so that whoever uses it may
    name any of its files; else paths stay inside the root and its model folders.
    """

    def __init__(self, root: Path, runner: Runner, *, local: bool = True) -> None:
        self.root, self.runner, self.local = root, runner, local
        self.queue = runner.queue
        self.machine: Machine = probe()
        self._guard = threading.Lock()
        self._seen: FileFacts | None = None
        self._catalog: Catalog | None = None
        self._reader = DefinitionReader()
        self._preferences: tuple[tuple[int, ...], Preferences] | None = None  # with the facts of their file
        self._states = States(root, self.machine, self._facts)

    # --- as it is on disk now -------------------------------------------------------------------------------

    def catalog(self) -> Catalog:
        """The definitions; read again whenever a file in `finetunes/` is new, gone or changed."""
        with self._guard:
            seen = file_facts(self.root / "finetunes", ".json", deep=True)
            if self._catalog is None or seen != self._seen:
                self._reader = self._reader.next()
                self._catalog, self._seen = Catalog(resolve_root(self.root), self._reader.read), seen
            return self._catalog

    def reload(self) -> None:
        """Read everything again, whatever the files' times say."""
        with self._guard:
            self._seen = self._preferences = None
            self._reader = DefinitionReader()
        self._states.forget()

    def preferences(self) -> Preferences:
        """The preferences; a value of the file that can't be used has its default."""
        facts = _facts_of(preferences_file(self.root))
        kept = self._preferences
        if kept is None or kept[0] != facts:
            kept = self._preferences = (facts, load_preferences(self.root)[0])
        return kept[1]

    def explain(self, definition: Definition) -> Explanation:
        """The chooser's result for a definition. Raises as `fetch.explain`."""
        return self._states.explain(definition)

    def missing_bytes(self, explanation: Explanation) -> int | None:
        """Bytes to download; None while the size of a file is not known."""
        return missing_bytes(self.root, explanation)

    # --- folders --------------------------------------------------------------------------------------------

    @property
    def uploads(self) -> Path:
        """Where files go that come through the page."""
        return self.root / UPLOADS

    @property
    def outputs(self) -> Path:
        """Where the videos are."""
        return self.root / expand(self.preferences().outputs)

    def confined(self, path: object) -> Path | None:
        """A path inside outputs or uploads, links followed; None for any other, and for what is no path."""
        if not isinstance(path, str | Path):
            return None
        try:
            real = (self.root / expand(path)).resolve()
            inside = any(real.is_relative_to(folder.resolve()) for folder in (self.outputs, self.uploads))
        except (OSError, ValueError, RuntimeError, ReeltuneError):  # RuntimeError: links that lead in a circle
            return None
        return real if inside else None

    def relative(self, path: str | Path) -> str:
        """A path as settings keep it: relative to the root where it lies there."""
        real = Path(path).resolve()
        return real.relative_to(self.root).as_posix() if real.is_relative_to(self.root) else str(real)

    # --- how the models stand -------------------------------------------------------------------------------

    def standings(self) -> Mapping[str, Standing]:
        """How every model stands, by id, as far as it is known; what has changed is found out in the background."""
        return self._states.standings()

    def version(self) -> int:
        """A number that grows whenever a definition, a weight file or a preference changes. Raises PreferencesError."""
        return self._states.current()[0]

    def blocked(self, id: str) -> str:
        """Why a model can't run here; empty where it can, once its files are downloaded."""
        try:
            definition = self.catalog()[id]
            if not definition.runnable:
                return definition.reason
            self.machine.check_device(self.preferences().device)
            self.explain(definition)
        except ReeltuneError as error:
            return str(error)
        return ""

    def _facts(self) -> Facts:
        return Facts(self.catalog(), self.preferences(), file_facts(self.root / "ckpts", deep=True))


def _facts_of(path: Path) -> tuple[int, ...]:
    """Size, time and inode of a file; empty where there is none."""
    try:
        facts = path.stat()
    except OSError:
        return ()
    return facts.st_size, facts.st_mtime_ns, facts.st_ino


def preferences_file(root: Path) -> Path:
    """Where the preferences are kept."""
    return root / FILE_NAME
