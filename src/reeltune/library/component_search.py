"""Component files of other programs, wherever they are in the folders: found by published names, then by headers."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Protocol

from reeltune.checkpoints.components import ComponentMatch
from reeltune.checkpoints.formats import format_of, loadable_endings
from reeltune.dtypes import Quantization
from reeltune.errors import CheckpointError
from reeltune.families import ARCHITECTURES, Component, ComponentPart
from reeltune.families.components import KINDS
from reeltune.files import is_folder
from reeltune.library.component_folders import component_files, has_tokenizer
from reeltune.library.folders import FolderFiles
from reeltune.library.header_cache import HeaderCache, HeaderFacts
from reeltune.library.index import fold
from reeltune.library.on_disk import FileOnDisk, UnusableFile

_SUFFIXES = loadable_endings()
_MAX_HEADERS = 20_000
_MAX_SECONDS = 20.0
_VOCABULARIES = ("tokenizer.json", "vocab.json")


class Searched(Protocol):
    """The folders that are searched: an inventory."""

    root: Path
    folders: tuple[Path, ...]
    comfyui_sources: tuple[Path, ...]

    @property
    def files(self) -> FolderFiles:
        """All files in the folders."""

    def read_checkpoint(self, path: Path) -> FileOnDisk:
        """A checkpoint with its identity. Raises CheckpointError, OSError."""

    def component(self, repository: str, name: str) -> Path | None:
        """The folder of a component in diffusers layout; None if it isn't on disk."""


@dataclass(frozen=True)
class ComponentOnDisk:
    """A component that can be used where it is.

    `path`: a file, or a folder in diffusers layout. `more`: other files that it is assembled from. `files`: what is
    known of each file; empty for a folder. `published`: whether all files have published names. `size`: the size that
    the transformer depends on, if it is known.
    """

    path: Path
    more: tuple[Path, ...] = ()
    files: tuple[FileOnDisk, ...] = ()
    published: bool = True
    size: int | None = None

    @property
    def quantization(self) -> Quantization:
        """How its weights are stored; those of the first file count."""
        identity = self.files[0].identity if self.files else None
        return identity.quantization if identity else Quantization.NONE


@dataclass
class _Search:
    """Files of one kind: usable ones with their match, and why others can't be used."""

    usable: list[tuple[FileOnDisk, ComponentMatch]] = field(default_factory=list)
    unusable: list[UnusableFile] = field(default_factory=list)


class ComponentSearch:
    """Searches the folders of an inventory for components. Headers are read when they are needed, and once."""

    def __init__(self, inventory: Searched) -> None:
        self._inventory = inventory
        self._cache = HeaderCache(inventory.root / "ckpts")
        self._published: dict[tuple[str, tuple[str, ...]], _Search] = {}
        self.notices: list[str] = []

    def candidates(self, component: Component, repository: str) -> tuple[list[ComponentOnDisk], list[UnusableFile]]:
        """The places where a component of a published repository is on disk, the first one by default.

        Files without a published name are searched for only if there is no other. The unusable files are those with a
        published name.
        """
        places = list(self._folders(component, repository))
        unusable: list[UnusableFile] = []
        if component.kind:
            places += self._files(component, unusable, by_header=False)
            if not places and not component.published:
                places += self._files(component, unusable, by_header=True)
        return places, unusable

    # --- folders --------------------------------------------------------------------------------------------

    def _folders(self, component: Component, repository: str) -> Iterator[ComponentOnDisk]:
        """Folders in diffusers layout, and folders of other programs with the component's files."""
        for name in _same_repositories(component, repository):
            path = self._inventory.component(name, component.name)
            if path is not None:
                yield ComponentOnDisk(path)
        for path in self._other_folders(component):
            yield ComponentOnDisk(path)

    def _other_folders(self, component: Component) -> Iterator[Path]:
        for name in component.folders:
            tops = (*self._inventory.folders, *self._inventory.comfyui_sources)
            direct = [top / name for top in tops]
            deeper = [
                path.parent for path in self._files_named(_VOCABULARIES) if path.parent.as_posix().endswith(f"/{name}")
            ]
            for folder in dict.fromkeys((*direct, *deeper)):
                if self._has_files(folder, component):
                    yield folder

    def _files_named(self, names: Iterable[str]) -> list[Path]:
        return [path for name in names for path in self._inventory.files.by_name.get(name, [])]

    def _has_files(self, folder: Path, component: Component) -> bool:
        """Whether a folder has everything that a component needs, undamaged."""
        if not is_folder(folder):
            return False
        if not component.is_model:
            return has_tokenizer(folder)
        weights = [file for file in component_files(folder, component) if file.name.endswith(_SUFFIXES)]
        if not weights or not (folder / "config.json").is_file():
            return False
        return all(isinstance(self._read(file), FileOnDisk) for file in weights)

    # --- files ----------------------------------------------------------------------------------------------

    def _files(
        self, component: Component, unusable: list[UnusableFile], *, by_header: bool
    ) -> Iterator[ComponentOnDisk]:
        """The component in single files, or assembled from several."""
        for file, match in self._of_kind(component, unusable, by_header=by_header):
            yield ComponentOnDisk(file.path, (), (file,), not by_header, match.size)
        if not component.assembled:
            return
        parts = [self._of_kind(part, unusable, by_header=by_header) for part in component.assembled]
        if not all(parts):
            return
        others = [found[0] for found in parts[1:]]
        for file, match in parts[0]:
            if any(other.size != match.size for _, other in others):
                continue  # the vision model is made for a language model of another size
            files = (file, *(other for other, _ in others))
            yield ComponentOnDisk(file.path, tuple(other.path for other, _ in others), files, not by_header, match.size)

    def _of_kind(
        self, part: Component | ComponentPart, unusable: list[UnusableFile], *, by_header: bool
    ) -> list[tuple[FileOnDisk, ComponentMatch]]:
        """The usable files of a kind: those with published names, or those of the published sizes under any name."""
        kind = part.kind
        if not by_header:
            search = self._with_published_names(kind, part.published or KINDS[kind].files)
            unusable += [file for file in search.unusable if file not in unusable]
            return search.usable
        found = []
        for path, facts in self.all_facts.items():
            match = _match_of(facts, kind)
            if match is None or not match.is_published or _objection(facts):
                continue
            file = self._read(path)
            if isinstance(file, FileOnDisk):
                found.append((file, match))
        return found

    def _with_published_names(self, kind: str, names: tuple[str, ...]) -> _Search:
        key = kind, names
        if key not in self._published:
            search = _Search()
            for path in self._paths_named(names):
                self._add(path, kind, search)
            self._published[key] = search
        return self._published[key]

    def _paths_named(self, names: Sequence[str]) -> list[Path]:
        """The files with one of the names, in the order of the names; a name may begin with its folder."""
        paths: list[Path] = []
        for name in names:
            base = name.rpartition("/")[2]
            for path in self._by_folded_name.get(fold(base), []):
                if "/" not in name or fold(path.as_posix()).endswith(f"/{fold(name)}"):
                    paths.append(path)
        return list(dict.fromkeys(paths))

    @cached_property
    def _by_folded_name(self) -> dict[str, list[Path]]:
        by_name: dict[str, list[Path]] = {}
        for name, paths in self._inventory.files.by_name.items():
            by_name.setdefault(fold(name), []).extend(paths)
        return by_name

    def _add(self, path: Path, kind: str, search: _Search) -> None:
        """Add a file with a published name. Its name decides that it is the component, its header whether it is."""
        file = self._read(path)
        if isinstance(file, UnusableFile):
            search.unusable.append(file)
            return
        facts = HeaderFacts(file.identity)
        match = _match_of(facts, kind)
        reason = _objection(facts)
        if match is None:
            if file.identity is not None and not file.identity.components and file.identity.family is None:
                search.unusable.append(UnusableFile(path, f"its header is not that of the {KINDS[kind].label}"))
        elif reason:
            search.unusable.append(UnusableFile(path, reason))
        else:
            search.usable.append((file, match))

    def _read(self, path: Path) -> FileOnDisk | UnusableFile:
        try:
            return self._inventory.read_checkpoint(path)
        except CheckpointError as error:
            return UnusableFile(path, str(error))
        except OSError as error:
            return UnusableFile(path, f"it can't be read: {error.strerror or error}")

    # --- all headers ----------------------------------------------------------------------------------------

    @cached_property
    def all_facts(self) -> dict[Path, HeaderFacts]:
        """What is known of every checkpoint in the folders, in their order.

        The number of headers and the time are limited; a notice tells what was left out.
        """
        facts: dict[Path, HeaderFacts] = {}
        paths = [path for paths in self._inventory.files.by_name.values() for path in paths]
        paths = [path for path in paths if path.name.lower().endswith(_SUFFIXES)]
        rank = {folder: index for index, folder in enumerate(self._inventory.folders)}
        paths.sort(key=lambda path: (_rank_of(path, rank), path))
        end = time.monotonic() + _MAX_SECONDS
        for path in paths[:_MAX_HEADERS]:
            if time.monotonic() > end:
                break
            known = self._facts(path)
            if known is not None:
                facts[path] = known
        self._cache.save()
        left_out = len(paths) - len(facts)
        if len(paths) > _MAX_HEADERS or time.monotonic() > end:
            self.notices.append(
                f"{left_out:,} of {len(paths):,} files in the model folders were not searched for components, because "
                "reading their headers took too long; the next search continues."
            )
        return facts

    def _facts(self, path: Path) -> HeaderFacts | None:
        """The facts about a file, from the cache if it hasn't changed; None if it disappeared."""
        try:
            status = path.stat()
        except OSError:
            return None
        facts = self._cache.get(path, status)
        if facts is None:
            file = self._read(path)
            facts = HeaderFacts(None, file.reason) if isinstance(file, UnusableFile) else HeaderFacts(file.identity)
            self._cache.put(path, status, facts)
        return facts


def _same_repositories(component: Component, repository: str) -> list[str]:
    """The repositories with the same component: its own first, then those of other architectures."""
    names = [repository]
    if component.kind:
        for architecture in ARCHITECTURES.values():
            if any(replace(part, feeds=component.feeds) == component for part in architecture.parts):
                names.append(architecture.components_repo)
    return list(dict.fromkeys(names))


def _match_of(facts: HeaderFacts, kind: str) -> ComponentMatch | None:
    if facts.identity is None:
        return None
    return next((match for match in facts.identity.components if match.kind == kind), None)


def _objection(facts: HeaderFacts) -> str:
    """Why a file's weights can't be loaded; empty if they can."""
    if facts.identity is None:
        return facts.error
    return format_of(facts.identity.quantization).reason_not_loadable or facts.identity.objection


def _rank_of(path: Path, ranks: dict[Path, int]) -> int:
    return min((rank for folder, rank in ranks.items() if path.is_relative_to(folder)), default=len(ranks))
