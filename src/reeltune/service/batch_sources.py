"""The files that a batch is read from: settings files, saved queues, and generated videos and images.

for path in find_sources([Path("queue.zip"), Path("settings")]).files:
    with open_source(path) as source:
        for entry in source.entries: ...
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from reeltune._text import counted
from reeltune.errors import FileError, InvalidJSON, MediaError, ReeltuneError, SettingsError
from reeltune.families.values import Settings
from reeltune.files import expand, is_file, is_folder, read_bytes, reason
from reeltune.media.kinds import NUMPY_FILE, display, kind_of
from reeltune.media.origin import read_stored
from reeltune.service.archives import open_archive
from reeltune.service.uploads import MAX_BYTES, MAX_JSON_BYTES, accepted_name, copy_to_uploads
from reeltune.service.workspace import Workspace
from reeltune.settings import is_lora_preset, listed, read_lora_preset, read_settings
from reeltune.untrusted import JsonObject, clean_text, parse_json

MAX_ENTRIES = 10_000  # of all files of a batch together
_SUFFIXES = (".json", ".zip")  # of files that a folder is searched for
_ARCHIVE = "a ZIP archive"
_OWN_PROGRAM = "reeltune"
_EDITING = "edit_"  # beginning of `mode` in tasks that change an existing video
_MAX_NAME = 80  # characters of a path in a message

FileFinder = Callable[[Workspace, str], Path]  # stores an input file of an entry among the uploads


@dataclass(frozen=True)
class SourceEntry:
    """One set of settings in a file.

    `position`: counted from 1. `definition`, `architecture`: ids, which may be empty. `program`: what wrote the
    settings, if it isn't in them. `error`: why it can't be used, in which case all else is empty.
    """

    position: int
    definition: str = ""
    architecture: str = ""
    program: str = ""
    settings: Settings = field(default_factory=dict)
    notices: tuple[str, ...] = ()
    error: ReeltuneError | None = None


@dataclass(frozen=True)
class OpenSource:
    """A file of a batch. `find`: stores the file that an entry names. `unused`: returns files that no entry names."""

    entries: tuple[SourceEntry, ...]
    find: FileFinder
    unused: Callable[[], Sequence[str]] = tuple


@dataclass(frozen=True)
class FoundSources:
    """The files of a batch in order, each once, and notices about what isn't used."""

    files: tuple[Path, ...]
    notices: tuple[str, ...] = ()


def find_sources(paths: Sequence[Path]) -> FoundSources:
    """The files that paths name: files themselves, and in folders all `.json` and `.zip` files, sorted by name.

    Raises FileError for a path that doesn't exist, and for a folder that contains none.
    """
    files: list[Path] = []
    notices: list[str] = []
    for path in paths:
        expanded = expand(path).absolute()
        if is_folder(expanded):
            found, others = _files_in(expanded)
            files += found
            if others:
                notices.append(f"Not used in {display(path)}: {counted(others, 'file')} of other kinds.")
        elif is_file(expanded):
            files.append(expanded)
        else:
            raise FileError(f"{display(path)} doesn't exist.", hint="Give a settings file, a saved queue or a folder.")
    once: dict[Path, Path] = {}
    for file in files:
        once.setdefault(file.resolve(), file)
    if len(once) < len(files):
        notices.append("A file that was given several times is used once.")
    return FoundSources(tuple(once.values()), tuple(notices))


def _files_in(folder: Path) -> tuple[list[Path], int]:
    """The files of a folder to use, and the number of others. Hidden files and folders in it don't count."""
    try:
        names = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise FileError(f"{display(folder)} can't be read: {reason(error)}.") from error
    files = [path for path in names if is_file(path)]
    used = [path for path in files if path.suffix.lower() in _SUFFIXES]
    if not used:
        message = f"{display(folder)} contains no settings files and no saved queues."
        raise FileError(message, hint="A folder is searched for .json and .zip files, and not the folders in it.")
    return used, len(files) - len(used)


@contextlib.contextmanager
def open_source(path: Path) -> Iterator[OpenSource]:
    """The entries of a file, whose kind is recognized by its content.

    Raises ReeltuneError for a file that can't be used as a whole. An entry that can't be used has an `error`.
    """
    kind = kind_of(path)
    if kind.label == _ARCHIVE:
        with open_archive(path) as archive:
            entries = read_entries(archive.manifest(), path.name)
            yield OpenSource(entries, archive.store, archive.unused)
    elif kind.image or kind.container:
        yield OpenSource((_entry_of_media(path),), _finder(path.parent))
    else:
        yield OpenSource(read_entries(_json(path), path.name), _finder(path.parent))


def _json(path: Path) -> Any:
    try:
        return parse_json(read_bytes(path, MAX_JSON_BYTES), display(Path(path.name)), max_bytes=MAX_JSON_BYTES)
    except InvalidJSON as error:
        message = f"It is neither a settings file nor a saved queue. {error}"
        raise SettingsError(message, hint="Give a .json file, a queue in a .zip file, or a generated video.") from error


def _entry_of_media(path: Path) -> SourceEntry:
    origin = read_stored(path)
    notices = (f"Unknown or invalid settings are ignored: {listed(origin.unknown)}.",) if origin.unknown else ()
    return SourceEntry(1, origin.definition, origin.architecture, origin.program, origin.settings, notices)


# --- JSON -------------------------------------------------------------------------------------------------------


def read_entries(value: Any, name: str) -> tuple[SourceEntry, ...]:
    """The entries of a JSON value: settings, a list of them, a list of WanGP's tasks, or an exported queue.

    `name`: its file, for messages. Raises SettingsError for any other value.
    """
    read: Callable[[JsonObject], SourceEntry] = _entry_of_task
    if isinstance(value, dict) and isinstance(value.get("jobs"), list):
        values, read = value["jobs"], _entry_of_job
    elif isinstance(value, dict):
        values = [value]
    elif isinstance(value, list):
        values = value
    else:
        message = f"{clean_text(name)} contains no settings."
        raise SettingsError(message, hint="It must be a JSON object, or a list of objects.")
    if len(values) > MAX_ENTRIES:
        raise SettingsError(f"{clean_text(name)} contains {len(values):,} entries, of {MAX_ENTRIES:,} at most.")
    return tuple(_read_entry(read, item, position) for position, item in enumerate(values, start=1))


def _read_entry(read: Callable[[JsonObject], SourceEntry], value: Any, position: int) -> SourceEntry:
    try:
        if not isinstance(value, dict):
            raise SettingsError("It is not a JSON object.", hint="Fix or remove it.")
        return replace(read(value), position=position)
    except ReeltuneError as error:
        return SourceEntry(position, error=error)


def _entry_of_job(value: JsonObject) -> SourceEntry:
    """A job of a queue that reeltune exported. Raises SettingsError."""
    definition, settings = value.get("definition"), value.get("settings")
    if not isinstance(definition, str) or not isinstance(settings, dict):
        raise SettingsError("It lacks its `definition` or its `settings`.", hint="Export the queue again.")
    stored = read_settings(settings)
    return SourceEntry(0, definition, "", _OWN_PROGRAM, stored.settings, tuple(stored.notices()))


def _entry_of_task(value: JsonObject) -> SourceEntry:
    """A task of a queue that WanGP saved, or settings. Raises SettingsError."""
    if "params" not in value:
        return _entry_of_settings(value)
    settings = value["params"]
    if not isinstance(settings, dict):
        raise SettingsError("Its `params` are not a JSON object.", hint="Save the queue again.")
    entry = _entry_of_settings(settings)
    if value.get("plugin_data"):
        return replace(entry, notices=(*entry.notices, "Data of plugins (plugin_data) is not used."))
    return entry


def _entry_of_settings(values: JsonObject) -> SourceEntry:
    """Settings as a settings file has them. Raises SettingsError."""
    mode = values.get("mode")
    if isinstance(mode, str) and mode.startswith(_EDITING):
        message = f"It changes an existing video (mode {clean_text(mode)[:_MAX_NAME]!r}), which is not supported."
        raise SettingsError(message, hint="Remove it.")
    stored = read_lora_preset(values) if is_lora_preset(values) else read_settings(values)
    architecture = values.get("base_model_type")
    return SourceEntry(
        0,
        stored.definition,
        architecture if isinstance(architecture, str) else "",
        "",
        stored.settings,
        tuple(stored.notices()),
    )


# --- input files ------------------------------------------------------------------------------------------------


def _finder(folder: Path) -> FileFinder:
    """Finds the images and videos of settings in `folder`: next to their file, otherwise in the root."""

    def find(workspace: Workspace, name: str) -> Path:
        beside = folder / expand(name)
        return _store(workspace, beside if is_file(beside) else workspace.root / expand(name), name)

    return find


def _store(workspace: Workspace, path: Path, name: str) -> Path:
    """A file of this machine among the uploads, where a job finds it later. Raises MediaError, FileError."""
    shown = clean_text(name)[:_MAX_NAME]
    if not is_file(path):
        hint = "Put it next to the file with the settings, or into the working folder."
        raise MediaError(f"{shown!r} doesn't exist.", hint=hint)
    if workspace.confined(path) is not None:
        return path
    try:
        if path.stat().st_size > MAX_BYTES:
            raise MediaError(f"{shown!r} has more than {MAX_BYTES:,} bytes.", hint="Use a smaller file.")
        kind = kind_of(path)
        if not kind.image and not kind.container and kind.label != NUMPY_FILE:
            raise MediaError(f"{shown!r} is {kind.label}, not an image or a video.")
        return copy_to_uploads(workspace, path, accepted_name(path, path.name))
    except OSError as error:
        message = f"{shown!r} can't be stored in {workspace.uploads}: {reason(error)}."
        raise FileError(message, hint="Check the folder and the disk.") from error


def names_of(settings: Mapping[str, Any], key: str) -> list[str]:
    """The paths in a setting for input files. Raises SettingsError for a value that is no path."""
    value = settings.get(key)
    names = []
    for name in value if isinstance(value, list | tuple) else [value]:
        if isinstance(name, str):
            names.append(name)
        elif name is not None:
            raise SettingsError(f"Invalid value for {key}.", hint="Use the path of a file.")
    return [name for name in names if name]
