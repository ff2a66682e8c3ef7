"""One root as the page and the HTTP API use it: its catalog, preferences, queue and files, as they are on disk now.

with Runner(root) as runner:
    workspace = Workspace(root, runner)
    workspace.model_states()
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path

from reeltune.definitions import Catalog, Definition, resolve_root
from reeltune.definitions.reader import DefinitionReader
from reeltune.errors import ReeltuneError
from reeltune.files import expand
from reeltune.jobs import Runner
from reeltune.jobs.confine import MAX_PATH
from reeltune.machine import Machine, probe
from reeltune.planning.plan import Plan
from reeltune.preferences import FILE_NAME, Preferences, load_preferences
from reeltune.service.model_states import (
    FolderFacts,
    ModelState,
    ModelStates,
    Snapshot,
    file_facts,
    folder_facts,
    missing_bytes,
)
from reeltune.service.publications import Publications

UPLOADS = "uploads"
_FileFacts = tuple[int, ...]


class Workspace:
    """A root and the runner of its queue.

    `local`: whether only the owner of this machine can reach it and may therefore use any file; otherwise paths must
    be inside the root or its model folders. `uploads`: the folder of uploaded files; by default the root's.
    """

    def __init__(self, root: Path, runner: Runner, *, local: bool = True, uploads: Path | None = None) -> None:
        self.root, self.runner, self.local = root, runner, local
        self._uploads = uploads or root / UPLOADS
        self.queue = runner.queue
        self.machine: Machine = probe()
        self._lock = threading.Lock()
        self._definition_files: FolderFacts | None = None
        self._catalog: Catalog | None = None
        self._reader = DefinitionReader()
        self._preferences: tuple[_FileFacts, Preferences] | None = None
        self.publications = Publications(root)
        self._states = ModelStates(root, self.machine, self._snapshot)

    # --- catalog and preferences ----------------------------------------------------------------------------

    def catalog(self) -> Catalog:
        """The definitions; read again when a file in `finetunes/` was added, changed or deleted."""
        with self._lock:
            definition_files = folder_facts(self.root / "finetunes", ".json")
            if self._catalog is None or definition_files != self._definition_files:
                self._reader = self._reader.next()
                self._catalog = Catalog(resolve_root(self.root), self._reader.read)
                self._definition_files = definition_files
            return self._catalog

    def reload(self) -> None:
        """Read everything again, even if the files seem to be unchanged."""
        with self._lock:
            self._definition_files = self._preferences = None
            self._reader = DefinitionReader()
        self._states.forget()

    def preferences(self) -> Preferences:
        """The preferences; invalid values of the file are replaced by their defaults."""
        facts = file_facts(self.preferences_file)
        cached = self._preferences
        if cached is None or cached[0] != facts:
            cached = (facts, load_preferences(self.root)[0])
            self._preferences = cached
        return cached[1]

    @property
    def preferences_file(self) -> Path:
        """The file with the preferences; it may not exist."""
        return self.root / FILE_NAME

    # --- folders --------------------------------------------------------------------------------------------

    @property
    def uploads(self) -> Path:
        """The folder of uploaded files."""
        return self._uploads

    @property
    def outputs(self) -> Path:
        """The folder of videos. Raises PreferencesError."""
        return self.root / expand(self.preferences().outputs)

    def confined(self, path: object) -> Path | None:
        """The real path, if it is inside the outputs or uploads with all links resolved; None for everything else."""
        if not isinstance(path, str | Path) or len(str(path)) > MAX_PATH:
            return None
        try:
            real_path = (self.root / expand(path)).resolve()
            inside = any(real_path.is_relative_to(folder.resolve()) for folder in (self.outputs, self.uploads))
        except (OSError, ValueError, RuntimeError, ReeltuneError):  # RuntimeError: links that form a loop
            return None
        return real_path if inside else None

    def relative(self, path: str | Path) -> str:
        """A path as settings store it: relative to the root if it is inside."""
        real_path = Path(path).resolve()
        if not real_path.is_relative_to(self.root):
            return str(real_path)
        return real_path.relative_to(self.root).as_posix()

    # --- models ---------------------------------------------------------------------------------------------

    def explain(self, definition: Definition) -> Plan:
        """Which files of a definition are used and why. Raises ReeltuneError if it can't run here."""
        return self._states.explain(definition)

    def missing_bytes(self, plan: Plan) -> int | None:
        """The size of the missing files; None while a size is unknown."""
        return missing_bytes(self.root, plan)

    def model_states(self, wait_seconds: float | None = None) -> Mapping[str, ModelState]:
        """The states of the models by id, as far as they are known; changes are worked out in the background.

        `wait_seconds`: how long to wait for them, where that is worth more than an early answer. Raises
        PreferencesError.
        """
        return self._states.model_states(wait_seconds)

    def blocked(self, id: str) -> str:
        """Why a model can't run here; empty if it can, once its files are downloaded."""
        try:
            definition = self.catalog()[id]
            if not definition.runnable:
                return definition.reason
            self.machine.check_device(self.preferences().device)
            self.explain(definition)
        except ReeltuneError as error:
            return str(error)
        return ""

    def first_model(self) -> str:
        """The model to start with: that of the latest job, else one that is ready and needs only a prompt.

        If there is none, the first model that can run; empty if there are no models at all.
        """
        catalog = self.catalog()
        for job in sorted(self.queue.jobs(), key=lambda job: job.id, reverse=True):
            if job.definition in catalog:
                return job.definition
        return self.default_model()

    def default_model(self) -> str:
        """The first model, by id, that is ready and needs only a prompt, whatever jobs there are.

        If there is none, the first model that can run; empty if there are no models at all.
        """
        catalog = self.catalog()
        runnable = [summary.id for summary in catalog.summaries() if summary.runnable]
        for id in runnable:
            if self._needs_only_a_prompt(id):
                return id
        return next(iter([*runnable, *catalog]), "")

    def _needs_only_a_prompt(self, id: str) -> bool:
        try:
            definition = self.catalog()[id]
            if any(model_input.required for model_input in definition.architecture.inputs):
                return False
            return not self.explain(definition).missing
        except ReeltuneError:
            return False

    def _snapshot(self) -> Snapshot:
        return Snapshot(self.catalog(), self.preferences(), folder_facts(self.root / "ckpts"))
