"""`pull`: everything a definition lacks, planned as a whole before the first byte."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from reeltune.definitions import Definition
from reeltune.events import CancelToken, Event, Listener, Notice, Progress, ignore
from reeltune.fetch.download import Downloader
from reeltune.fetch.plan import Explanation, Item, explain, other_versions
from reeltune.fetch.survey import Need, Survey, survey
from reeltune.inventory.index import Index
from reeltune.machine import Machine
from reeltune.net import shown
from reeltune.preferences import Preferences

TOTAL = "in total"


@dataclass(frozen=True)
class Scope:
    """Which of the files count: all that making a video takes, or the weights alone, or every version of them too."""

    weights_only: bool = False
    all_versions: bool = False


def plan_download(
    definitions: Sequence[Definition],
    preferences: Preferences | None = None,
    scope: Scope = Scope(),  # a frozen value
    *,
    listener: Listener = ignore,
    machine: Machine | None = None,
) -> tuple[list[Explanation], Survey]:
    """What `pull_all` would fetch, with sizes, sums and the disk's room; asks the network only for what is missing.

    Raises FetchError and its kinds.
    """
    explanations = [explain(row, preferences, machine=machine) for row in definitions]
    with Downloader(explanations[0].preferences, listener) as downloader:
        return explanations, survey(_wanted(explanations, scope), definitions[0].root, downloader)


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
    scope = Scope(weights_only)
    return pull_all([definition], preferences, scope, listener=listener, cancel=cancel, machine=machine)[0]


def pull_all(
    definitions: Sequence[Definition],
    preferences: Preferences | None = None,
    scope: Scope = Scope(),
    *,
    listener: Listener = ignore,
    cancel: CancelToken | None = None,
    machine: Machine | None = None,
) -> list[Explanation]:
    """The same as `pull` for several definitions of one root, planned as a whole; a file they share comes once."""
    explanations = [explain(row, preferences, machine=machine) for row in definitions]
    wanted = _wanted(explanations, scope)
    if not wanted:
        return explanations
    root = definitions[0].root
    with Downloader(explanations[0].preferences, listener, cancel) as downloader:
        plan = survey(wanted, root, downloader)
        listener(plan.as_event())
        plan.check_disk()
        total = _Total(plan, listener)
        downloader.listen(total)
        index = Index(root / "ckpts")
        (root / "ckpts").mkdir(parents=True, exist_ok=True)
        plan.remember(index)
        for need in plan.needs:
            _fetch(need, downloader, total)
            _learn(need, downloader, index)
    after = [explain(row.definition, row.preferences, machine=row.machine) for row in explanations]
    for item in _wanted(after, scope):
        listener(Notice(f"{item.path.name} is still missing: what {shown(item.url)} serves is not what is needed."))
    return after


def _wanted(explanations: Sequence[Explanation], scope: Scope) -> list[Item]:
    items = []
    for explanation in explanations:
        chosen = explanation.selection.choices
        items += [item for item in explanation.missing if not scope.weights_only or item.subject in chosen]
        if scope.all_versions:
            items += [item for item in other_versions(explanation) if not item.present]
    return items


def _fetch(need: Need, downloader: Downloader, total: _Total) -> None:
    for link in need.links:
        if need.aside is None or not link.target.exists():
            downloader.fetch(link)
        total.finish(link.size or 0)
    if need.aside is not None and need.aside.exists():
        if need.item.path.is_dir():
            need.item.path.rmdir()  # nothing in it counted as present
        need.aside.replace(need.item.path)


def _learn(need: Need, downloader: Downloader, index: Index) -> None:
    """Keep the sums of what came; a component's file came from its own link, a weight file from the definition's."""
    for link in need.links:
        path = link.target if need.aside is None else need.item.path / link.target.name
        digest = downloader.sums.get(link.target) or index.sha256(path) or link.sha256 or ""
        if path.is_file():  # another process, or another link, may have brought it
            index.learn(path, need.item.url if need.aside is None else link.url, digest)


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
