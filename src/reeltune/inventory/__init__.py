"""What is on disk: weight files by base name, component folders by path.

Looked through in order: `<root>/ckpts` (any depth), the user's read-only model folders, the package's own data.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path

from reeltune.checkpoints.header import read_header
from reeltune.checkpoints.identify import Identity, identify
from reeltune.checkpoints.names import QUANTO_INT8, read_name
from reeltune.definitions.model import Version
from reeltune.errors import CheckpointError
from reeltune.families import Component
from reeltune.files import expand
from reeltune.inventory.index import Index

PARTIAL = ".partial"
CHECKPOINT_SUFFIXES = (".safetensors", ".sft")
_INDEX = ".index.json"  # only of weights in several files


@dataclass(frozen=True)
class Found:
    """A file that is there: its identity (None for files that aren't checkpoints), and what is odd about it."""

    path: Path
    bytes: int
    identity: Identity | None
    notices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Unusable:
    """A file of the right name that can't be the one: the reason names it."""

    path: Path
    reason: str


class Inventory:
    """Files under a root and its read-only folders; walked once, on first need."""

    def __init__(self, root: Path, model_folders: tuple[str, ...] = ()) -> None:
        self.root = root
        self.ckpts = root / "ckpts"
        package = Path(str(resources.files("reeltune"))) / "nano"
        extra = tuple(root / expand(folder) for folder in model_folders)
        self.index = Index(self.ckpts)
        self.folders = (self.ckpts, *extra, package)

    @cached_property
    def _by_name(self) -> dict[str, list[Path]]:
        names: dict[str, list[Path]] = {}
        seen: set[str] = set()
        for top in self.folders:
            for folder, below, files in os.walk(top, followlinks=True):
                if (real := os.path.realpath(folder)) in seen:  # noqa: PTH  # links may lead in circles
                    below.clear()
                    continue
                seen.add(real)
                below[:] = sorted(name for name in below if not name.endswith(PARTIAL))
                for name in files:
                    if not name.endswith(PARTIAL):
                        names.setdefault(name, []).append(Path(folder) / name)
        return names

    def candidates(self, version: Version) -> list[Path]:
        """Files that could be this version: the path it names, then files of its base name."""
        named: list[Path] = []
        if not version.remote:
            path = expand(version.url.replace("\\", "/"))
            path = path if path.is_absolute() else self.root / path
            named = [path] if _is(Path.is_file, path) else []
        elif (fetched := self.index.came_from(version.url)) is not None:
            named = [fetched]  # some links don't tell the file's name
        found = [path for path in self._by_name.get(version.file_name, []) if path not in named]
        return named + found

    def locate(
        self,
        version: Version,
        *,
        weights: bool = True,
        sha256: str | None = None,
        objection: Callable[[Identity], str] = lambda identity: "",
    ) -> tuple[Found | None, list[Unusable]]:
        """The first sound file of a version, and those passed over with the reason.

        `weights`: it must be a checkpoint, whatever its name; else only files named like one are looked into.
        `sha256`: the sum it must have, held against what is known of the file (nothing is read for it).
        `objection`: why a file that is sound can't be the one (the same name is given to all kinds of models).
        """
        unusable: list[Unusable] = []
        for path in self.candidates(version):
            known = self.index.sha256(path) if sha256 else None
            if sha256 and known and known != sha256.lower():
                unusable.append(Unusable(path, f"its sha256 is {known[:12]}…, the definition says {sha256[:12]}…"))
                continue
            if not weights and not path.name.lower().endswith(CHECKPOINT_SUFFIXES):
                return Found(path, path.stat().st_size, None), unusable
            try:
                header = read_header(path)
                identity = identify(header)
                if reason := objection(identity):
                    unusable.append(Unusable(path, reason))
                    continue
                return Found(path, header.file_bytes, identity, header.notices), unusable
            except CheckpointError as error:
                unusable.append(Unusable(path, str(error)))
        return None, unusable

    def component(self, repository: str, name: str) -> Path | None:
        """Folder of one component of a repository (`owner/name`) or of a local folder in diffusers layout.

        A folder counts as present once it holds a file: it gets its name when all of them are there.
        """
        for folder in self.component_folders(repository):
            path = folder / name
            if _is(Path.is_dir, path) and any(path.iterdir()):
                return path
        return None

    def loose(self, component: Component, quantization: str) -> tuple[Path | None, list[Unusable]]:
        """The first sound file or folder that holds a component in a WanGP folder, and those passed over.

        Files of the `quantization` ("int8" | "bf16") come first.
        """
        unusable: list[Unusable] = []
        for name in sorted(component.loose, key=lambda name: is_int8(name) != (quantization == "int8")):
            for folder in self.folders:
                path = folder / name
                try:
                    if _holds(path, component):
                        return path, unusable
                except CheckpointError as error:
                    unusable.append(Unusable(path, str(error)))
        return None, unusable

    def component_folders(self, repository: str) -> list[Path]:
        """Where a repository's components may lie, the one to write to first."""
        local = self.root / expand(repository)
        places = [folder / repository.replace("/", "--") for folder in self.folders]
        return [*([local] if _is(Path.is_dir, local) else []), *places]


def is_int8(name: str) -> bool:
    """Whether a file's name says that its weights are quanto int8."""
    return read_name(name).quantization == QUANTO_INT8


def component_files(path: Path, component: Component) -> list[Path]:
    """What of a file or a folder belongs to a component."""
    if not path.is_dir():
        return [path]
    return sorted({file for pattern in component.files for file in path.glob(pattern) if file.is_file()})


def _holds(path: Path, component: Component) -> bool:
    """Whether a component is there: a sound file, or a folder with all it takes. Raises CheckpointError if damaged."""
    if path.is_dir():
        needed = [pattern for pattern in component.files if not pattern.endswith(_INDEX)]
        if not all(any(path.glob(pattern)) for pattern in needed):
            return False
    elif not path.is_file():
        return False
    for file in component_files(path, component):
        if file.name.endswith(CHECKPOINT_SUFFIXES):
            read_header(file)
    return True


def _is(test: Callable[[Path], bool], path: Path) -> bool:
    """`path.is_file()` and the like for a path from a stranger's file, which may be no path at all."""
    try:
        return test(path)
    except (OSError, ValueError):  # too long, or with signs no file system takes
        return False
