"""The messages between page and worker: one JSON object a line.

To the worker: `{"do": "generate", "job": 3, "attempt": 1, "definition": …, "settings": …, "made": 1, "latents": …,
"confined": false}` (`made`: videos that an earlier attempt has made; `latents`: the file it has left of the next one),
`{"do": "cancel", "job": 3, "attempt": 1}`.
From it: events of `reeltune.events` (`{"event": "progress", "job": 3, "attempt": 1, …}`), `saved` with a path, and as
the last of an attempt `done`, `cancelled` or `failed` with `error`, `hint` and `shared` (whether every other job would
fail in the same way).
"""

from __future__ import annotations

import base64
import json
from dataclasses import asdict
from typing import Any

from reeltune.errors import InvalidJSON
from reeltune.events import (
    Batch,
    Event,
    FilesUsed,
    LatentsStored,
    Notice,
    Planned,
    PlannedFile,
    Preview,
    Progress,
    UsedFile,
)
from reeltune.untrusted import parse_json

LAST = frozenset({"done", "cancelled", "failed"})
_MOST_BYTES = 64_000_000  # of a message; a preview is the largest
_KINDS: dict[str, type[Any]] = {
    "progress": Progress, "notice": Notice, "planned": Planned, "preview": Preview, "kept": LatentsStored,
    "batch": Batch, "using": FilesUsed,
}  # fmt: skip
_NAMES = {kind: name for name, kind in _KINDS.items()}


def line(message: dict[str, Any]) -> bytes:
    """A message as one line."""
    return json.dumps(message, ensure_ascii=True, default=str).encode("ascii") + b"\n"


def parse(raw: bytes | str) -> dict[str, Any]:
    """The message of a line. Raises ValueError where it is none."""
    try:
        value = parse_json(raw, "a message", max_bytes=_MOST_BYTES)
    except InvalidJSON as error:
        raise ValueError(error.message) from error
    if not isinstance(value, dict):
        raise ValueError("no message")
    return value


def pack(event: Event) -> dict[str, Any]:
    """An event as a message."""
    values = asdict(event)
    if isinstance(event, Preview):
        values["image"] = base64.b64encode(event.image).decode("ascii")
    return {"event": _NAMES[type(event)], **values}


def unpack(message: dict[str, Any]) -> Event | None:
    """The event of a message; None where it is another kind of message, or lacks something."""
    kind = _KINDS.get(str(message.get("event")))
    if kind is None:
        return None
    values = {name: message[name] for name in kind.__dataclass_fields__ if name in message}
    try:
        if kind is Preview:
            values["image"] = base64.b64decode(values["image"])
        if kind is Planned:
            values["files"] = tuple(PlannedFile(**row) for row in values["files"])
        if kind is FilesUsed:
            values["files"] = tuple(UsedFile(**row) for row in values["files"])
        event: Event = kind(**values)
    except (TypeError, ValueError, KeyError):
        return None
    return event
