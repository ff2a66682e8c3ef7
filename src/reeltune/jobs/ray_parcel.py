"""What travels with a task to a node, and what comes back: files of the runner's root, read and written here."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from reeltune.definitions import Definition, Version, load_catalog
from reeltune.definitions.folders import scan_folder
from reeltune.errors import FileError, SettingsError
from reeltune.events import FilesUsed, LatentsStored
from reeltune.families.values import PATHS, Settings
from reeltune.families.vocabulary import KEYS
from reeltune.files import expand, is_file, read_bytes, reason, write_atomic
from reeltune.jobs.confine import Confinement
from reeltune.jobs.messages import RunTask, Saved, WorkerEvent
from reeltune.jobs.ray_actor import MOST_BYTES
from reeltune.jobs.ray_folder import NODE_OUTPUTS, TRAVELLING
from reeltune.library.inventory import PACKAGE_FILES
from reeltune.media.mp4 import free_name
from reeltune.planning.loras import split_source
from reeltune.preferences import Preferences, load_preferences
from reeltune.request.parse import complete_settings
from reeltune.settings import read_settings

UPLOADS = "uploads"  # of the root: inputs from elsewhere are copied there, so that their paths fit both sides
_LORAS = "activated_loras"
_MOST_TEXT_BYTES = 4_000_000  # of a definition or a settings file
_REMOTE = ("http://", "https://")


@dataclass(frozen=True)
class Parcel:
    """A task and what it needs. `task`: with paths that are relative to the root. `texts`: definitions and settings by
    path. `files`: the sha256 of each input by its path; `sources`: where it is on this machine. `notices`: preferences
    that have no effect on a node.
    """

    task: RunTask
    texts: Mapping[str, bytes] = field(repr=False)
    preferences: Settings
    files: Mapping[str, str]
    sources: Mapping[str, Path]
    notices: tuple[str, ...] = ()


def pack(root: Path, task: RunTask, outputs: Path | None = None) -> Parcel:
    """Collect what a task needs. `outputs`: the folder of videos, in place of the preference's.

    The task is checked as the worker checks it, before a file is read: a confined one takes none from outside. Raises
    ReeltuneError.
    """
    definition = load_catalog(root)[task.definition]
    preferences, _ = load_preferences(root)
    settings, _ = complete_settings(definition, read_settings(task.settings).settings)
    if task.confined:
        confinement = Confinement.of(root, preferences)
        confinement.check_definition(definition)
        confinement.check_settings(settings)
    folder = outputs or root / expand(preferences.outputs)
    inputs = _Inputs(root, folder)
    changed = inputs.of_settings(definition, settings)
    latents = inputs.kept(Path(task.latents)) if task.latents else ""
    notices: tuple[str, ...] = ()
    if preferences.save_quantized:
        notices = ("The preference save_quantized has no effect on Ray workers: quantized files aren't kept there.",)
    return Parcel(
        replace(task, settings={**task.settings, **changed}, latents=latents),
        _texts(root, definition),
        _travelling(preferences),
        inputs.files,
        inputs.sources,
        notices,
    )


def contents(parcel: Parcel, names: Iterable[str]) -> dict[str, bytes]:
    """The content of files of a parcel by path. Raises FileError for one that is gone or too large."""
    return {name: read_bytes(parcel.sources[name], MOST_BYTES) for name in names}


def _texts(root: Path, definition: Definition) -> dict[str, bytes]:
    """All definitions of the user, since each may refer to others, and the saved settings of this one."""
    paths = [*scan_folder(root / "finetunes").files, root / "settings" / f"{definition.id}_settings.json"]
    texts = {}
    for path in paths:
        with contextlib.suppress(FileError):  # one that can't be read is broken here too
            texts[f"{path.parent.name}/{path.name}"] = read_bytes(path, _MOST_TEXT_BYTES)
    return texts


def _travelling(preferences: Preferences) -> Settings:
    return {name: value for name, value in asdict(preferences).items() if name in TRAVELLING}


class _Inputs:
    """The files that travel. Their paths are relative to the root, and mean the same on both sides."""

    def __init__(self, root: Path, outputs: Path) -> None:
        self._root, self._outputs = root, outputs
        self.files: dict[str, str] = {}
        self.sources: dict[str, Path] = {}

    def of_settings(self, definition: Definition, settings: Settings) -> dict[str, object]:
        """The settings that name files, with their paths as both sides understand them."""
        changed: dict[str, object] = {}
        for key, value in settings.items():
            if key in KEYS and KEYS[key].kind is PATHS and value:
                changed[key] = (
                    [self._input(str(path)) for path in value] if isinstance(value, list) else self._input(str(value))
                )
        loras = [str(source) for source in settings.get(_LORAS) or ()]
        of_modes = definition.preload if definition.architecture.mode_loras else ()
        for lora in (*definition.loras, *of_modes):
            self._lora(lora.url)
        if loras:
            changed[_LORAS] = [self._lora(source) for source in loras]
        return {key: value for key, value in changed.items() if value != settings[key]}

    def _input(self, text: str) -> str:
        """The path of an image or video. One that doesn't exist stays as it is: the worker says so."""
        if text.lower().startswith(_REMOTE):
            return text
        try:
            path = self._root / expand(text)
        except ValueError:
            return text
        return self._travels(path) if is_file(path) else text

    def _lora(self, source: str) -> str:
        """The source of a LoRA: uploads travel, all others are found on the node as weights are."""
        path, _ = split_source(source)
        if Version(path).remote:
            return source
        try:
            place = self._root / expand(path)
        except ValueError:
            return source
        inside = is_file(place) and place.resolve().is_relative_to((self._root / UPLOADS).resolve())
        return self._travels(place) if inside else source

    def kept(self, path: Path) -> str:
        """The path of kept latents; where they are gone, a name at which the worker finds none and says so."""
        name = f"{NODE_OUTPUTS}/latents/{path.name}"
        source = self._root / path
        return self._travels(source, name) if is_file(source) else name

    def _travels(self, path: Path, name: str = "") -> str:
        """The relative path of a file that travels; `name` where it is given.

        Raises FileError, SettingsError for one that is too large.
        """
        try:
            if path.stat().st_size > MOST_BYTES:
                message = f"{path} is larger than {MOST_BYTES:,} bytes, which is too much to send to a Ray worker."
                raise SettingsError(message, hint="Use a shorter or smaller file.")
            with path.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            real = path.resolve()
            name = name or self._name(real) or self._copied(real, sha256)
        except OSError as error:
            raise FileError(f"{path} can't be read: {reason(error)}.", hint="Check the file.") from error
        self.files[name] = sha256
        self.sources[name] = path
        return name

    def _name(self, path: Path) -> str:
        """The path relative to the root of an upload or a video there; empty for any other file."""
        root = self._root.resolve()
        folders = ((root / UPLOADS).resolve(), self._outputs.resolve())
        if path.is_relative_to(root) and any(path.is_relative_to(folder) for folder in folders):
            return path.relative_to(root).as_posix()
        return ""

    def _copied(self, path: Path, sha256: str) -> str:
        """Copy a file to the uploads, so that the path that is stored with the video means something here."""
        name = f"{UPLOADS}/{sha256}/{path.name}"
        copy = self._root / name
        if not copy.exists():
            copy.parent.mkdir(parents=True, exist_ok=True)
            partial = copy.with_name(f"{copy.name}.partial")
            shutil.copyfile(path, partial)
            partial.replace(copy)
        return name


class Returned:
    """Stores what comes back from a task: `stored(event, content)` is the event as this machine has it.

    `places`: the folders of the node (see `RayActor.places`). `latents`: the file with which the task began.
    """

    def __init__(self, root: Path, outputs: Path | None, places: Mapping[str, str], latents: str = "") -> None:
        self._root = root
        self._outputs = outputs or root / expand(load_preferences(root)[0].outputs)
        self._latents = latents
        own = {
            f"{places['root']}/": f"{root}/",
            f"{places['weights']}/": f"{root}/",
            f"{places['package']}/": f"{PACKAGE_FILES}/",
        }
        self._own = own

    def stored(self, event: WorkerEvent, content: bytes) -> WorkerEvent:
        """Write the file of an event, and replace its path. Raises FileError, MediaError where it can't be written."""
        match event:
            case Saved(path=path):
                written = self._written(self._outputs, Path(path), content)
                if self._latents:
                    (self._root / self._latents).unlink(missing_ok=True)
                    self._latents = ""
                return Saved(str(written))
            case LatentsStored(path=path):
                self._latents = str(self._written(self._outputs / "latents", Path(path), content))
                return LatentsStored(self._latents)
            case FilesUsed(files=files):
                return FilesUsed(tuple(replace(file, path=self._here(file.path)) for file in files))
        return event

    def _written(self, folder: Path, sent: Path, content: bytes) -> Path:
        """Write a file under an unused name."""
        path = free_name(folder, sent.stem, sent.suffix)
        try:
            write_atomic(path, content)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return path

    def _here(self, path: str) -> str:
        """The path on this machine of a file on the node, whether or not it exists here."""
        for theirs, ours in self._own.items():
            if path.startswith(theirs):
                return ours + path.removeprefix(theirs)
        return path
