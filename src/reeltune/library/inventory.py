"""What is on disk: weight files by base name, component folders by path.

Looked through in order: `<root>/ckpts` (any depth), the user's read-only model folders, the package's own data.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

from reeltune.checkpoints.header import read_header
from reeltune.checkpoints.identify import Identity, identify
from reeltune.checkpoints.names import QUANTO_INT8, read_name
from reeltune.definitions.model import Version
from reeltune.errors import CheckpointError
from reeltune.families import Component
from reeltune.files import expand, is_file
from reeltune.library.folders import Walk, walk
from reeltune.library.index import Index, fold
from reeltune.library.places import PARTIAL as PARTIAL
from reeltune.library.places import own_name
from reeltune.net import HUB, file_key, shown

CHECKPOINT_SUFFIXES = (".safetensors", ".sft")
_HUB_CACHE = "models--"  # folders of huggingface_hub's cache, which hold whatever was downloaded
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
    """A file of the right name that can't be the one: the reason names it. `foreign`: it is sound, but another file;
    `other_model`: its header contradicts the architecture; `named`: it is at the very path that was asked for.
    """

    path: Path
    reason: str
    foreign: bool = False
    other_model: bool = False
    named: bool = False


@dataclass(frozen=True)
class Namesake:
    """Another URL whose file has the same name, listed by some definition. `fits`: whether a header could be its."""

    url: str
    fits: Callable[[Identity], bool]


@dataclass(frozen=True)
class Wanted:
    """A version to look for.

    `weights`: it must be a checkpoint, whatever its name; else only files named like one are looked into. `sha256`: the
    sum it must have, held against what is known of a file (nothing is read for it). `objection`: why a file that is
    sound can't be the one (the same name is given to all kinds of models). `namesakes`: other URLs of its file name.
    """

    version: Version
    weights: bool = True
    sha256: str | None = None
    objection: Callable[[Identity], str] = lambda identity: ""
    namesakes: Callable[[], Sequence[Namesake]] = tuple


class Inventory:
    """Files under a root and its read-only folders; walked once, on first need."""

    def __init__(self, root: Path, model_folders: tuple[str, ...] = ()) -> None:
        self.root = root
        self.ckpts = root / "ckpts"
        package = Path(str(resources.files("reeltune"))) / "nano"
        extra = tuple(root / expand(folder) for folder in model_folders)
        self.index = Index(self.ckpts)
        self.folders = (self.ckpts, *extra, package)
        self._read: dict[tuple[Path, int, int, int], tuple[int, Identity | None, tuple[str, ...]]] = {}

    @cached_property
    def _walk(self) -> Walk:
        return walk(self.folders)

    @property
    def notices(self) -> tuple[str, ...]:
        """Folders of which not everything could be looked at."""
        return tuple(self._walk.notices)

    def candidates(self, version: Version, sha256: str | None = None) -> list[Path]:
        """Files that are known to be a version: by the path it names, the URL they came from, a name that only its file
        has, or their sha256.
        """
        if not version.remote:
            path = self._named(version.url)
            return [path] if is_file(path) else []
        fetched = self.index.came_from(version.url)
        own = self._walk.by_name.get(own_name(version.file_name, version.url), [])
        same = self.index.with_sha256(sha256 or self.index.sum_of(version.url))
        return list(dict.fromkeys([*([fetched] if fetched else []), *own, *same]))

    def _named(self, text: str) -> Path:
        path = expand(text.replace("\\", "/"))
        return path if path.is_absolute() else self.root / path

    def locate(self, version: Version, **details: Any) -> tuple[Found | None, list[Unusable]]:
        """The first sound file of a version, and those passed over with the reason. `details`: fields of `Wanted`."""
        return self.find(Wanted(version, **details))

    def find(self, wanted: Wanted) -> tuple[Found | None, list[Unusable]]:
        """The first sound file of a version, and those passed over with the reason."""
        unusable: list[Unusable] = []
        certain = self.candidates(wanted.version, wanted.sha256)
        version = wanted.version
        named_alike = self._walk.by_name.get(version.file_name, [])
        others = [path for path in named_alike if path not in certain and not self._is_of_a_component(path, version)]
        for path in [*certain, *others]:
            found = self._look(path, wanted, path in certain)
            if isinstance(found, Found):
                return found, unusable
            unusable.append(replace(found, named=path in certain and not version.remote))
        return None, unusable

    def _look(self, path: Path, wanted: Wanted, certain: bool) -> Found | Unusable:
        known = self.index.sha256(path) if wanted.sha256 else None
        if wanted.sha256 and known and known != wanted.sha256.lower():
            reason = f"its sha256 is {known[:12]}…, the definition says {wanted.sha256[:12]}…"
            return Unusable(path, reason, foreign=not certain and bool(self.index.sources(path) or wanted.namesakes()))
        if not certain and (reason := self._foreign(path, wanted.version)):
            return Unusable(path, reason, foreign=True)
        checkpoint = wanted.weights or path.name.lower().endswith(CHECKPOINT_SUFFIXES)
        try:
            size, identity, notices = self._identified(path) if checkpoint else (path.stat().st_size, None, ())
        except CheckpointError as error:
            return Unusable(path, str(error))
        except OSError as error:
            return Unusable(path, f"it can't be read: {error.strerror or error}")
        if identity is not None and (reason := wanted.objection(identity)):
            return Unusable(path, reason, foreign=not certain, other_model=True)
        if not certain and (other := self._rival(path, identity, wanted)):
            reason = f"its name is also that of {shown(other)}, and nothing shows from which URL it is"
            reason = reason if wanted.version.remote else f"it is the file {other}"
            return Unusable(path, reason, foreign=True)
        return Found(path, size, identity, notices)

    def _identified(self, path: Path) -> tuple[int, Identity | None, tuple[str, ...]]:
        """Size, identity and notices of a checkpoint; many definitions may list one file, which is read once."""
        facts = path.stat()
        key = (path, facts.st_size, facts.st_mtime_ns, facts.st_ino)
        if key not in self._read:
            header = read_header(path)
            self._read[key] = (header.file_bytes, identify(header), header.notices)
        return self._read[key]

    def _foreign(self, path: Path, version: Version) -> str:
        """Why a file that only has the name of a version is known to be another; empty where nothing says so."""
        if not version.remote:
            return ""
        size, digest, known = self.index.size_of(version.url), self.index.sum_of(version.url), self.index.sha256(path)
        if digest and known:
            return "" if digest == known else f"its sha256 is not the one of {shown(version.url)}"
        if sources := self.index.sources(path):
            return f"it was downloaded from {shown(min(sources))}"
        try:
            count = path.stat().st_size
        except OSError as error:
            return f"it can't be read: {error.strerror or error}"
        if size is not None and size != count:
            return f"it holds {count:,} bytes, and {shown(version.url)} serves {size:,}"
        return ""

    def _is_of_a_component(self, path: Path, version: Version) -> bool:
        """Whether a file is part of a repository's component, and not what the version's URL means."""
        for top in self.folders:
            parts = path.relative_to(top).parts if path.is_relative_to(top) else ()
            if len(parts) < 3 or "--" not in parts[0] or parts[0].startswith(_HUB_CACHE):
                continue
            repository = parts[0].replace("--", "/", 1)
            if file_key(version.url) != file_key(f"{HUB}/{repository}/resolve/main/{'/'.join(parts[1:])}"):
                return True
        return False

    def _rival(self, path: Path, identity: Identity | None, wanted: Wanted) -> str:
        """Another URL that this file could be the file of just as well; empty where there is none."""
        if self.index.sha256(path) and self.index.sum_of(wanted.version.url):
            return ""  # they were compared
        for other in wanted.namesakes():
            version = Version(other.url)
            if version.remote != wanted.version.remote:
                continue  # a path to ckpts/NAME is where the file of a URL would be too
            if not version.remote:
                if self._named(version.url) == path:
                    return other.url
            elif not (self.candidates(version) or self._foreign(path, version)) and (
                identity is None or other.fits(identity)
            ):
                return other.url
        return ""

    def place(self, wanted: Wanted, unusable: Sequence[Unusable], taken: Mapping[str, str] | None = None) -> Path:
        """Where a version that isn't here is to be put: under its own name, or where that is or will be another file's,
        under one that no other URL's file has. `taken`: keys of URLs by the names, folded, that their files will have.
        """
        version, plain = wanted.version, self.ckpts / wanted.version.file_name
        if not version.remote:
            return self._named(version.url)
        occupied = any(row.path == plain and row.foreign for row in unusable)
        key = file_key(version.url)
        if occupied or (taken or {}).get(fold(plain.name), key) != key:
            return self.ckpts / own_name(wanted.version.file_name, wanted.version.url)
        return plain

    def component(self, repository: str, name: str) -> Path | None:
        """Folder of one component of a repository (`owner/name`) or of a local folder in diffusers layout.

        A folder counts as present once it holds a file: it gets its name when all of them are there.
        """
        for folder in self.component_folders(repository):
            path = folder / name
            if _is_dir(path) and _holds_something(path):
                return path
        return None

    def loose(self, component: Component, quantization: str) -> tuple[Path | None, list[Unusable]]:
        """The first sound file or folder that holds a component in a WanGP folder, and those passed over.

        Files of the `quantization` ("int8" | "bf16") come first.
        """
        unusable: list[Unusable] = []
        for name in sorted(component.wangp_files, key=lambda name: is_int8(name) != (quantization == "int8")):
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
        return [*([local] if _is_dir(local) else []), *places]


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


def _is_dir(path: Path) -> bool:
    """`path.is_dir()` for a path from a stranger's file, which may be no path at all."""
    try:
        return path.is_dir()
    except (OSError, ValueError):  # too long, a loop, or characters that no file system takes
        return False


def _holds_something(folder: Path) -> bool:
    try:
        return any(folder.iterdir())
    except OSError:
        return False
