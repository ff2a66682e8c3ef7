"""Drafts: a model with the settings of the video that somebody is about to make, and the job they edit, if any.

draft = new_draft(workspace, "t2v")
settings, notices = check_draft(workspace, workspace.catalog()[draft.id], form_values)
workspace.queue.add(draft.id, settings)
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from reeltune.definitions import Definition
from reeltune.errors import ReeltuneError
from reeltune.families.values import Settings
from reeltune.files import write_atomic
from reeltune.jobs import Job
from reeltune.planning.positions import check_positions
from reeltune.request.parse import parse
from reeltune.request.values import Request
from reeltune.service.fields import (
    FormValues,
    displayed_settings,
    fields_of,
    initial_settings,
    inputs_of,
    settings_from_form,
)
from reeltune.service.loras import check_loras
from reeltune.service.settings_files import (
    FileSettings,
    checked_inputs,
    import_inputs,
    missing_inputs,
    read_settings_of,
)
from reeltune.service.uploads import discard_json_upload, uploaded_file
from reeltune.service.workspace import Workspace
from reeltune.settings import check_call, listed, read_settings, settings_text, stored_layer, stored_settings


@dataclass(frozen=True)
class Message:
    """The answer to the last action: `text` reports what was done, `notices` what the user should know about it."""

    text: str
    notices: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)  # drafts with equal settings are still different drafts
class VideoDraft:
    """A model `id` with the `settings` of a video.

    `initial`: the settings the model starts from. `job`: id of the job that is edited. `notices`: what could not be
    used of the settings. `message`: the answer to the last action. `blocked`: why the model can't run here. `basis`:
    a hash of everything in the definition that a form shows. `version`: different for every draft.
    """

    id: str
    settings: Settings
    initial: Settings
    job: int | None = None
    notices: tuple[str, ...] = ()
    message: Message | None = None
    blocked: str = ""
    basis: str = ""
    version: str = field(default_factory=lambda: secrets.token_hex(4))

    def with_changes(self, **changes: Any) -> VideoDraft:
        """Another draft that differs in `changes`."""
        return replace(self, version=secrets.token_hex(4), **changes)


def defaults_file(workspace: Workspace, id: str) -> Path:
    """The file with the settings that the user saved as a model's defaults; it may not exist."""
    return workspace.root / "settings" / f"{id}_settings.json"


def save_defaults(workspace: Workspace, id: str, settings: Settings) -> Path:
    """Save settings as a model's defaults; returns the file. Raises FileError."""
    path = defaults_file(workspace, id)
    write_atomic(path, settings_text(id, settings).encode("utf-8"))
    return path


# --- new drafts -------------------------------------------------------------------------------------------------


def new_draft(workspace: Workspace, id: str, message: Message | None = None) -> VideoDraft:
    """A draft with the settings that a model starts from."""
    settings, notices = _initial(workspace, id)
    return VideoDraft(
        id=id,
        settings=settings,
        initial=settings,
        notices=notices,
        message=message,
        blocked=workspace.blocked(id),
        basis=_basis(workspace, id),
    )


def _initial(workspace: Workspace, id: str) -> tuple[Settings, tuple[str, ...]]:
    """The settings a model starts from, and notices about the file with its defaults."""
    try:
        definition = workspace.catalog()[id]
    except ReeltuneError:  # a definition that can't be read has no form; its error is shown in place of the model
        return {}, ()
    try:
        stored = stored_settings(workspace.root, id)
    except ReeltuneError as error:
        return initial_settings(definition), (str(error),)
    return initial_settings(definition, stored.settings), tuple(stored.notices())


def draft_with_settings(workspace: Workspace, id: str, settings: Settings, unknown: tuple[str, ...] = ()) -> VideoDraft:
    """A draft with settings from a file. Its notices report `unknown` keys and files that no longer exist.

    Images and videos from elsewhere on this machine are copied to the uploads.
    """
    draft = new_draft(workspace, id)
    try:
        definition = workspace.catalog()[id]
    except ReeltuneError:
        return draft
    if "type" in settings or "settings_version" in settings:  # a whole settings file, possibly of another program
        settings = stored_layer(definition.architecture, settings)
    used_keys = {shown.key for shown in (*fields_of(definition, settings), *inputs_of(definition.architecture))}
    used = import_inputs(workspace, {key: value for key, value in settings.items() if key in used_keys})
    missing = missing_inputs(workspace, definition, used)
    used = {key: value for key, value in used.items() if key not in missing}
    notices = list(draft.notices)
    if unknown:
        notices.append(f"Unknown settings are ignored: {listed(list(unknown))}.")
    if missing:
        notices.append(f"The files of {', '.join(missing)} no longer exist. Upload them again.")
    displayed = displayed_settings({**draft.settings, **used}, definition.architecture)
    return draft.with_changes(settings=displayed, notices=tuple(notices))


def draft_of_job(workspace: Workspace, job: Job, *, edit: bool) -> VideoDraft:
    """A draft with the settings of a job. `edit`: the draft changes that job instead of making another one."""
    stored = read_settings(job.settings)  # the queue's file may hold anything
    invalid = tuple(problem.where for problem in stored.problems)
    draft = draft_with_settings(workspace, job.definition, stored.settings, (*stored.unknown, *invalid))
    message = Message(f"The form shows the settings of job {job.id}.")
    return draft.with_changes(job=job.id if edit else None, message=message)


def draft_of_stored(workspace: Workspace, current: str, stored: FileSettings, name: str) -> VideoDraft:
    """A draft with the settings of the file `name`.

    Its model is the one that the file names, else the base model of its architecture, else `current`, whichever
    exists first. The message reports when that isn't the model of the file.
    """
    catalog = workspace.catalog()
    id = next((id for id in (stored.definition, stored.architecture) if id in catalog), current)
    notices: tuple[str, ...] = ()
    if stored.definition and id != stored.definition:
        notices = (f"The model {stored.definition} does not exist here. Its settings are used with {id}.",)
    draft = draft_with_settings(workspace, id, stored.settings, stored.unknown)
    return draft.with_changes(message=Message(f"The form shows the settings of {name}.", notices))


def draft_of_upload(workspace: Workspace, current: str, path: str) -> VideoDraft:
    """A draft with the settings of an uploaded video, image or settings file. Raises ReeltuneError.

    An uploaded JSON file is deleted afterwards.
    """
    upload = uploaded_file(workspace, path)
    try:
        stored = read_settings_of(upload)
    finally:
        discard_json_upload(workspace, upload)
    return draft_of_stored(workspace, current, stored, upload.name)


# --- definitions that change while a form is open ---------------------------------------------------------------


def outdated(workspace: Workspace, draft: VideoDraft) -> str:
    """A text that changes with every change of the definition since the draft was made; empty if there was none."""
    basis, blocked = _basis(workspace, draft.id), workspace.blocked(draft.id)
    if (basis, blocked) == (draft.basis, draft.blocked):
        return ""
    return f"{draft.version} {basis} {blocked}"


def updated(workspace: Workspace, draft: VideoDraft, form_values: FormValues) -> VideoDraft:
    """The draft for the definition as it is now. Keeps the form's values that differ from the old initial settings."""
    changed = {key: value for key, value in form_values.items() if _or_none(value) != _or_none(draft.initial.get(key))}
    current = new_draft(workspace, draft.id)
    return current.with_changes(settings={**current.settings, **changed}, job=draft.job)


def _or_none(value: Any) -> Any:
    return None if value in ("", []) else value


def _basis(workspace: Workspace, id: str) -> str:
    try:
        definition = workspace.catalog()[id]
    except ReeltuneError:
        return ""
    variants = [(choice.id, choice.label) for choice in definition.variants.choices] if definition.variants else []
    shown = (
        definition.name,
        definition.architecture.id,
        sorted(definition.architecture.settings),
        sorted(definition.slots),
        dict(definition.settings),
        definition.resolutions,
        variants,
    )
    return hashlib.sha1(repr(shown).encode("utf-8", "replace")).hexdigest()


# --- checks -----------------------------------------------------------------------------------------------------


def check_draft(workspace: Workspace, definition: Definition, form_values: FormValues) -> tuple[Settings, list[str]]:
    """The settings of a job from the values of a form, and notices about them. Raises as `check_settings`."""
    checked = check_settings(workspace, definition, settings_from_form(definition, form_values))
    return checked.settings, list(checked.notices)


@dataclass(frozen=True)
class CheckedSettings:
    """Settings as they are stored in a job, the request of its first video, and notices about them."""

    settings: Settings
    first: Request
    notices: tuple[str, ...]


def check_settings(workspace: Workspace, definition: Definition, values: Settings) -> CheckedSettings:
    """Check everything that can be known before the model is loaded.

    Raises SettingsError, MediaError, NotRunnable.
    """
    settings = checked_inputs(workspace, definition, check_call(values))
    parsed = parse(definition, settings)
    check_positions(workspace.explain(parsed.definition), parsed.requests[0])
    notices = [*parsed.notices, *check_loras(workspace, definition, settings.get("activated_loras") or ())]
    if len(parsed.requests) > 1:
        notices.append(f"It makes {len(parsed.requests)} videos.")
    return CheckedSettings(settings, parsed.requests[0], tuple(notices))
