"""All definitions: the built-in base models and finetunes, and the user's, which override them key by key.

    catalog = load_catalog("~/videos")
    catalog["t2v"].name
    list(catalog)
    catalog.broken

A broken file is reported in `catalog.broken`, and the others are loaded. Files are parsed when the catalog is loaded;
overrides and references are resolved on access, so that thousands of definitions can be listed quickly.
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
from reeltune.definitions.adapting import making_images, with_frame_rate, with_variants
from reeltune.definitions.configs import read_variants, with_variant
from reeltune.definitions.entries import Entry, new_entry
from reeltune.definitions.folders import scan_folder
from reeltune.definitions.locks import lock_beside, lock_path
from reeltune.definitions.lora_weights import lora_weights
from reeltune.definitions.ltx_config import SCALES_KEYS, with_own_second_pass, with_scales, with_second_pass
from reeltune.definitions.model import Definition, Version
from reeltune.definitions.namesakes import Namesakes
from reeltune.definitions.nearest import did_you_mean
from reeltune.definitions.offered import offered_resolutions
from reeltune.definitions.references import References
from reeltune.definitions.schema import DefinitionFile, read_definition
from reeltune.definitions.section import ModelSection
from reeltune.definitions.slots import REPLACEABLE, TRANSFORMER, TRANSFORMER_2, Slot
from reeltune.definitions.support import unloadable_reason, unsupported_features, unused_key_warnings
from reeltune.errors import (
    DefinitionError,
    DefinitionInvalid,
    DefinitionNotFound,
    DefinitionReference,
    DefinitionSyntaxError,
    LockError,
    Problem,
    UnknownArchitecture,
)
from reeltune.families import Architecture
from reeltune.files import expand, working_folder

ROOT_VARIABLE = "REELTUNE_ROOT"
_MEGABYTE = 10**6
_MAX_NAME = 200  # characters of a name in a list
UNKNOWN_ARCHITECTURE = "an architecture that reeltune doesn't support"


@dataclass(frozen=True)
class Summary:
    """What lists show about a definition, from the definition files alone: weight files are not read.

    `reason`: why it isn't runnable, empty if it is. `cause`: the reason without details, by which lists group
    definitions. `visible`: whether lists show it.
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
    """The absolute path of the working folder: `root`, else `$REELTUNE_ROOT`, else the current folder.

    `~` is expanded. The folder need not exist yet. Raises FileError if the path is not a folder.
    """
    chosen = root if root is not None else os.environ.get(ROOT_VARIABLE) or "."
    return working_folder(expand(chosen))


def load_catalog(root: str | os.PathLike[str] | None = None) -> Catalog:
    """Load the built-in definitions and `<root>/finetunes/*.json`. Broken files are reported in `catalog.broken`."""
    return Catalog(resolve_root(root))


class Catalog(Mapping[str, Definition]):
    """Definitions by id. Access raises DefinitionNotFound, or DefinitionError for one that can't be resolved.

    `broken`: files that can't be used, and the errors. `unread`: warnings about files in places that aren't read.
    `read`: the function that reads a definition file. Two catalogs are equal only if they are the same object.
    """

    def __init__(self, root: Path, read: Callable[[Path], DefinitionFile] = read_definition) -> None:
        self.root = root
        self.broken: dict[Path, DefinitionError] = {}
        self.unread: list[Problem] = []
        self._entries: dict[str, Entry] = {}
        self._reset()
        data = Path(str(resources.files("reeltune.definitions"))) / "data"
        for folder, kind in ((data / "base", "base"), (data / "finetunes", "finetune")):
            self._read_folder(folder, kind, read)
        self._read_folder(root / "finetunes", "finetune", read)

    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other  # the comparison of mappings would resolve all definitions, which may raise

    def _reset(self) -> None:
        self._resolved: dict[str, Definition] = {}
        self._variants: dict[tuple[str, str], Definition] = {}
        self._references = References(self._entries)
        self._namesakes = Namesakes(self)

    def _read_folder(self, path: Path, kind: str, read: Callable[[Path], DefinitionFile]) -> None:
        folder = scan_folder(path)
        self.broken.update(folder.broken)
        self.unread += folder.problems
        for file in folder.files:
            try:
                self._add(read(file), kind)
            except DefinitionError as error:
                self.broken[file] = error

    def _add(self, file: DefinitionFile, kind: str) -> None:
        overridden = self._entries.get(file.id)
        self._entries[file.id] = overridden.with_file(file) if overridden else new_entry(file, kind)

    def with_file(self, file: DefinitionFile) -> Catalog:
        """A copy of the catalog with one more file, for checking it. Raises DefinitionInvalid if it is incomplete."""
        catalog = self._copy()
        entry = self._entries.get(file.id)
        if entry is not None and file.path.resolve() in [path.resolve() for path in entry.files]:
            return catalog  # the file is part of the catalog already
        catalog._add(file, "finetune")
        return catalog

    def _copy(self) -> Catalog:
        catalog = Catalog.__new__(Catalog)
        catalog.root = self.root
        catalog.broken = self.broken
        catalog.unread = self.unread
        catalog._entries = dict(self._entries)
        catalog._reset()
        return catalog

    def _variant(self, id: str, config: str) -> Definition:
        """A variant of a definition; the definition itself for an empty id. Raises DefinitionError."""
        definition = self[id]
        variant = definition.variants.find(config) if definition.variants is not None else None
        if variant is None:
            return definition
        if (id, config) not in self._variants:
            catalog = self._copy()
            catalog._entries[id] = with_variant(self._entries[id], variant)
            changed = replace(
                catalog[id],
                config=config,
                variants=definition.variants,
                variant_by_id=definition.variant_by_id,
                notices=definition.notices,
            )
            self._variants[id, config] = changed
        return self._variants[id, config]

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
        """The definition, or `default` if the id doesn't exist. Raises DefinitionError if it can't be resolved."""
        return self[id] if isinstance(id, str) and id in self else default

    def files_of(self, id: str) -> tuple[Path, ...]:
        """The files that a definition is read from, even if it can't be resolved."""
        return self._entry(id).files

    def section(self, id: str) -> ModelSection:
        """The `model` object of a definition, merged from its files, with unresolved references."""
        return self._entry(id).model

    def summaries(self) -> list[Summary]:
        """A summary of each definition, including those that can't be resolved."""
        return [self._summary(entry) for entry in self._entries.values()]

    def _summary(self, entry: Entry) -> Summary:
        try:
            definition = self[entry.id]
        except DefinitionError as error:
            architecture = entry.model.architecture or ""
            reason, cause = _reason_and_cause(error)
        else:
            architecture = definition.architecture.id
            reason = definition.reason or unloadable_reason(definition.all_versions)
            cause = reason
        return Summary(
            id=entry.id,
            name=shortened(entry.model.name or entry.id, _MAX_NAME),
            architecture=architecture,
            kind=entry.kind,
            runnable=not reason,
            reason=reason,
            cause=cause,
            visible=entry.model.visible is not False,
        )

    def _entry(self, id: str) -> Entry:
        if id in self:
            return self._entries[id]
        for path, error in self.broken.items():
            if path.stem == id:
                raise error
        suggestion = did_you_mean(id, self._entries) if isinstance(id, str) else ""
        raise DefinitionNotFound(f"No definition {id!r} found.", hint=suggestion or "`reeltune list` shows all.")

    def _resolve(self, entry: Entry) -> Definition:
        model = entry.model
        architecture = lineage.architecture_of(entry, self._entries)
        slots = self._slots(entry)
        replaced = self._replaced_components(entry)
        if TRANSFORMER_2 in slots and not architecture.two_models:
            architecture = lineage.two_transformers(architecture)
        file = str(entry.files[-1])
        architecture, ltx_warnings = self._adapted(entry, architecture, slots, file)
        variants, variant_warnings = read_variants(entry, self._entries)
        if variants is not None:
            architecture = with_variants(architecture)
        settings = {**lineage.inherited_settings(entry, self._entries), **entry.settings}
        resolutions, resolution_warnings = offered_resolutions(model.resolutions, file)
        loras = self._references.urls(entry.id, "loras")
        architecture = with_own_second_pass(architecture, loras)
        weights, weight_warnings = lora_weights(entry, self._entries, len(loras))
        preload = self._references.urls(entry.id, "preload_URLs")
        if architecture.mode_loras and not preload:  # no mode works without its LoRA
            preload = self._references.urls(architecture.id, "preload_URLs")
        locked, lock_problems = self._locked_sha256(entry)
        warnings = (*ltx_warnings, *resolution_warnings, *weight_warnings, *variant_warnings, *lock_problems)
        return Definition(
            id=entry.id,
            name=model.name or entry.id,
            description=model.description or "",
            kind=entry.kind,
            architecture=architecture,
            slots=MappingProxyType(slots),
            preload=preload,
            loras=with_second_pass(loras, architecture),
            lora_multipliers=weights,
            auto_quantize=bool(model.auto_quantize),
            components=lineage.inherited_components(entry, self._entries) or architecture.components_repo,
            sha256=MappingProxyType({**(model.sha256 or {}), **locked}),
            settings=MappingProxyType(settings),
            unsupported=unsupported_features(model, architecture, {**slots, **replaced}, settings),
            files=entry.files,
            notices=(*entry.notices, *warnings, *unused_key_warnings(model, file)),
            root=self.root,
            namesakes=lambda version: self._namesakes.of(version),
            visible=model.visible is not False,
            resolutions=resolutions,
            profile_folders=lineage.profile_folders(entry, self._entries, architecture),
            preload_bytes=_MEGABYTE * (model.preload_in_VRAM or 0),
            variants=variants,
            variant_by_id=lambda config: self._variant(entry.id, config),
            component_versions=MappingProxyType(replaced),
            text_encoder_folder=lineage.inherited_value(entry, self._entries, "text_encoder_folder") or "",
        )

    def _adapted(
        self, entry: Entry, architecture: Architecture, slots: Mapping[Slot, tuple[Version, ...]], file: str
    ) -> tuple[Architecture, list[Problem]]:
        """The architecture with what the definition or its base model changes about it, and warnings."""
        named = {key: lineage.inherited_value(entry, self._entries, key) for key in SCALES_KEYS}
        urls = [version.url for version in slots[TRANSFORMER]]
        architecture, warnings = with_scales(architecture, entry.model, named, urls, file)
        architecture = with_frame_rate(architecture, lineage.inherited_value(entry, self._entries, "fps"))
        return (making_images(architecture) if entry.model.image_outputs else architecture), warnings

    def _locked_sha256(self, entry: Entry) -> tuple[dict[str, str], list[Problem]]:
        """The sha256 in the lock of the user's file, by URL or path, and a problem if the lock can't be read."""
        own_file = next((path for path in entry.files if path.parent == self.root / "finetunes"), None)
        try:
            lock = lock_beside(own_file)
        except LockError as error:
            assert own_file is not None
            return {}, [Problem(str(lock_path(own_file)), "", error.message, error.hint)]
        return ({} if lock is None else lock.sha256_by_source), []

    def _slots(self, entry: Entry) -> dict[Slot, tuple[Version, ...]]:
        """Versions by slot, in the order of the file. Raises DefinitionReference for a slot without versions."""
        slots = {TRANSFORMER: self._references.urls(entry.id, "URLs")}
        second_transformer = self._references.urls(entry.id, "URLs2")
        if second_transformer:
            slots[TRANSFORMER_2] = second_transformer
        for index, urls in enumerate(self._references.modules(entry.id)):
            slots[Slot.module(index)] = urls
        for slot, versions in slots.items():
            if not versions:
                key = slot if slot.is_module else slot.key
                problem = Problem(str(entry.files[-1]), f"model.{key}", "The list is empty.", "List at least one URL.")
                raise DefinitionReference(problem)
        return slots

    def _replaced_components(self, entry: Entry) -> dict[Slot, tuple[Version, ...]]:
        """Versions of components that replace the architecture's: its own, or those of its nearest base model."""
        replaced: dict[Slot, tuple[Version, ...]] = {}
        for base in lineage.bases(entry, self._entries):
            for slot in REPLACEABLE:
                versions = self._references.urls(base.id, slot.key)
                if versions:
                    replaced.setdefault(slot, versions)
        return replaced

    def problems(self) -> list[Problem]:
        """All errors and warnings of all files."""
        problems = list(self.unread)
        for path, error in self.broken.items():
            problems += problems_of(error, path)
        for id in self:
            try:
                problems += self[id].notices
            except DefinitionError as error:
                problems += problems_of(error, self._entries[id].files[-1])
        return list(dict.fromkeys(problems))  # a warning about a list is one of each definition that refers to it


def _reason_and_cause(error: DefinitionError) -> tuple[str, str]:
    """Why a definition that can't be resolved isn't runnable, with details and without."""
    if not isinstance(error, UnknownArchitecture):
        return str(error), str(error)
    reason = f"{error.architecture!r} is {UNKNOWN_ARCHITECTURE}"
    if error.meant:
        reason = f"{reason}; did you mean {error.meant!r}?"
        return reason, reason
    return reason, UNKNOWN_ARCHITECTURE


def problems_of(error: DefinitionError, path: Path) -> list[Problem]:
    """The problems in a definition error."""
    if isinstance(error, DefinitionInvalid):
        return list(error.problems)
    if isinstance(error, DefinitionSyntaxError | DefinitionReference):
        return [error.problem]
    return [Problem(str(path), "", error.message.removeprefix(f"{path}: "), error.hint)]
