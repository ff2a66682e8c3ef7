"""The lines between the runner and the process that is connected to a Ray cluster.

A line is `KIND WORKER CONTENT`: a word, the name of a worker (`-` where none is meant), and one line of JSON.

To that process: `run`, `cancel` (the tasks of `reeltune.jobs.codec`), `kill`, `end` (an idle worker), `want` (how many
workers there should be, for an autoscaler). From it: `workers` (all of them), `event` (a line of the codec), `died`
(an attempt, with the reason), `ended` (an idle worker), `trouble` (why it isn't connected), `note` (to be logged).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from reeltune.errors import InvalidJSON
from reeltune.jobs.job import Attempt
from reeltune.untrusted import JsonObject, parse_json

NOBODY = "-"
LOCAL = "local"  # in place of an address: a cluster of this machine alone, which ends with the program
_MOST_BYTES = 64_000_000


@dataclass(frozen=True)
class RayNode:
    """One worker of a cluster. `node`: the name of its machine. `device`: "cuda" or "cpu". `memory`: bytes of it."""

    name: str
    node: str
    device: str
    memory: int


@dataclass(frozen=True)
class RayLine:
    """A line that was received."""

    kind: str
    worker: str
    content: bytes

    @property
    def values(self) -> JsonObject:
        """The content as an object. Raises ValueError."""
        try:
            values = parse_json(self.content or b"{}", "A line", max_bytes=_MOST_BYTES)
        except InvalidJSON as error:
            raise ValueError(error.message) from error
        if not isinstance(values, dict):
            raise ValueError("A line holds no object.")
        return values


def join(kind: str, worker: str = NOBODY, content: bytes | Mapping[str, object] = b"") -> bytes:
    """A line. Names of workers have no spaces."""
    text = content if isinstance(content, bytes) else json.dumps(dict(content)).encode("ascii")
    return b" ".join([kind.encode(), worker.encode(), text.rstrip(b"\n")]) + b"\n"


def split(line: bytes) -> RayLine:
    """The parts of a line. Raises ValueError."""
    kind, worker, content = line.rstrip(b"\n").split(b" ", 2)
    return RayLine(kind.decode(), worker.decode(), content)


def told_death(attempt: Attempt, message: str, hint: str) -> dict[str, object]:
    """The content of `died`."""
    return {"job": attempt.job, "number": attempt.number, "message": message, "hint": hint}


def nodes_of(line: RayLine) -> list[RayNode]:
    """The content of `workers`. Raises ValueError."""
    rows = line.values.get("workers")
    if not isinstance(rows, list):
        raise ValueError("A line lists no workers.")
    nodes = []
    for row in rows:
        if not isinstance(row, dict):
            raise ValueError("A worker is no object.")
        memory = row.get("memory")
        nodes.append(
            RayNode(str(row["name"]), str(row["node"]), str(row["device"]), memory if isinstance(memory, int) else 0)
        )
    return nodes
