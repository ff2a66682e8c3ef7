"""What a person is about to make: a model, its settings as the form holds them, and the job they edit, if any."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reeltune.definitions import Definition
from reeltune.engine.request import build_request, complete_settings
from reeltune.errors import ReeltuneError
from reeltune.files import write_atomic
from reeltune.jobs import Job
from reeltune.settings import check_call, read_settings_file, videos_asked
from reeltune.web.fields import collect, defaults, fields_of, inputs_of
from reeltune.web.studio import Studio
from reeltune.web.uploads import checked_inputs

Draft = dict[
    str, Any
]  # {"id", "settings", "job", "said", "turn"}: plain, as sessions keep it; the turn tells equal ones apart


def saved_file(studio: Studio, id: str) -> Path:
    """Where the settings are that a model starts from here, if they were saved."""
    return studio.root / "settings" / f"{id}_settings.json"


def fresh(studio: Studio, id: str) -> Draft:
    """A model with the settings it starts from."""
    try:
        definition = studio.catalog()[id]
        path = saved_file(studio, id)
        stored, unknown = read_settings_file(path) if path.exists() else ({}, [])
    except ReeltuneError as error:
        return _draft(id, {}, said=[str(error)])
    said = [f"{path.name}: unknown settings {', '.join(unknown)} are ignored."] if unknown else []
    return _draft(id, defaults(definition, stored), said=said)


def of_settings(studio: Studio, id: str, settings: Mapping[str, Any], unknown: list[str]) -> Draft:
    """A model with settings from a file; what it doesn't use is said."""
    base = fresh(studio, id)
    try:
        definition = studio.catalog()[id]
    except ReeltuneError:
        return base
    shown = {row.key for row in (*fields_of(definition), *inputs_of(definition.architecture))}
    taken = {key: value for key, value in settings.items() if key in shown}
    gone = [key for key in taken if key in {row.key for row in inputs_of(definition.architecture)} and
            not _there(studio, taken[key])]  # fmt: skip
    for key in gone:
        del taken[key]
    said = [f"Unknown settings are left out: {', '.join(unknown)}."] if unknown else []
    if gone:
        said.append(f"The files of {', '.join(gone)} aren’t here any more: upload them again.")
    return _draft(id, base["settings"] | taken, said=said)


def _there(studio: Studio, value: Any) -> bool:
    paths = value if isinstance(value, list) else [value]
    return all(path in (None, "") or ((found := studio.confined(path)) and found.is_file()) for path in paths)


def of_job(studio: Studio, job: Job) -> Draft:
    """The settings of a job that waits, to be changed."""
    return {**of_settings(studio, job.definition, job.settings, []), "job": job.id}


def _draft(id: str, settings: dict[str, Any], said: list[str]) -> Draft:
    return {"id": id, "settings": settings, "job": None, "said": said, "turn": secrets.token_hex(4)}


def check(studio: Studio, definition: Definition, values: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """A job's settings from the form's values, held against everything that can be known before loading.

    Returns them and what is worth saying. Raises SettingsError, MediaError, NotRunnable with what to mend.
    """
    settings = checked_inputs(studio, definition, check_call(collect(definition, values)))
    complete, notices = complete_settings(definition, settings)
    asked = videos_asked(complete)
    for one in asked[:1]:
        _, more = build_request(definition.architecture, one, definition.root)
        notices += more
    if len(asked) > 1:
        notices.append(f"It makes {len(asked)} videos.")
    return settings, notices


def save_defaults(studio: Studio, id: str, settings: Mapping[str, Any]) -> Path:
    """Let a model start from these settings from now on."""
    path = saved_file(studio, id)
    text = json.dumps({"model_type": id, **settings}, indent=4, ensure_ascii=False) + "\n"
    write_atomic(path, text.encode("utf-8"))
    return path
