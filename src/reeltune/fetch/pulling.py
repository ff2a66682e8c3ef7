"""`pull`: everything a definition lacks, planned as a whole before the first byte."""

from __future__ import annotations

from dataclasses import replace

from reeltune.definitions import Definition
from reeltune.events import CancelToken, Event, Listener, Progress, ignore
from reeltune.fetch.download import Downloader
from reeltune.fetch.plan import Explanation, Item, explain
from reeltune.fetch.survey import Need, Survey, survey
from reeltune.inventory.index import Index
from reeltune.machine import Machine
from reeltune.preferences import Preferences

TOTAL = "in total"


def plan_download(
    definition: Definition,
    preferences: Preferences | None = None,
    *,
    weights_only: bool = False,
    listener: Listener = ignore,
    cancel: CancelToken | None = None,
    machine: Machine | None = None,
) -> tuple[Explanation, Survey]:
    """What `pull` would fetch, with sizes, sums and the disk's room; asks the network only for what is missing.

    Raises FetchError and its kinds.
    """
    explanation = explain(definition, preferences, machine=machine)
    with Downloader(explanation.preferences, listener, cancel) as downloader:
        return explanation, survey(explanation, _wanted(explanation, weights_only), downloader)


def pull(
    definition: Definition,
    preferences: Preferences | None = None,
    *,
    weights_only: bool = False,
    listener: Listener = ignore,
    cancel: CancelToken | None = None,
    machine: Machine | None = None,
) -> Explanation:
    """Fetch everything a definition lacks under the preferences, and return what it then comes to.

    `weights_only` leaves components and preloaded files out. With everything here the network isn't touched.
    Raises FetchError and its kinds (NotEnoughDisk before the first byte), Cancelled.
    """
    explanation = explain(definition, preferences, machine=machine)
    wanted = _wanted(explanation, weights_only)
    if not wanted:
        return explanation
    with Downloader(explanation.preferences, listener, cancel) as downloader:
        plan = survey(explanation, wanted, downloader)
        plan.check_disk()
        total = _Total(plan, listener)
        downloader.listen(total)
        index = Index(definition.root / "ckpts")
        for need in plan.needs:
            _fetch(need, downloader, total)
            for link in need.links if need.aside is None else ():
                if digest := downloader.sums.get(link.target):
                    index.learn(link.target, need.item.url, digest)
    return explain(definition, explanation.preferences, machine=explanation.machine)


def _wanted(explanation: Explanation, weights_only: bool) -> tuple[Item, ...]:
    chosen = explanation.selection.choices
    return tuple(item for item in explanation.missing if not weights_only or item.subject in chosen)


def _fetch(need: Need, downloader: Downloader, total: _Total) -> None:
    for link in need.links:
        if need.aside is None or not link.target.exists():
            downloader.fetch(link)
        total.finish(link.size or 0)
    if need.aside is not None and need.aside.exists():
        if need.item.path.is_dir():
            need.item.path.rmdir()  # nothing in it counted as present
        need.aside.replace(need.item.path)


class _Total:
    """Passes events on and adds progress over all files of a plan, where there are several."""

    def __init__(self, plan: Survey, listener: Listener) -> None:
        self._listener, self._before = listener, 0
        self._total = plan.total if len(plan.links) > 1 and not plan.unknown else None

    def __call__(self, event: Event) -> None:
        self._listener(event)
        if self._total and isinstance(event, Progress) and event.stage == "download":
            self._listener(
                replace(event, done=min(self._before + event.done, self._total), total=self._total, subject=TOTAL)
            )

    def finish(self, size: int) -> None:
        """A file is complete."""
        self._before += size
