"""All definitions: built-in base models and finetunes, and the user's, which override them key by key.

    catalog = load_catalog("~/videos")
    catalog["t2v"].name; list(catalog); catalog.broken

A broken file is set aside with its problems and never stops the rest. Parsing happens on loading, resolving
(overrides, references) on access, so that thousands of definitions list at once.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn

from reeltune.definitions.model import Definition, Version
from reeltune.definitions.namesakes import Namesakes
from reeltune.definitions.schema import DefinitionFile, ModelSection, nearest, read_definition
from reeltune.errors import (
    DefinitionError,
    DefinitionInvalid,
    DefinitionNotFound,
    DefinitionReference,
    DefinitionSyntaxError,
    Problem,
)
from reeltune.families import ARCHITECTURES, Architecture
from reeltune.files import expand, working_folder

ROOT_VARIABLE = "REELTUNE_ROOT"


@dataclass(frozen=True)
class Summary:
    """What a list shows of a definition, without resolving what it refers to."""

    id: str
    name: str
    architecture: str
    kind: str
    runnable: bool
    reason: str


@dataclass(frozen=True)
class _Entry:
    """A definition before references are resolved: all files merged key by key."""

    id: str
    kind: str
    model: ModelSection
    settings: Mapping[str, Any]
    files: tuple[Path, ...]
    notices: tuple[Problem, ...]


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
    """Definitions by id. Access raises DefinitionNotFound, or DefinitionError for one that can't be resolved."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.broken: dict[Path, DefinitionError] = {}
        self._entries: dict[str, _Entry] = {}
        self._resolved: dict[str, Definition] = {}
        data = Path(str(resources.files("reeltune.definitions"))) / "data"
        for folder, kind in ((data / "base", "base"), (data / "finetunes", "finetune")):
            self._read_folder(folder, kind)
        self._read_folder(root / "finetunes", "finetune")

    def _read_folder(self, folder: Path, kind: str) -> None:
        try:
            names = sorted(entry.name for entry in os.scandir(folder) if entry.name.endswith(".json"))
        except OSError as error:
            if folder.is_symlink() or not isinstance(error, FileNotFoundError):  # else nobody put definitions there
                self.broken[folder] = DefinitionError(f"{folder} can't be read: {error.strerror or error}.")
            return
        for name in names:
            path = folder / name
            try:
                self._add(read_definition(path), kind)
            except DefinitionError as error:
                self.broken[path] = error

    def _add(self, file: DefinitionFile, kind: str) -> None:
        below = self._entries.get(file.id)
        if below is None:
            _refuse_incomplete(file)
            entry = _Entry(file.id, kind, file.model, file.settings, (file.path,), file.notices)
        else:
            given = file.model.model_dump(exclude_unset=True, exclude_none=True)
            entry = _Entry(
                id=file.id,
                kind=below.kind,
                model=below.model.model_copy(update=given),
                settings={**below.settings, **file.settings},
                files=(*below.files, file.path),
                notices=(*below.notices, *file.notices),
            )
        self._entries[file.id] = entry

    def with_file(self, file: DefinitionFile) -> Catalog:
        """A catalog with one more file on top, for checking it. Raises DefinitionInvalid where it is incomplete."""
        catalog = Catalog.__new__(Catalog)
        catalog.root, catalog.broken, catalog._resolved = self.root, self.broken, {}
        catalog._entries = dict(self._entries)
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
        return id in self._entries

    def __getitem__(self, id: str) -> Definition:
        if id not in self._resolved:
            self._resolved[id] = self._resolve(self._entry(id))
        return self._resolved[id]

    def files_of(self, id: str) -> tuple[Path, ...]:
        """The files a definition is read from, whether it can be resolved or not."""
        return self._entry(id).files

    def summaries(self) -> list[Summary]:
        """One row for each definition, cheap: no reference is followed but the architecture's."""
        return [self._summary(entry) for entry in self._entries.values()]

    def _summary(self, entry: _Entry) -> Summary:
        name = entry.model.name or entry.id
        try:
            architecture = self._architecture(entry)
        except DefinitionError as error:
            return Summary(entry.id, name, entry.model.architecture or "", entry.kind, False, str(error))
        try:
            self._urls(entry.id, "URLs"), self._urls(entry.id, "URLs2"), self._modules(entry.id)
        except DefinitionError as error:
            return Summary(entry.id, name, architecture.id, entry.kind, False, str(error))
        asks = _asks(entry.model, architecture)
        reason = architecture.unsupported
        reason = reason or "; ".join(asks)
        return Summary(entry.id, name, architecture.id, entry.kind, not reason, reason)

    def _entry(self, id: str) -> _Entry:
        if id in self._entries:
            return self._entries[id]
        for path, error in self.broken.items():
            if path.stem == id:
                raise error
        near = nearest(id, frozenset(self._entries))
        raise DefinitionNotFound(f"There is no definition {id!r}.", hint=near or "`reeltune list` shows all.")

    def _resolve(self, entry: _Entry) -> Definition:
        model = entry.model
        architecture = self._architecture(entry)
        slots: dict[str, tuple[Version, ...]] = {"transformer": self._urls(entry.id, "URLs")}
        if second := self._urls(entry.id, "URLs2"):
            slots["transformer_2"] = second
        for index, urls in enumerate(self._modules(entry.id)):
            slots[f"modules[{index}]"] = urls
        if not slots["transformer"]:
            self._fail(entry, "URLs", "It lists no weights.", 'Add "URLs": ["https://…"].')
        return Definition(
            id=entry.id,
            name=model.name or entry.id,
            description=model.description or "",
            kind=entry.kind,
            architecture=architecture,
            slots=MappingProxyType(slots),
            preload=self._urls(entry.id, "preload_URLs"),
            auto_quantize=bool(model.auto_quantize),
            components=model.components or self._components(entry, architecture),
            sha256=MappingProxyType(dict(model.sha256 or {})),
            settings=MappingProxyType({**self._inherited(entry), **entry.settings}),
            asks=_asks(model, architecture),
            files=entry.files,
            notices=entry.notices,
            root=self.root,
            namesakes=lambda version: self._namesakes.of(version),
        )

    @cached_property
    def _namesakes(self) -> Namesakes:
        return Namesakes(self)

    def _architecture(self, entry: _Entry, seen: tuple[str, ...] = ()) -> Architecture:
        name = entry.model.architecture or ""
        if name in ARCHITECTURES:
            return ARCHITECTURES[name]
        base = self._entries.get(name)
        if base is None or base.kind != "base":
            known = frozenset(ARCHITECTURES) | {id for id, row in self._entries.items() if row.kind == "base"}
            fix = nearest(name, known) or f"Known: {', '.join(sorted(known))}."
            self._fail(entry, "architecture", f"{name!r} is no architecture or base model.", fix)
        if entry.id in seen:
            self._fail(entry, "architecture", f"It leads back to itself: {' -> '.join((*seen, entry.id))}.", "")
        return self._architecture(base, (*seen, entry.id))

    def _base(self, entry: _Entry) -> _Entry | None:
        """The base model whose settings and components an entry inherits."""
        base = self._entries.get(entry.model.architecture or "")
        return base if base is not None and base.kind == "base" and base.id != entry.id else None

    def _inherited(self, entry: _Entry, seen: tuple[str, ...] = ()) -> dict[str, Any]:
        base = self._base(entry)
        if base is None or base.id in seen:  # built-in architectures may be overridden to name each other
            return {}
        return {**self._inherited(base, (*seen, entry.id)), **base.settings}

    def _components(self, entry: _Entry, architecture: Architecture) -> str:
        base = self._base(entry)
        return (base.model.components if base else None) or architecture.components_repo

    def _urls(self, id: str, key: str, seen: tuple[str, ...] = ()) -> tuple[Version, ...]:
        """The list under `key`, following a reference to another definition's list under the same key."""
        entry = self._entry(id)
        value = getattr(entry.model, key)
        if isinstance(value, str):
            return self._urls(self._referred(entry, key, value, seen), key, (*seen, id))
        return tuple(Version(url) for url in value or ())

    def _referred(self, entry: _Entry, key: str, id: str, seen: tuple[str, ...]) -> str:
        if id in (*seen, entry.id):
            circle = " -> ".join((*seen, entry.id, id))
            self._fail(entry, key, f"The references form a circle: {circle}.", "Give one of them a list of URLs.")
        if id not in self._entries:
            if "/" in id or "." in id.rpartition("/")[2]:
                fix = f'If it is a URL or a path, write a list: ["{id}"].'
            else:
                fix = nearest(id, frozenset(self._entries)) or "`reeltune list` shows all ids."
            self._fail(entry, key, f"It refers to the definition {id!r}, which doesn't exist or is broken.", fix)
        return id

    def _modules(self, id: str, seen: tuple[str, ...] = ()) -> list[tuple[Version, ...]]:
        entry = self._entry(id)
        value = entry.model.modules
        if isinstance(value, str):
            return self._modules(self._referred(entry, "modules", value, seen), (*seen, id))
        return [
            tuple(Version(url) for url in item) if isinstance(item, list) else self._module(entry, item, seen)
            for item in value or ()
        ]

    def _module(self, entry: _Entry, id: str, seen: tuple[str, ...]) -> tuple[Version, ...]:
        """The one list in the `modules` of the definition a module id names."""
        found = self._modules(self._referred(entry, "modules", id, seen), (*seen, entry.id))
        if len(found) != 1:
            message = f"{id!r} has {len(found)} modules, so it can't stand for one."
            self._fail(entry, "modules", message, "Name a definition with exactly one module, or list its URLs.")
        return found[0]

    def _fail(self, entry: _Entry, key: str, message: str, fix: str) -> NoReturn:
        problem = Problem(str(entry.files[-1]), f"model.{key}", message, fix)
        raise DefinitionReference(str(problem))

    def problems(self) -> list[Problem]:
        """Everything wrong or odd in all files, for `check` and for a line under lists."""
        found: list[Problem] = []
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
    if isinstance(error, DefinitionSyntaxError):
        return [error.problem]
    return [Problem(str(path), "", error.message.removeprefix(f"{path}: "), error.hint)]


def _refuse_incomplete(file: DefinitionFile) -> None:
    """A file that overrides nothing must say what it is and where its weights are."""
    missing = [key for key in ("architecture", "URLs") if not getattr(file.model, key)]
    if missing:
        raise DefinitionInvalid(
            [
                Problem(str(file.path), f"model.{key}", f"`{key}` is missing, and no built-in is called {file.id!r}.",
                        f'Add "{key}" to the `model` object.')
                for key in missing
            ]
        )  # fmt: skip


def _asks(model: ModelSection, architecture: Architecture) -> tuple[str, ...]:
    """What a definition asks for that would change its videos and is not done here."""
    extra = model.model_extra or {}
    asks = []
    if model.loras:
        asks.append("it applies LoRAs, which are not supported yet")
    if model.URLs2 and "guidance_phases" not in architecture.defaults:
        asks.append(f"it has a second transformer (URLs2), which {architecture.id} does not use")
    if model.modules and not any("vace" in name for name in architecture.signature.has):
        asks.append(f"it merges modules, which {architecture.id} does not take")
    asks += [f"it replaces components by {key}, which is not supported yet"
             for key in ("text_encoder_URLs", "VAE_URLs") if extra.get(key)]  # fmt: skip
    return tuple(asks)
