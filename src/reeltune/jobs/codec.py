"""Messages between runner and worker as lines of JSON, and lines as messages.

    line = pack_event(attempt, Progress("denoise", 3, 20))
    received = unpack_event(line)

A line is one object: `{"schema_version": 1, "type": "progress", "attempt": {"job": 3, "number": 1}, "stage": …}`. The
two sides may be of different versions: an unknown type, an unknown field or an invalid value is a problem to report,
and whatever else the line holds is used.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import json
import types
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast, get_args, get_origin, get_type_hints

from reeltune.errors import InvalidJSON
from reeltune.events import Batch, FilesUsed, LatentsStored, Notice, Planned, Preview, Progress
from reeltune.jobs.job import Attempt
from reeltune.jobs.messages import CancelTask, Done, Failed, Ready, RunTask, Saved, Stopped, Task, WorkerEvent
from reeltune.untrusted import JsonObject, parse_json

SCHEMA_VERSION = 1
_MOST_BYTES = 64_000_000  # of a line; a preview is the largest
_TASKS: dict[str, type[Any]] = {"run": RunTask, "cancel": CancelTask}
_EVENTS: dict[str, type[Any]] = {
    "progress": Progress,
    "notice": Notice,
    "planned": Planned,
    "preview": Preview,
    "kept": LatentsStored,
    "batch": Batch,
    "using": FilesUsed,
    "ready": Ready,
    "saved": Saved,
    "done": Done,
    "cancelled": Stopped,
    "failed": Failed,
}
_NAMES = {message_type: name for name, message_type in (*_TASKS.items(), *_EVENTS.items())}
_ENVELOPE = frozenset({"schema_version", "type", "attempt"})  # in every line, beside the fields of the message


@dataclass(frozen=True)
class ReceivedTask:
    """A line that was sent to a worker. `task` is None where it can't be understood; `attempt` where it names none."""

    type: str
    attempt: Attempt | None
    task: Task | None
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class ReceivedEvent:
    """A line that a worker sent. `event` is None where it can't be understood; `attempt` where it names none."""

    attempt: Attempt | None
    event: WorkerEvent | None
    problems: tuple[str, ...] = ()


def pack_task(task: Task) -> bytes:
    """A task as a line."""
    return _line(_NAMES[type(task)], _encoded(task))


def pack_event(attempt: Attempt | None, event: WorkerEvent) -> bytes:
    """An event as a line; `attempt` is None for one that belongs to no job."""
    return _line(_NAMES[type(event)], _encoded(event) | {"attempt": _encoded(attempt)})


def unpack_task(line: bytes) -> ReceivedTask:
    """The task of a line. Raises ValueError for a line that is no JSON object."""
    values, problems = _opened(line)
    attempt = _attempt(values)
    name = str(values.get("type"))
    message = _message(_TASKS, name, values, problems)
    return ReceivedTask(name, attempt, cast("Task | None", message), tuple(problems))


def unpack_event(line: bytes) -> ReceivedEvent:
    """The event of a line. Raises ValueError for a line that is no JSON object."""
    values, problems = _opened(line)
    message = _message(_EVENTS, str(values.get("type")), values, problems)
    return ReceivedEvent(_attempt(values), cast("WorkerEvent | None", message), tuple(problems))


# --- writing ----------------------------------------------------------------------------------------------------------


def _line(name: str, fields: JsonObject) -> bytes:
    message = {"schema_version": SCHEMA_VERSION, "type": name, **fields}
    return json.dumps(message, ensure_ascii=True, default=str).encode("ascii") + b"\n"


def _encoded(value: Any) -> Any:
    """A dataclass, or a value of one of its fields, as JSON has it."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, tuple):
        return [_encoded(item) for item in value]
    if isinstance(value, Mapping):
        return dict(value)
    if dataclasses.is_dataclass(value):
        return {field.name: _encoded(getattr(value, field.name)) for field in dataclasses.fields(value)}
    return value


# --- reading ----------------------------------------------------------------------------------------------------------


def _opened(line: bytes) -> tuple[JsonObject, list[str]]:
    """The object of a line, and a list for its problems."""
    try:
        values = parse_json(line, "A message", max_bytes=_MOST_BYTES)
    except InvalidJSON as error:
        raise ValueError(error.message) from error
    if not isinstance(values, dict):
        raise ValueError("A message is not a JSON object.")
    version = values.get("schema_version")
    problems = [] if version == SCHEMA_VERSION else [f"A message has schema version {version!r}, not {SCHEMA_VERSION}."]
    return values, problems


def _attempt(values: JsonObject) -> Attempt | None:
    try:
        attempt: Attempt = _decoded(Attempt, values.get("attempt"), [])
    except ValueError:
        return None
    return attempt


def _message(known: Mapping[str, type[Any]], name: str, values: JsonObject, problems: list[str]) -> object | None:
    """The message of a line; None, with a problem, where it can't be understood."""
    message_type = known.get(name)
    if message_type is None:
        problems.append(f"Unknown message {name!r}.")
        return None
    fields = {field.name for field in dataclasses.fields(message_type)}
    content = {key: value for key, value in values.items() if key not in _ENVELOPE or key in fields}
    try:
        message: object = _decoded(message_type, content, problems)
    except ValueError as error:
        problems.append(str(error))
        return None
    return message


def _decoded(dataclass_type: type[Any], values: Any, problems: list[str]) -> Any:
    """A dataclass of a JSON object. Raises ValueError where a field without a default is missing or invalid."""
    if not isinstance(values, dict):
        raise ValueError(f"{dataclass_type.__name__} is not an object.")
    annotations = get_type_hints(dataclass_type)
    arguments = {}
    names = set()
    for field in dataclasses.fields(dataclass_type):
        names.add(field.name)
        optional = field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
        if field.name not in values:
            if not optional:
                raise ValueError(f"{dataclass_type.__name__} has no field {field.name!r}.")
            continue
        try:
            arguments[field.name] = _field(annotations[field.name], values[field.name], problems)
        except ValueError as error:
            problem = f"Invalid value for {field.name!r} of {dataclass_type.__name__}."
            if not optional:
                raise ValueError(problem) from error
            problems.append(problem)
    problems += [f"Unknown field {key!r} of {dataclass_type.__name__}." for key in values if key not in names]
    return dataclass_type(**arguments)


def _field(annotation: Any, value: Any, problems: list[str]) -> Any:
    """The value of a field, which has to be of the type that the dataclass declares. Raises ValueError."""
    origin = get_origin(annotation)
    if origin is types.UnionType:
        return _optional(annotation, value, problems)
    if origin is tuple and isinstance(value, list):
        return tuple(_field(get_args(annotation)[0], item, problems) for item in value)
    if origin is Mapping and isinstance(value, dict):
        return value
    if dataclasses.is_dataclass(annotation):
        return _decoded(cast("type[Any]", annotation), value, problems)
    if annotation is bytes and isinstance(value, str):
        return _bytes(value)
    if origin is None and type(value) is annotation:
        return value
    raise ValueError("Another type is expected.")


def _optional(annotation: Any, value: Any, problems: list[str]) -> Any:
    """A value that may be None."""
    if value is None:
        return None
    (declared,) = (argument for argument in get_args(annotation) if argument is not types.NoneType)
    return _field(declared, value, problems)


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError("The value is not base64.") from error
