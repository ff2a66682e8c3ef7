"""What waiting jobs need of a worker, from the plans of their definitions; kept, as plans take time."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from reeltune.definitions import Catalog, load_catalog
from reeltune.errors import ReeltuneError
from reeltune.jobs.job import WaitingJob
from reeltune.jobs.job_log import log
from reeltune.jobs.schedule_values import JobNeeds
from reeltune.machine import Machine, probe
from reeltune.planning.memory import least_bytes
from reeltune.planning.plan import Plan, explain
from reeltune.preferences import FILE_NAME, Preferences, load_preferences

_KEPT_SECONDS = 30.0  # a plan isn't made again sooner, whatever changes
_MOST_KEPT = 1000
_FileFacts = tuple[int, int]
_Key = tuple[str, tuple[str, ...] | None]  # a definition, and the LoRAs of a job's settings


@dataclass(frozen=True)
class _Known:
    needs: JobNeeds
    facts: tuple[_FileFacts, ...]  # of the files that it depends on
    made: float  # by the monotonic clock


class NeedsCache:
    """The needs of jobs by definition and LoRAs. All methods may be called from any thread.

    A definition that has no plan, such as a missing one, needs nothing in particular: any worker may get it, and
    reports the error.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._known: dict[_Key, _Known] = {}
        self._load_seconds: dict[str, float] = {}  # by definition, as measured
        self._guard = threading.Lock()
        self._preparing = threading.Lock()
        self._machine: Machine | None = None

    def prepare(self, waiting: Iterable[WaitingJob]) -> None:
        """Make the plans that are missing or out of date. It takes a while, so it is no part of a transaction."""
        keys = dict.fromkeys((job.definition, job.loras) for job in waiting)
        if all(self._is_current(key) for key in keys):
            return
        with self._preparing:
            missing = [key for key in keys if not self._is_current(key)]
            if not missing:
                return
            try:
                catalog = load_catalog(self._root)
                preferences = load_preferences(self._root)[0]
            except ReeltuneError as error:  # the workers report it too
                log.debug("The needs of jobs are unknown: %s", error)
                return
            for key in missing:
                known = _Known(self._made(key, catalog, preferences), self._facts(key), time.monotonic())
                with self._guard:
                    self._known.pop(key, None)
                    self._known[key] = known
                    while len(self._known) > _MOST_KEPT:
                        del self._known[next(iter(self._known))]

    def of(self, job: WaitingJob) -> JobNeeds:
        """What a job needs, as far as it is known. Nothing is read."""
        with self._guard:
            known = self._known.get((job.definition, job.loras))
            needs = known.needs if known is not None else nothing_known(job.definition, job.loras)
            return replace(needs, load_seconds=self._load_seconds.get(job.definition))

    def loaded(self, definition: str, seconds: float) -> None:
        """The weights of a definition were loaded in so many seconds; the longest time counts.

        A shorter one was that of a worker which held a part of them.
        """
        with self._guard:
            self._load_seconds[definition] = max(seconds, self._load_seconds.get(definition, 0.0))

    def _is_current(self, key: _Key) -> bool:
        with self._guard:
            known = self._known.get(key)
        if known is None:
            return False
        return time.monotonic() - known.made < _KEPT_SECONDS or known.facts == self._facts(key)

    def _facts(self, key: _Key) -> tuple[_FileFacts, ...]:
        """When the files last changed that a plan depends on."""
        names = (f"finetunes/{key[0]}.json", FILE_NAME, "ckpts", "loras")
        return tuple(_facts_of(self._root / name) for name in names)

    def _made(self, key: _Key, catalog: Catalog, preferences: Preferences) -> JobNeeds:
        definition, loras = key
        if self._machine is None:
            self._machine = probe()
        try:
            plan = explain(catalog[definition], preferences, machine=self._machine, loras=loras)
            return needs_of(plan)
        except ReeltuneError as error:
            log.debug("The needs of %s are unknown: %s", definition, error)
        except Exception:  # the boundary of a plan: a worker reports what is wrong with the definition
            log.debug("The needs of %s are unknown", definition, exc_info=True)
        return nothing_known(definition, loras)


def needs_of(plan: Plan) -> JobNeeds:
    """What a plan needs of a worker."""
    transformers = frozenset(str(plan.path(slot)) for slot in plan.selection.choices)
    components = frozenset(str(item.path) for item in plan.items if item.repository)
    return JobNeeds(
        definition=plan.definition.id,
        loras=tuple(str(lora.item.path) for lora in plan.loras),
        transformer_files=transformers,
        component_files=components,
        family=plan.definition.architecture.family.name,
        bytes_needed=least_bytes(plan),
        load_seconds=None,
    )


def nothing_known(definition: str, loras: tuple[str, ...] | None) -> JobNeeds:
    """The needs of a job whose plan is unknown."""
    return JobNeeds(definition, loras or (), frozenset(), frozenset(), "", 0, None)


def _facts_of(path: Path) -> _FileFacts:
    try:
        facts = path.stat()
    except (OSError, ValueError):  # it isn't there, or a job has an impossible name
        return (0, 0)
    return facts.st_mtime_ns, facts.st_size
