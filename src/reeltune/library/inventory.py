"""What is on disk: weight files by file name, component folders by path, and LoRAs.

Folders are searched in this order: `<root>/ckpts` at any depth, the user's read-only model folders, the cache folder of
the Hub, the data in the package. LoRAs are searched in the folders `loras` instead.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from importlib import resources
from pathlib import Path

from reeltune.checkpoints.formats import loadable_endings
from reeltune.checkpoints.header import read_header
from reeltune.checkpoints.identify import Identity, identify
from reeltune.definitions.model import Version
from reeltune.errors import CheckpointError
from reeltune.files import expand, is_file, is_folder
from reeltune.library.component_folders import component_files as component_files
from reeltune.library.component_folders import is_whole_component
from reeltune.library.component_search import ComponentSearch
from reeltune.library.folders import FolderFiles, walk
from reeltune.library.hub_cache import PREFIX as HUB_CACHE_PREFIX
from reeltune.library.hub_cache import HubCache, hub_cache_folder
from reeltune.library.index import Index, fold
from reeltune.library.on_disk import FileOnDisk as FileOnDisk
from reeltune.library.on_disk import UnusableFile as UnusableFile
from reeltune.library.other_programs import search_folders
from reeltune.library.places import PARTIAL as PARTIAL
from reeltune.library.places import unique_name
from reeltune.library.stand_ins import stand_in_pattern
from reeltune.net import HUB, file_key, shown

CHECKPOINT_SUFFIXES = loadable_endings()
PACKAGE_FILES = Path(str(resources.files("reeltune"))) / "nano"
_LORAS = "loras"
_MOST_REMEMBERED = 2000  # files whose headers aren't read again while they are unchanged
_SETTLED_NS = 2_000_000_000  # a file that has changed since may change again without another time


@dataclass(frozen=True)
class Namesake:
    """A URL or path in some definition whose file has the same name. `fits`: whether its file may have a header."""

    url: str
    fits: Callable[[Identity], bool]


def _no_objection(identity: Identity) -> str:
    return ""


def _no_namesakes() -> Sequence[Namesake]:
    return ()


@dataclass(frozen=True)
class FileQuery:
    """A version to search for on disk.

    `weights`: whether it must be a checkpoint; otherwise only files with the suffix of a checkpoint are read as one.
    `sha256`: compared with the sha256 in the index; files are not read for it. `objection`: the reason why a sound file
    with this header can't be used, or an empty text (files of all kinds of models have the same names). `namesakes`:
    other URLs whose files have the same name.
    """

    version: Version
    weights: bool = True
    sha256: str | None = None
    objection: Callable[[Identity], str] = _no_objection
    namesakes: Callable[[], Sequence[Namesake]] = _no_namesakes


class Inventory:
    """The files below a root and its read-only folders. The folders are walked once, when they are first needed.

    `downloads`: the folder that downloads go to.
    """

    def __init__(self, root: Path, model_folders: tuple[str, ...] = ()) -> None:
        self.root = root
        self.downloads = root / "ckpts"
        self.index = Index(root / "ckpts")
        self.hub_cache = HubCache(hub_cache_folder())
        searched = search_folders(root, model_folders)
        self.comfyui_sources = searched.sources
        self._folder_notices = searched.notices
        self.folders = (self.downloads, *searched.folders, self.hub_cache.folder, PACKAGE_FILES)
        self._headers: dict[tuple[Path, int, int, int], FileOnDisk] = {}

    @cached_property
    def files(self) -> FolderFiles:
        """All files in the folders, which are walked once."""
        return walk(self.folders)

    @cached_property
    def components(self) -> ComponentSearch:
        """The search for components in the folders."""
        return ComponentSearch(self)

    @property
    def notices(self) -> tuple[str, ...]:
        """Notices about folders that could not be read completely."""
        return (*self._folder_notices, *self.files.notices)

    def known_files(self, version: Version, sha256: str | None = None) -> list[Path]:
        """The files that are known to be a version.

        A file is known by the path that the version names, the URL it was downloaded from, the unique name of that URL,
        or its sha256.
        """
        if not version.remote:
            path = self._listed_path(version.url)
            return [path] if is_file(path) else []
        paths: list[Path] = []
        downloaded = self.index.file_from_url(version.url)
        if downloaded is not None:
            paths.append(downloaded)
        cached = self.hub_cache.file_of_url(version.url)
        if cached is not None:
            paths.append(cached)
        paths += self.files.by_name.get(unique_name(version.file_name, version.url), [])
        paths += self.index.files_with_sha256(sha256 or self.index.sha256_of_url(version.url))
        return list(dict.fromkeys(paths))

    def _listed_path(self, text: str) -> Path:
        """The path that a definition lists, absolute."""
        path = expand(text.replace("\\", "/"))
        return path if path.is_absolute() else self.root / path

    def find_version(self, version: Version) -> tuple[FileOnDisk | None, list[UnusableFile]]:
        """The first usable file of a version, and the unusable files before it. See `find`."""
        return self.find(FileQuery(version))

    def find(self, query: FileQuery) -> tuple[FileOnDisk | None, list[UnusableFile]]:
        """The first usable file for a query, and the unusable files before it."""
        version = query.version
        unusable: list[UnusableFile] = []
        known_files = self.known_files(version, query.sha256)
        for path in known_files:
            file = self._check_file(path, query, known=True)
            if isinstance(file, FileOnDisk):
                return file, unusable
            unusable.append(replace(file, named=not version.remote))
        for path in self.files.by_name.get(version.file_name, []):
            if path in known_files or self._belongs_to_component(path, version):
                continue
            file = self._check_file(path, query, known=False)
            if isinstance(file, FileOnDisk):
                return file, unusable
            unusable.append(file)
        return None, unusable

    def stand_ins(self, version: Version) -> list[Path]:
        """Files with the same published model as a version, under the names that ComfyUI's files have."""
        pattern = stand_in_pattern(version)
        if pattern is None:
            return []
        by_name = self.files.by_name
        return [path for name in by_name if pattern.fullmatch(name) for path in by_name[name]]

    def _check_file(self, path: Path, query: FileQuery, *, known: bool) -> FileOnDisk | UnusableFile:
        """Check one file. `known`: it is known to be the version, not only by its name."""
        digest = self._sha256(path) if query.sha256 else None
        if query.sha256 and digest and digest != query.sha256.lower():
            reason = f"its sha256 is {digest[:12]}…, but the definition expects {query.sha256[:12]}…"
            foreign = not known and bool(self.index.sources(path) or query.namesakes())
            return UnusableFile(path, reason, foreign=foreign)
        if not known:
            reason = self._origin_mismatch(path, query.version)
            if reason:
                return UnusableFile(path, reason, foreign=True)
        try:
            file = self._read_file(path, query)
        except CheckpointError as error:
            return UnusableFile(path, str(error))
        except OSError as error:
            return UnusableFile(path, f"it can't be read: {error.strerror or error}")
        if file.identity is not None:
            reason = query.objection(file.identity)
            if reason:
                return UnusableFile(path, reason, foreign=not known, other_model=True)
        if not known:
            reason = self._ambiguity(file, query)
            if reason:
                return UnusableFile(path, reason, foreign=True)
        return file

    def _sha256(self, path: Path) -> str | None:
        """The sha256 of a file, if it is known."""
        return self.index.sha256(path) or self.hub_cache.sha256(path) or None

    def _read_file(self, path: Path, query: FileQuery) -> FileOnDisk:
        """The file as it is on disk. Raises CheckpointError for a damaged checkpoint, OSError."""
        if query.weights or path.name.lower().endswith(CHECKPOINT_SUFFIXES):
            return self.read_checkpoint(path)
        return FileOnDisk(path, path.stat().st_size, None)

    def read_checkpoint(self, path: Path) -> FileOnDisk:
        """A checkpoint with its identity. Its header is read once, although many definitions may list it.

        Raises CheckpointError, OSError.
        """
        status = path.stat()
        key = (path, status.st_size, status.st_mtime_ns, status.st_ino)
        if key not in self._headers:
            changed = max(status.st_mtime_ns, status.st_ctime_ns)
            settled = time.time_ns() - changed > _SETTLED_NS
            read = _read_settled if settled else _read_settled.__wrapped__
            self._headers[key] = read(*key, status.st_dev, changed)
        return self._headers[key]

    def _origin_mismatch(self, path: Path, version: Version) -> str:
        """Why a file that has the name of a version is known to be another file; empty if nothing shows that."""
        if not version.remote:
            return ""
        url_digest = self.index.sha256_of_url(version.url)
        file_digest = self._sha256(path)
        if url_digest and file_digest:
            if url_digest == file_digest:
                return ""
            return f"its sha256 is not the one of {shown(version.url)}"
        sources = self.index.sources(path)
        cached_from = self.hub_cache.key_of(path)
        if sources or cached_from:
            return f"it was downloaded from {shown(min(sources, default=cached_from))}"
        try:
            file_size = path.stat().st_size
        except OSError as error:
            return f"it can't be read: {error.strerror or error}"
        url_size = self.index.size_of_url(version.url)
        if url_size is not None and url_size != file_size:
            return f"it has {file_size:,} bytes, but {shown(version.url)} serves {url_size:,}"
        return ""

    def _belongs_to_component(self, path: Path, version: Version) -> bool:
        """Whether a file is part of a repository's component, and not the file of the version's URL."""
        for folder in self.folders:
            parts = path.relative_to(folder).parts if path.is_relative_to(folder) else ()
            if len(parts) < 3 or "--" not in parts[0] or parts[0].startswith(HUB_CACHE_PREFIX):
                continue
            repository = parts[0].replace("--", "/", 1)
            if file_key(version.url) != file_key(f"{HUB}/{repository}/resolve/main/{'/'.join(parts[1:])}"):
                return True
        return False

    def _ambiguity(self, file: FileOnDisk, query: FileQuery) -> str:
        """Why a file that has the name of a version may be the file of another URL just as well; empty if not."""
        version = query.version
        if self.index.sha256(file.path) and self.index.sha256_of_url(version.url):
            return ""  # both are equal, or the file would have been rejected before
        for namesake in query.namesakes():
            other = Version(namesake.url)
            if other.remote != version.remote:
                continue  # the path ckpts/NAME is also where the file of a URL is stored
            if not version.remote:
                if self._listed_path(other.url) == file.path:
                    return f"it is the file {other.url}"
            elif self._could_be(file, namesake):
                return f"{shown(other.url)} has a file of the same name, and it is unknown which URL this file is from"
        return ""

    def _could_be(self, file: FileOnDisk, namesake: Namesake) -> bool:
        """Whether a file could be the file of a namesake's URL."""
        version = Version(namesake.url)
        if self.known_files(version) or self._origin_mismatch(file.path, version):
            return False
        return file.identity is None or namesake.fits(file.identity)

    def download_path(
        self, query: FileQuery, unusable: Sequence[UnusableFile], reserved: Mapping[str, str] | None = None
    ) -> Path:
        """The path for a version that isn't on disk.

        This is its name in the folder of downloads, or the unique name of its URL if another file has or will have
        that name. `reserved`: keys of URLs, by the folded names that their files will have.
        """
        version = query.version
        if not version.remote:
            return self._listed_path(version.url)
        path = self.downloads / version.file_name
        key = file_key(version.url)
        occupied = any(file.path == path and file.foreign for file in unusable)
        if occupied or (reserved or {}).get(fold(path.name), key) != key:
            return self.downloads / unique_name(version.file_name, version.url)
        return path

    def component(self, repository: str, name: str) -> Path | None:
        """The folder of one component; None if it isn't on disk.

        `repository` is `owner/name`, or a local folder in diffusers layout. A folder counts as present if it contains
        any file, because downloads get their name only when they are complete.
        """
        for folder in self.component_folders(repository):
            path = folder / name
            if is_folder(path) and not _is_empty(path):
                return path
        for snapshot in self.hub_cache.snapshots(repository):
            if is_whole_component(snapshot / name):
                return snapshot / name
        return None

    def component_folders(self, repository: str) -> list[Path]:
        """The folders that may contain a repository's components; downloads go to the first."""
        folders = [folder / repository.replace("/", "--") for folder in self.folders]
        local = self.root / expand(repository)
        if is_folder(local):
            folders.insert(0, local)
        return folders


@lru_cache(maxsize=_MOST_REMEMBERED)
def _read_settled(path: Path, *_: int) -> FileOnDisk:
    """A checkpoint with its identity, remembered for all inventories of this process.

    The numbers tell the file from others under its path, and from itself after a change. Raises CheckpointError,
    OSError.
    """
    header = read_header(path)
    return FileOnDisk(path, header.file_bytes, identify(header), tuple(header.notices))


class LoraInventory(Inventory):
    """The LoRAs below a root and its read-only folders, for models whose LoRAs are in the folder `loras/<folder>`.

    In a model folder, LoRAs are in a folder `loras` inside or beside it, as WanGP and ComfyUI store them. `preloaded`:
    whether they may also be among the checkpoints, where WanGP stores what `preload_URLs` lists.
    """

    def __init__(
        self, root: Path, folder: str, model_folders: tuple[str, ...] = (), *, preloaded: bool = False
    ) -> None:
        super().__init__(root, model_folders if preloaded else ())
        tops = lora_folders(root, model_folders)
        self.downloads = tops[0] / folder
        own = [top / folder for top in tops]
        checkpoints = self.folders if preloaded else ()
        self.folders = tuple(dict.fromkeys((*own, *tops, *checkpoints, PACKAGE_FILES)))

    def _listed_path(self, text: str) -> Path:
        """The path of a LoRA: absolute, or relative to a folder of LoRAs or to the root."""
        path = expand(text.replace("\\", "/"))
        if path.is_absolute():
            return path
        bases = [folder for folder in (*self.folders, self.root) if folder != PACKAGE_FILES]
        candidates = [base / path for base in bases]
        return next((candidate for candidate in candidates if is_file(candidate)), candidates[0])


def lora_folders(root: Path, model_folders: Sequence[str]) -> tuple[Path, ...]:
    """The folders `loras`: that of the root, and those inside and beside each model folder."""
    paths = search_folders(root, model_folders).folders
    own = [path for path in paths if path.name == _LORAS]
    return (root / _LORAS, *own, *(folder / _LORAS for path in paths for folder in (path, path.parent)))


def _is_empty(folder: Path) -> bool:
    """Whether a folder is empty or can't be read."""
    try:
        return not any(folder.iterdir())
    except OSError:
        return True
