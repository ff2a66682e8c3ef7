"""Jobs as a JSON file, to move them to another root or another machine."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from reeltune.errors import InvalidJSON, QueueError
from reeltune.families.values import Settings
from reeltune.jobs.job import BATCH, CHECKED, Job
from reeltune.settings import read_settings
from reeltune.untrusted import JsonObject, parse_json

_MOST_CHARACTERS = 20_000_000  # of a file
_SCHEMA_VERSION = 1
_HINT = "Choose a file that was exported here."
_LEFT_OUT = "unknown_settings"  # key of a job's `extra`


@dataclass(frozen=True)
class NewJob:
    """A job to add. `extra`: fields that this version doesn't know."""

    definition: str
    settings: Settings
    extra: JsonObject = field(default_factory=dict)


def export_text(jobs: Iterable[Job]) -> str:
    """Jobs as JSON, for `read_export` here or elsewhere."""
    exported = [{**_kept(job.extra), "definition": job.definition, "settings": dict(job.settings)} for job in jobs]
    content = {"schema_version": _SCHEMA_VERSION, "jobs": exported}
    return json.dumps(content, indent=2, ensure_ascii=False, default=str)


def read_export(text: str, most_jobs: int) -> list[NewJob]:
    """The jobs of an exported file. Unknown fields and settings are kept. Raises QueueError, SettingsError."""
    try:
        content = parse_json(text, "The file", max_bytes=_MOST_CHARACTERS)
    except InvalidJSON as error:
        raise QueueError(str(error), hint=_HINT) from error
    exported = content.get("jobs") if isinstance(content, dict) else None
    if not isinstance(exported, list):
        raise QueueError("The file holds no list of jobs.", hint=_HINT)
    if len(exported) > most_jobs:
        raise QueueError(f"The file holds {len(exported):,} jobs, of {most_jobs:,} at most.")
    return [_new_job(value, number) for number, value in enumerate(exported, start=1)]


def _new_job(value: Any, number: int) -> NewJob:
    definition = value.get("definition") if isinstance(value, dict) else None
    settings = value.get("settings") if isinstance(value, dict) else None
    if not isinstance(definition, str) or not isinstance(settings, dict):
        raise QueueError(f"Job {number} of the file lacks its `definition` or its `settings`.")
    stored = read_settings(settings)
    extra = {key: item for key, item in _kept(value).items() if key not in ("definition", "settings")}
    unused = {*stored.unknown, *(problem.where for problem in stored.problems)}
    if unused:  # settings of a newer version, say
        extra[_LEFT_OUT] = {key: item for key, item in settings.items() if key in unused}
    return NewJob(definition, stored.settings, extra)


def left_out_settings(job: Job) -> tuple[str, ...]:
    """The keys of the settings that an imported job was read without: unknown ones, and those with invalid values."""
    left_out = job.extra.get(_LEFT_OUT)
    return tuple(left_out) if isinstance(left_out, dict) else ()


def _kept(fields: JsonObject) -> JsonObject:
    """The fields without the mark of an unfinished batch, which has a meaning only in its own root."""
    return {key: value for key, value in fields.items() if key not in (BATCH, CHECKED)}
