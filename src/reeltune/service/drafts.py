"""What a person is about to make: a model, its settings as the form holds them, and the job they edit, if any."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reeltune.definitions import Definition
from reeltune.errors import ReeltuneError
from reeltune.files import write_atomic
from reeltune.jobs import Job
from reeltune.planning.positions import check_positions
from reeltune.request.parse import parse
from reeltune.service.fields import as_shown, collect, defaults, fields_of, inputs_of
from reeltune.service.studio import Studio
from reeltune.service.uploads import adopted, checked_inputs
from reeltune.settings import check_call, listed, settings_text, stored_layer, stored_settings
from reeltune.web.markup import good, notes

# Plain, as sessions keep it: "id", "settings", "start" (the settings the model starts from), "job" (that is edited),
# "said" (notices), "message" (HTML that answers what was done last), "blocked" (why the model can't run), "basis" (what
# of the definition the form was drawn from), "turn" (tells equal drafts apart).
Draft = dict[str, Any]


def saved_file(studio: Studio, id: str) -> Path:
    """Where the settings are that a model starts from here, if they were saved."""
    return studio.root / "settings" / f"{id}_settings.json"


def fresh(studio: Studio, id: str, message: str = "") -> Draft:
    """A model with the settings it starts from."""
    settings, said = _start(studio, id)
    return _draft(studio, id, settings, said) | {"message": message}


def _start(studio: Studio, id: str) -> tuple[dict[str, Any], list[str]]:
    """The settings a model starts from, and notices about the file that stores them."""
    try:
        definition = studio.catalog()[id]
    except ReeltuneError:  # shown above the form, which isn't drawn
        return {}, []
    try:
        stored = stored_settings(studio.root, id)
    except ReeltuneError as error:
        return defaults(definition), [str(error)]
    return defaults(definition, stored.settings), stored.notices()


def stale(studio: Studio, draft: Draft) -> str:
    """Other words for each definition that the form has yet to follow; empty where it is up to date."""
    basis, blocked = _basis(studio, draft["id"]), studio.blocked(draft["id"])
    if (basis, blocked) == (draft["basis"], draft["blocked"]):
        return ""
    return f"{draft['turn']} {basis} {blocked}"


def renewed(studio: Studio, draft: Draft, values: Mapping[str, Any]) -> Draft:
    """The draft on its definition as it is now, with what was changed in the form; `values`: what stands in it."""
    settings, said = _start(studio, draft["id"])
    before = draft["start"]
    changed = {key: value for key, value in values.items() if _or_none(value) != _or_none(before.get(key))}
    fresh = _draft(studio, draft["id"], settings, said)
    return {**fresh, "settings": {**settings, **changed}, "job": draft["job"]}


def _or_none(value: Any) -> Any:
    return None if value in ("", []) else value


def _basis(studio: Studio, id: str) -> str:
    """What the form is drawn from, short: it differs where another form would be drawn."""
    try:
        definition = studio.catalog()[id]
    except ReeltuneError:
        return ""
    shown = (definition.name, definition.architecture.id, sorted(definition.slots), dict(definition.settings))
    return hashlib.sha1(repr(shown).encode("utf-8", "replace")).hexdigest()


def of_settings(studio: Studio, id: str, settings: Mapping[str, Any], unknown: list[str]) -> Draft:
    """A model with settings from a file, and notices on what can't be used of them.

    Images and videos that lie elsewhere on this machine are copied to the uploads.
    """
    base = fresh(studio, id)
    try:
        definition = studio.catalog()[id]
    except ReeltuneError:
        return base
    shown = {row.key for row in (*fields_of(definition), *inputs_of(definition.architecture))}
    if "type" in settings or "settings_version" in settings:  # a file of this or of another program
        settings = stored_layer(definition.architecture, settings)
    taken = adopted(studio, {key: value for key, value in settings.items() if key in shown})
    gone = [key for key in taken if key in {row.key for row in inputs_of(definition.architecture)} and
            not _there(studio, taken[key])]  # fmt: skip
    for key in gone:
        del taken[key]
    said = [f"Unknown settings are left out: {listed(unknown)}."] if unknown else []
    if gone:
        said.append(f"The files of {', '.join(gone)} aren’t here any more: upload them again.")
    complete = as_shown(base["settings"] | taken, definition.architecture)
    return {**base, "settings": complete, "said": [*base["said"], *said]}


def of_file(
    studio: Studio, ids: tuple[str, str, str], settings: Mapping[str, Any], unknown: list[str], name: str
) -> Draft:
    """A model with the settings of a file. `ids`: the definition it names, its architecture, and the current model.

    The first of them that is here is used; where that isn't the definition the file names, the message reports it.
    Files of the settings that lie elsewhere on this machine are copied to the uploads.
    """
    named, architecture, current = ids
    catalog = studio.catalog()
    used = next((id for id in (named, architecture) if id in catalog), current)
    message = good(f"The settings of {name} are in the form.")
    if named and used != named:
        message += notes([f"It was made with {named}, which isn’t here; {used} gets its settings."])
    return of_settings(studio, used, settings, unknown) | {"message": message}


def _there(studio: Studio, value: Any) -> bool:
    paths = value if isinstance(value, list) else [value]
    return all(path in (None, "") or ((found := studio.confined(path)) and found.is_file()) for path in paths)


def of_job(studio: Studio, job: Job) -> Draft:
    """The settings of a job that waits, to be changed."""
    return {**of_settings(studio, job.definition, job.settings, []), "job": job.id}


def _draft(studio: Studio, id: str, settings: dict[str, Any], said: list[str]) -> Draft:
    return {
        "id": id, "settings": settings, "start": settings, "job": None, "said": said, "message": "",
        "blocked": studio.blocked(id), "basis": _basis(studio, id), "turn": secrets.token_hex(4),
    }  # fmt: skip


def check(studio: Studio, definition: Definition, values: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """A job's settings from the form's values, held against everything that can be known before loading.

    Returns them and what is worth saying. Raises SettingsError, MediaError, NotRunnable with what to mend.
    """
    settings = checked_inputs(studio, definition, check_call(collect(definition, values)))
    parsed = parse(definition, settings)
    check_positions(studio.explain(definition), parsed.requests[0])
    notices = list(parsed.notices)
    if len(parsed.requests) > 1:
        notices.append(f"It makes {len(parsed.requests)} videos.")
    return settings, notices


def save_defaults(studio: Studio, id: str, settings: Mapping[str, Any]) -> Path:
    """Let a model start from these settings from now on."""
    path = saved_file(studio, id)
    write_atomic(path, settings_text(id, settings).encode("utf-8"))
    return path
