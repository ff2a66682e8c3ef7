"""Rows of the queue's file as `Job` values: whatever a row holds, a job comes of it, and no row hides the others."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Sequence
from typing import Any

from reeltune.errors import InvalidJSON
from reeltune.families.values import Settings
from reeltune.jobs.job import Job, State, WaitingJob
from reeltune.untrusted import clean_text, decode_text, parse_json

LARGEST_POSITION = 2**53  # of those this program writes; a larger one was written by another, and is ignored
_LATEST = 1e11  # seconds since 1970, the year 5138
_STATES = frozenset(str(state) for state in State)
_DAMAGED = "The queue's file holds no usable {} for this job."
_REMOVE = "Remove it; it can't be run."


def as_job(row: sqlite3.Row) -> Job:
    """A row as a value.

    One whose definition or settings can't be read is `damaged`, and failed where it would wait. Of everything else that
    is damaged, or of a newer version, the default is used.
    """
    values = dict(zip(row.keys(), row, strict=True))
    settings = _parsed(values.get("settings"), dict)
    definition = values.get("definition")
    problem = ""
    if not isinstance(definition, str) or not definition:
        problem = _DAMAGED.format("definition")
    elif settings is None:
        problem = _DAMAGED.format("settings")
    state = as_state(values.get("state"))
    if problem and state in (State.QUEUED, State.RUNNING):
        state = State.FAILED
    started, finished = _time(values.get("started")), _time(values.get("finished"))
    return Job(
        id=_whole(values.get("id")),
        definition=_text(definition),
        settings=settings or {},
        state=state,
        position=_whole(values.get("position")),
        created=_time(values.get("created")),
        started=started,
        finished=max(started, finished) if finished else 0.0,
        progress=_text(values.get("progress")),
        error=problem or _text(values.get("error")),
        hint=_REMOVE if problem else _text(values.get("hint")),
        outputs=_texts(values.get("outputs")),
        latents=_path(values.get("latents")),
        notices=_texts(values.get("notices")),
        extra=_parsed(values.get("extra"), dict) or {},
        attempts=_whole(values.get("attempt")),
        worker=_text(values.get("worker")),
        lease=_time(values.get("lease")),
        deaths=max(0, _whole(values.get("deaths"))),
        confined=values.get("confined") != 0,
        damaged=bool(problem),
    )


def as_waiting(row: sqlite3.Row) -> WaitingJob:
    """The few columns of a waiting job that decide when and where it runs."""
    loras = loras_of(_parsed(row["loras"], list))
    return WaitingJob(row["id"], _text(row["definition"]), loras, _whole(row["position"]), _time(row["created"]))


def loras_of(value: Any) -> tuple[str, ...] | None:
    """The LoRAs of a job's settings; None where it has those of its definition."""
    return tuple(item for item in value if isinstance(item, str)) if isinstance(value, list) else None


def dumped(value: Settings | Sequence[str]) -> str:
    """A value as it is stored."""
    return clean_text(json.dumps(value, ensure_ascii=False, default=str))


def as_state(value: Any) -> State:
    """The state in a row; one that this version doesn't know counts as interrupted."""
    return State(value) if isinstance(value, str) and value in _STATES else State.INTERRUPTED


def _parsed(value: Any, kind: type) -> Any:
    """The JSON value of a column, where it is of the kind; else None."""
    if value in ("{}", "[]"):  # most columns of most rows
        return kind() if (value == "{}") == (kind is dict) else None
    if not isinstance(value, str | bytes):
        return None
    try:
        parsed = parse_json(value, "a row")
    except InvalidJSON:
        return None
    return parsed if isinstance(parsed, kind) else None


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        value = decode_text(value)
    return clean_text(value) if isinstance(value, str) else ""


def _texts(value: Any) -> tuple[str, ...]:
    texts = _parsed(value, list) or []
    return tuple(item for item in texts if isinstance(item, str) and "\0" not in item)


def _path(value: Any) -> str:
    text = _text(value)
    return "" if "\0" in text else text


def _whole(value: Any) -> int:
    return value if isinstance(value, int) and abs(value) < LARGEST_POSITION else 0


def _time(value: Any) -> float:
    number = float(value) if isinstance(value, int | float) else 0.0
    return number if math.isfinite(number) and 0 <= number <= _LATEST else 0.0
