"""What the scheduler knows and decides, as plain values. Times are in seconds since 1970, memory is in bytes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum


@dataclass(frozen=True)
class JobNeeds:
    """What a job needs of a worker.

    `loras`: its LoRAs, in their order. `transformer_files`, `component_files`: paths of its weights; components are the
    text encoder, the VAE and the like. `bytes_needed`: memory of the device. `load_seconds`: how long a worker takes to
    load everything; None if unknown.
    """

    definition: str
    loras: tuple[str, ...]
    transformer_files: frozenset[str]
    component_files: frozenset[str]
    family: str
    bytes_needed: int
    load_seconds: float | None

    @property
    def model(self) -> tuple[str, tuple[str, ...]]:
        """Jobs with the same value are of one model: they run in the user's order."""
        return self.definition, self.loras


@dataclass(frozen=True)
class QueuedJob:
    """A job that waits. `position`: in the user's order. `created`: in seconds since 1970."""

    id: int
    needs: JobNeeds
    position: int
    created: float


@dataclass(frozen=True)
class WorkerState:
    """A worker as it is now.

    `holds`: the needs of the job that it runs or ran last; None while it holds no weights. `running`: the id of its
    job. `busy_until`: when that job is expected to end; None if unknown. `last_used`: when that job began, or when the
    last one ended. `capacity_bytes`: memory of its device; None for no limit. `draining`: it gets no more jobs.
    """

    name: str
    device: str
    free: bool
    holds: JobNeeds | None
    running: int | None
    busy_until: float | None
    last_used: float
    capacity_bytes: int | None
    draining: bool

    @property
    def capacity(self) -> float:
        """Memory of its device in bytes; infinite without a limit."""
        return math.inf if self.capacity_bytes is None else self.capacity_bytes


@dataclass(frozen=True)
class Rules:
    """The numbers in the scheduler's decisions. docs/cluster.md derives the bound from them.

    `overtakes`: how many jobs behind a job in the user's order may begin before it, for each worker that can run it.
    `fewest_overtakes`: the same for a job that the user moved far ahead.
    `newer_seconds`, `newer_loads`: a job is never overtaken by one that is behind it and newer by more than this, in
    seconds and in times of a load; the greater one counts.
    `hold_seconds`: a job that is older doesn't leave a worker idle to wait for another one.
    `lora_share`, `component_share`: parts of a load that remain where the transformers, or the components, are loaded.
    `replace_cost`: what it costs to replace weights that may be needed again, in times of a load.
    `spare_seconds`: a worker with the only copy of a model that was used within this time is replaced last.
    `idle_loads`, `idle_cost`: loading on a worker that has been idle for so many times of a load costs this part.
    `unknown_load_seconds`: used where the time of a load is unknown.
    """

    overtakes: int = 24
    fewest_overtakes: int = 1
    newer_seconds: float = 60.0
    newer_loads: float = 8.0
    hold_seconds: float = 300.0
    lora_share: float = 0.1
    component_share: float = 0.7
    replace_cost: float = 0.5
    spare_seconds: float = 3600.0
    idle_loads: float = 5.0
    idle_cost: float = 0.5
    unknown_load_seconds: float = 30.0

    def seconds_to_load(self, needs: JobNeeds) -> float:
        """How long a worker that holds nothing loads."""
        return self.unknown_load_seconds if needs.load_seconds is None else needs.load_seconds


class Match(IntEnum):
    """What of a job's weights a worker holds; a greater value saves more of the load."""

    OTHER = 0
    EMPTY = 1
    COMPONENTS = 2
    TRANSFORMERS = 3
    MODEL = 4


@dataclass(frozen=True)
class Assignment:
    """A job begins on a worker. `job`: its id. `worker`: the worker's name. `reason`: a sentence without its end."""

    job: int
    worker: str
    reason: str


@dataclass(frozen=True)
class Schedule:
    """Which jobs begin now, and why each of the others waits, by its id."""

    assignments: tuple[Assignment, ...]
    waits: Mapping[int, str]
