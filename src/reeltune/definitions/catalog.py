"""All definitions: built-in base models and finetunes, and the user's, which override them key by key.

    catalog = load_catalog("~/videos")
    catalog["t2v"].name; list(catalog); catalog.broken

A broken file is set aside with its problems and never stops the rest. Parsing happens on loading, resolving
(overrides, references) on access, so that thousands of definitions list at once.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any

from reeltune._text import shortened
from reeltune.definitions import lineage
from reeltune.definitions.entries import Entry, first_entry
from reeltune.definitions.folders import look_through
from reeltune.definitions.model import Definition, Version
from reeltune.definitions.namesakes import Namesakes
from reeltune.definitions.nearest import did_you_mean
from reeltune.definitions.offered import offered_resolutions
from reeltune.definitions.references import References
from reeltune.definitions.schema import DefinitionFile, read_definition
from reeltune.definitions.section import ModelSection
from reeltune.definitions.slots import TRANSFORMER, TRANSFORMER_2, Slot
from reeltune.definitions.support import not_done, reasons_against, unloadable_by_name
from reeltune.errors import (
    DefinitionError,
    DefinitionInvalid,
    DefinitionNotFound,
    DefinitionReference,
    DefinitionSyntaxError,
    Problem,
    UnknownArchitecture,
)
from reeltune.files import expand, working_folder

ROOT_VARIABLE = "REELTUNE_ROOT"
_MOST_NAME = 200  # characters of a name in a list
UNKNOWN_ARCHITECTURE = "an architecture this program doesn't have"


@dataclass(frozen=True)
class Summary:
    """What a list shows of a definition, as far as definitions alone say: files on disk are not looked at.

    `reason`: why it isn't runnable; `cause`: the same where many share it, without the details. `visible`: whether
    lists show it.
    """

    id: str
    name: str
    architecture: str
    kind: str
    runnable: bool
    reason: str
    cause: str = ""
    visible: bool = True


def resolve_root(root: str | os.PathLike[str] | None = None) -> Path:
    """The working folder: given, else `$REELTUNE_ROOT`, else the current folder. Absolute, `~` expanded.

    It need not exist yet. Raises FileError where it can't be a folder.
    """
    chosen = root if root is not None else os.environ.get(ROOT_VARIABLE) or "."
    return working_folder(expand(chosen))


def load_catalog(root: str | os.PathLike[str] | None = None) -> Catalog:
    """Read the built-in definitions and `<root>/finetunes/*.json`. Broken files land in `catalog.broken`."""
    return Catalog(resolve_root(root))


class Catalog(Mapping[str, Definition]):
    """Definitions by id. Access raises DefinitionNotFound, or DefinitionError for one that can't be resolved.

    `broken`: files that are set aside, and why; `unread`: files that lie where they aren't read. Two catalogs are
    equal only if they are the same object. `read`: how a file is read.
    """

    def __init__(self, root: Path, read: Callable[[Path], DefinitionFile] = read_definition) -> None:
        self.root = root
        self.broken: dict[Path, DefinitionError] = {}
        self.unread: list[Problem] = []
        self._entries: dict[str, Entry] = {}
        self._forget()
        data = Path(str(resources.files("reeltune.definitions"))) / "data"
        for folder, kind in ((data / "base", "base"), (data / "finetunes", "finetune")):
            self._read_folder(folder, kind, read)
        self._read_folder(root / "finetunes", "finetune", read)

    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other  # a Mapping would compare all values, and resolving one may raise

    def _forget(self) -> None:
        self._resolved: dict[str, Definition] = {}
        self._references = References(self._entries)
        self._namesakes = Namesakes(self)

    def _read_folder(self, path: Path, kind: str, read: Callable[[Path], DefinitionFile]) -> None:
        folder = look_through(path)
        self.broken.update(folder.broken)
        self.unread += folder.problems
        for file in folder.files:
            try:
                self._add(read(file), kind)
            except DefinitionError as error:
                self.broken[file] = error

    def _add(self, file: DefinitionFile, kind: str) -> None:
        below = self._entries.get(file.id)
        self._entries[file.id] = below.with_file(file) if below else first_entry(file, kind)

    def with_file(self, file: DefinitionFile) -> Catalog:
        """A catalog with one more file on top, for checking it. Raises DefinitionInvalid where it is incomplete."""
        catalog = Catalog.__new__(Catalog)
        catalog.root, catalog.broken, catalog.unread = self.root, self.broken, self.unread
        catalog._entries = dict(self._entries)
        catalog._forget()
        entry = self._entries.get(file.id)
        if entry is not None and file.path.resolve() in [path.resolve() for path in entry.files]:
            return catalog  # it is part of this catalog already
        catalog._add(file, "finetune")
        return catalog

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, id: object) -> bool:
        return isinstance(id, str) and id in self._entries

    def __getitem__(self, id: str) -> Definition:
        if id not in self._resolved:
            self._resolved[id] = self._resolve(self._entry(id))
        return self._resolved[id]

    def get(self, id: object, default: Any = None) -> Any:
        """The definition, or `default` where there is none of that id. Raises as access does where it is broken."""
        return self[id] if isinstance(id, str) and id in self else default

    def files_of(self, id: str) -> tuple[Path, ...]:
        """The files a definition is read from, whether it can be resolved or not."""
        return self._entry(id).files

    def section(self, id: str) -> ModelSection:
        """The `model` object of a definition, its files merged; references in it are not followed."""
        return self._entry(id).model

    def loras(self, id: str) -> tuple[Version, ...]:
        """The LoRAs a definition lists, itself or by reference. Raises DefinitionError."""
        return self._references.urls(self._entry(id).id, "loras")

    def summaries(self) -> list[Summary]:
        """One row for each definition; those that can't be resolved are among them, with the reason."""
        return [self._summary(entry) for entry in self._entries.values()]

    def _summary(self, entry: Entry) -> Summary:
        try:
            definition = self[entry.id]
        except DefinitionError as error:
            architecture, reason, cause = entry.model.architecture or "", str(error), str(error)
            if isinstance(error, UnknownArchitecture):
                reason = f"{error.architecture!r} is {UNKNOWN_ARCHITECTURE}"
                cause = UNKNOWN_ARCHITECTURE
                if error.meant:
                    reason = cause = f"{reason}; did you mean {error.meant!r}?"
        else:
            architecture, reason = definition.architecture.id, definition.reason
            reason = cause = reason or unloadable_by_name(definition.slots)
        name, visible = shortened(entry.model.name or entry.id, _MOST_NAME), entry.model.visible is not False
        return Summary(entry.id, name, architecture, entry.kind, not reason, reason, cause, visible)

    def _entry(self, id: str) -> Entry:
        if id in self:
            return self._entries[id]
        for path, error in self.broken.items():
            if path.stem == id:
                raise error
        near = did_you_mean(id, self._entries) if isinstance(id, str) else ""
        raise DefinitionNotFound(f"There is no definition {id!r}.", hint=near or "`reeltune list` shows all.")

    def _resolve(self, entry: Entry) -> Definition:
        model = entry.model
        architecture = lineage.architecture_of(entry, self._entries)
        slots = self._slots(entry)
        if TRANSFORMER_2 in slots and "guidance_phases" not in architecture.defaults:
            architecture = lineage.two_transformers(architecture)
        if model.fps and model.fps != architecture.frame_rate:
            architecture = replace(architecture, fps=model.fps)
        settings = {**lineage.inherited_settings(entry, self._entries), **entry.settings}
        loras = self._references.urls(entry.id, "loras")
        resolutions, odd = offered_resolutions(model.resolutions, str(entry.files[-1]))
        return Definition(
            id=entry.id,
            name=model.name or entry.id,
            description=model.description or "",
            kind=entry.kind,
            architecture=architecture,
            slots=MappingProxyType(slots),
            preload=self._references.urls(entry.id, "preload_URLs"),
            auto_quantize=bool(model.auto_quantize),
            components=lineage.inherited_components(entry, self._entries) or architecture.components_repo,
            sha256=MappingProxyType(dict(model.sha256 or {})),
            settings=MappingProxyType(settings),
            asks=reasons_against(model, architecture, slots, settings, loras),
            files=entry.files,
            notices=(*entry.notices, *odd, *not_done(model, str(entry.files[-1]))),
            root=self.root,
            namesakes=lambda version: self._namesakes.of(version),
            visible=model.visible is not False,
            resolutions=resolutions,
        )

    def _slots(self, entry: Entry) -> dict[Slot, tuple[Version, ...]]:
        """Versions by slot, in the order of the file. Raises DefinitionReference where there are no weights."""
        slots = {TRANSFORMER: self._references.urls(entry.id, "URLs")}
        if second := self._references.urls(entry.id, "URLs2"):
            slots[TRANSFORMER_2] = second
        for index, urls in enumerate(self._references.modules(entry.id)):
            slots[Slot.module(index)] = urls
        empty = next((slot for slot, versions in slots.items() if not versions), None)
        if empty is not None:
            key = empty if empty.is_module else empty.key
            problem = Problem(str(entry.files[-1]), f"model.{key}", "It lists no weights.", "List at least one URL.")
            raise DefinitionReference(problem)
        return slots

    def problems(self) -> list[Problem]:
        """Everything wrong or odd in all files, for `check` and for a line under lists."""
        found = list(self.unread)
        for path, error in self.broken.items():
            found += problems_of(error, path)
        for id in self:
            try:
                found += self[id].notices
            except DefinitionError as error:
                found += problems_of(error, self._entries[id].files[-1])
        return found


def problems_of(error: DefinitionError, path: Path) -> list[Problem]:
    """The problems a definition error carries."""
    if isinstance(error, DefinitionInvalid):
        return list(error.problems)
    if isinstance(error, DefinitionSyntaxError | DefinitionReference):
        return [error.problem]
    return [Problem(str(path), "", error.message.removeprefix(f"{path}: "), error.hint)]
