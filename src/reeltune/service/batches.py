"""Batches: many videos from files with settings, checked as a whole before the first one is made.

plan = plan_batch(workspace, [Path("queue.zip")])
for entry in plan.entries:
    print(entry.name, entry.error or entry.summary)
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reeltune._text import counted
from reeltune.definitions import Definition
from reeltune.errors import DefinitionNotFound, ReeltuneError, SettingsError
from reeltune.events import CancelToken
from reeltune.families.values import Settings
from reeltune.families.vocabulary import KEYS
from reeltune.media.kinds import display
from reeltune.request.parse import check_runnable, complete_settings, parse
from reeltune.service.batch_sources import MAX_ENTRIES, FileFinder, SourceEntry, find_sources, names_of, open_source
from reeltune.service.drafts import check_settings
from reeltune.service.workspace import Workspace
from reeltune.settings import listed, stored_layer
from reeltune.untrusted import clean_text

_MAX_ID = 60  # characters of an id in a message


@dataclass(frozen=True)
class EntrySummary:
    """What an entry makes. `seed`: None for a random one. `missing_bytes`: to download; None while it is unknown."""

    videos: int
    width: int
    height: int
    frames: int
    fps: int
    steps: int
    seed: int | None
    missing_files: int
    missing_bytes: int | None


@dataclass(frozen=True)
class BatchEntry:
    """One job of a batch, or the reason why it can't be one.

    `source`: the file it is from. `position`: its place there, counted from 1; 0 for a file that can't be used as a
    whole. `settings`: as the queue gets them. `fingerprint`: a hash of what
    it makes. `error`: why it can't be made, otherwise None.
    """

    source: Path
    position: int
    entries: int = 1  # of the same file
    definition: str = ""
    settings: Settings = field(default_factory=dict)
    notices: tuple[str, ...] = ()
    summary: EntrySummary | None = None
    fingerprint: str = ""
    error: ReeltuneError | None = None

    @property
    def name(self) -> str:
        """How to call it: its file, and its place if the file has several."""
        name = display(Path(self.source.name))
        return f"{name}, entry {self.position}" if self.entries > 1 else name

    @property
    def prompt(self) -> str:
        """Its prompt on one line."""
        return " ".join(str(self.settings.get("prompt", "")).split())


@dataclass(frozen=True)
class BatchPlan:
    """The entries of all files of a batch, in order, and notices that are about none of them."""

    entries: tuple[BatchEntry, ...]
    notices: tuple[str, ...] = ()

    @property
    def usable(self) -> tuple[BatchEntry, ...]:
        """The entries that can be made."""
        return tuple(entry for entry in self.entries if entry.error is None)

    @property
    def broken(self) -> tuple[BatchEntry, ...]:
        """The entries that can't be made."""
        return tuple(entry for entry in self.entries if entry.error is not None)


def plan_batch(workspace: Workspace, paths: Sequence[Path], cancel: CancelToken | None = None) -> BatchPlan:
    """Read and check the files of a batch. Their images and videos are stored among the uploads.

    An entry or a file that can't be used has an error and doesn't affect the others. Raises FileError for a path that
    doesn't exist, SettingsError for too many entries, Cancelled.
    """
    sources = find_sources(paths)
    entries: list[BatchEntry] = []
    notices = [*sources.notices]
    for path in sources.files:
        for entry in _entries_of(workspace, path, notices):
            entries.append(entry)
            if len(entries) > MAX_ENTRIES:
                message = f"The batch has more than {MAX_ENTRIES:,} entries."
                raise SettingsError(message, hint="Give fewer files at a time.")
            if cancel is not None:
                cancel.check()
    return BatchPlan(tuple(entries), tuple(notices))


def _entries_of(workspace: Workspace, path: Path, notices: list[str]) -> Iterator[BatchEntry]:
    """The checked entries of a file."""
    try:
        with open_source(path) as source:
            for entry in source.entries:
                yield _checked(workspace, path, entry, len(source.entries), source.find)
            if not source.entries:
                notices.append(f"{display(path)} contains no entries.")
            unused = list(source.unused())
            if unused:
                files = counted(len(unused), "file")
                notices.append(f"{display(path)}: {files} that no usable entry names: {listed(unused)}.")
    except ReeltuneError as error:
        yield BatchEntry(path, 0, error=error)


def _checked(workspace: Workspace, path: Path, entry: SourceEntry, count: int, find: FileFinder) -> BatchEntry:
    definition_id, notices = entry.definition, entry.notices
    try:
        if entry.error is not None:
            raise entry.error
        definition, notice = _definition(workspace, entry)
        definition_id = definition.id
        check_runnable(definition)
        workspace.machine.check_device(workspace.preferences().device)
        layer = stored_layer(definition.architecture, entry.settings, entry.program)
        given = {key: value for key, value in layer.items() if not KEYS[key].descriptive}
        checked = check_settings(workspace, definition, _with_files(workspace, definition, given, find))
        settings = checked.settings
        summary = _summary(workspace, definition, settings)
    except ReeltuneError as error:
        return BatchEntry(path, entry.position, count, clean_text(definition_id), notices=notices, error=error)
    notices = tuple(dict.fromkeys((*notices, *notice, *checked.notices)))
    fingerprint = _fingerprint(workspace, definition, settings)
    return BatchEntry(path, entry.position, count, definition_id, settings, notices, summary, fingerprint)


def _fingerprint(workspace: Workspace, definition: Definition, settings: Settings) -> str:
    """A hash of a definition's id and settings, in which uploads count by their sha256, wherever they are stored."""
    uploads = workspace.uploads.resolve()
    stored = {}
    for model_input in definition.architecture.inputs:
        paths = [(workspace.root / name).resolve() for name in names_of(settings, model_input.key)]
        stored[model_input.key] = [
            path.relative_to(uploads).as_posix() if path.is_relative_to(uploads) else str(path) for path in paths
        ]
    text = json.dumps([definition.id, {**settings, **stored}], sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


def _definition(workspace: Workspace, entry: SourceEntry) -> tuple[Definition, tuple[str, ...]]:
    """The definition of an entry: the one that it names, otherwise the base model of its architecture, with a notice.

    Raises DefinitionError.
    """
    catalog = workspace.catalog()
    if not entry.definition and not entry.architecture:
        message = "It doesn't name its model (model_type)."
        raise SettingsError(message, hint='Add "model_type": "ID"; `reeltune list` lists the ids.')
    if entry.definition and (entry.definition in catalog or entry.architecture not in catalog):
        return catalog[entry.definition], ()
    if entry.architecture not in catalog:
        message = f"There is no model {clean_text(entry.architecture)[:_MAX_ID]!r}."
        raise DefinitionNotFound(message, hint="`reeltune list` lists the ids.")
    notice = f"The model {clean_text(entry.definition)[:_MAX_ID]} does not exist here; {entry.architecture} is used."
    return catalog[entry.architecture], (notice,) if entry.definition else ()


def _with_files(workspace: Workspace, definition: Definition, settings: Settings, find: FileFinder) -> Settings:
    """The settings with the paths of stored files. Raises SettingsError for several files where one is used."""
    found: dict[str, Any] = {}
    for model_input in definition.architecture.inputs:
        key = model_input.key
        names = names_of(settings, key)
        if not names:
            continue
        several = model_input.kind == "images"
        if len(names) > 1 and not several:
            raise SettingsError(f"{key} has {len(names)} files; one can be used.", hint="Make an entry for each file.")
        try:
            paths = [str(find(workspace, name)) for name in names]
        except ReeltuneError as error:
            raise SettingsError(f"{key}: {error.message}", hint=error.hint) from error
        found[key] = paths if several else paths[0]
    return {**settings, **found}


def _summary(workspace: Workspace, definition: Definition, settings: Settings) -> EntrySummary:
    parsed = parse(definition, settings)
    requests = parsed.requests
    seed = complete_settings(definition, settings)[0].get("seed", -1)
    plan = workspace.explain(parsed.definition)
    first = requests[0]
    return EntrySummary(
        videos=len(requests),
        width=first.width,
        height=first.height,
        frames=first.frames,
        fps=first.fps,
        steps=first.steps,
        seed=seed if seed >= 0 else None,
        missing_files=len(plan.missing),
        missing_bytes=workspace.missing_bytes(plan) if plan.missing else 0,
    )
