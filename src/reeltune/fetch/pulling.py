"""`pull`: everything a definition lacks, planned as a whole before the first byte."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from reeltune.definitions import Definition
from reeltune.errors import CheckpointError, FetchError, NotRunnable
from reeltune.events import CancelToken, Event, Listener, Notice, Progress, ignore
from reeltune.fetch.download import Downloader, Link
from reeltune.fetch.link import is_whole
from reeltune.fetch.survey import Need, Survey, survey
from reeltune.files import make_folder, reason
from reeltune.library.index import Index
from reeltune.library.inventory import Inventory
from reeltune.library.places import label
from reeltune.machine import Machine, probe
from reeltune.net import offline, shown
from reeltune.planning.headers import Headers
from reeltune.planning.plan import Item, Plan, explain, other_versions
from reeltune.preferences import Preferences, load_preferences

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
    cancel: CancelToken | None = None,
    machine: Machine | None = None,
    anyway: bool = False,
) -> tuple[list[Plan], Survey]:
    """What `pull_all` would download, with sizes and the disk's room; asks the network only for what is missing.

    Offline, or where a server can't be reached, sizes are those that were remembered, and notices say so. Raises
    FetchError and its kinds for what is wrong with a file.
    """
    plans = _explained(definitions, preferences, machine, cancel, anyway)
    return ask_sizes(plans, scope, listener=listener, cancel=cancel)


def ask_sizes(
    plans: Sequence[Plan],
    scope: Scope = Scope(),
    *,
    listener: Listener = ignore,
    cancel: CancelToken | None = None,
) -> tuple[list[Plan], Survey]:
    """The same plans with the sizes that servers report for what is missing; see `plan_download`."""
    root = plans[0].definition.root
    index = Index(root / "ckpts")
    with Downloader(plans[0].preferences, listener, cancel, index) as downloader:
        found = survey(_wanted(plans, scope), root, downloader, shown_only=True)
    for notice in found.notices:
        listener(Notice(notice))
    if (root / "ckpts").is_dir():
        found.remember(index)
    sizes = {need.item.url: need.bytes for need in found.needs}
    return [_sized(row, sizes) for row in plans], found


def _sized(plan: Plan, sizes: Mapping[str, int | None]) -> Plan:
    items = [
        replace(item, bytes=sizes.get(item.url, item.bytes)) if not item.present and item.bytes is None else item
        for item in plan.items
    ]
    return replace(plan, items=tuple(items))


def require(plan: Plan) -> None:
    """Raise FetchError where something is still missing after a `pull`."""
    for item in plan.missing:
        why = item.obstacle or f"what {shown(item.url)} serves is not what is needed"
        raise FetchError(f"{item.path.name} ({item.subject}) is missing: {why}.", hint="Correct the definition's URL.")


def _explained(
    definitions: Sequence[Definition],
    preferences: Preferences | None,
    machine: Machine | None,
    cancel: CancelToken | None,
    anyway: bool,
) -> list[Plan]:
    """Plans of several definitions of one root, for which folders are looked through once.

    Headers of chosen files that aren't here are read: what is downloaded is chosen by its header, not only by its name.
    Raises NotRunnable for a definition that can't run here, unless it is to be downloaded `anyway`.
    """
    for definition in definitions:
        if not (definition.runnable or anyway):
            message = f"{definition.id} can't run here: {definition.reason}."
            raise NotRunnable(message, hint="`reeltune pull --anyway` downloads it for other programs.")
    root, notices = definitions[0].root, list[str]()
    if preferences is None:
        preferences, notices = load_preferences(root)
    machine, inventory = machine or probe(), Inventory(root, preferences.model_folders)
    with Headers(preferences.tokens, cancel=cancel) as headers:
        first, *rest = (_explain(row, preferences, machine, inventory, headers) for row in definitions)
    return [replace(first, notices=(*notices, *first.notices)), *rest]


def _explain(
    definition: Definition,
    preferences: Preferences,
    machine: Machine,
    inventory: Inventory,
    headers: Headers,
) -> Plan:
    if not offline():
        try:
            return explain(definition, preferences, online=True, machine=machine, inventory=inventory, headers=headers)
        except (CheckpointError, FetchError):  # the download shows what is wrong, and what to do
            pass
    return explain(definition, preferences, machine=machine, inventory=inventory)


def pull(
    definition: Definition,
    preferences: Preferences | None = None,
    *,
    weights_only: bool = False,
    listener: Listener = ignore,
    cancel: CancelToken | None = None,
    machine: Machine | None = None,
) -> Plan:
    """Fetch everything a definition lacks under the preferences, and return what it then comes to.

    `weights_only` leaves components and preloaded files out. With everything here the network isn't touched.
    Raises NotRunnable for a definition that can't run here, FetchError and its kinds (NotEnoughDisk before the first
    byte), ChoiceError, Cancelled.
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
    anyway: bool = False,
) -> list[Plan]:
    """The same as `pull` for several definitions of one root, planned as a whole; a file they share comes once.

    `anyway`: also for definitions that can't run here.
    """
    plans = _explained(definitions, preferences, machine, cancel, anyway)
    wanted = _wanted(plans, scope)
    if not wanted:
        return plans
    root = definitions[0].root
    index = Index(root / "ckpts")
    with Downloader(plans[0].preferences, listener, cancel, index) as downloader:
        found = survey(wanted, root, downloader)
        listener(found.as_event())
        found.check_disk()
        make_folder(root / "ckpts")
        found.remember(index)
        total = _Total(found, listener)
        downloader.listen(total)
        for need in found.needs:
            total.begin(need)
            _fetch(need, downloader, index, total)
    after = _again(plans)
    for item in still_missing(after, scope):
        name = label(item.path, root / "ckpts")
        why = item.obstacle or f"what {shown(item.url)} serves is not what is needed"
        listener(Notice(f"{name} is still missing: {why}."))
    return after


def _again(plans: Sequence[Plan]) -> list[Plan]:
    """What the definitions come to after the download, on the headers that the first choice was made from."""
    first = plans[0]
    inventory = Inventory(first.definition.root, first.preferences.model_folders)
    return [
        explain(row.definition, row.preferences, machine=row.machine, inventory=inventory, known=row.learned)
        for row in plans
    ]


def still_missing(plans: Sequence[Plan], scope: Scope = Scope()) -> list[Item]:
    """What isn't there of all that a scope asks for."""
    return _wanted(plans, scope)


def _wanted(plans: Sequence[Plan], scope: Scope) -> list[Item]:
    items = []
    for plan in plans:
        chosen = plan.selection.choices
        items += [item for item in plan.missing if not scope.weights_only or item.subject in chosen]
        if scope.all_versions:
            items += [item for item in other_versions(plan) if not item.present]
    return items


def _fetch(need: Need, downloader: Downloader, index: Index, total: _Total) -> None:
    for link in need.links:
        if need.aside is None or not is_whole(link, index):
            downloader.fetch(link)
        total.finish(link)
    if need.aside is not None:
        digests = {link: downloader.sums.get(link.target) or index.sha256(link.target) or "" for link in need.links}
        _rename(need.aside, need.item.path)
        for link, digest in digests.items():  # by their own URLs, under the name they have now
            path = need.item.path / link.target.name
            if path.is_file():  # another process may have brought it
                index.learn(path, link.url, digest or index.sha256(path) or "")


def _rename(aside: Path, folder: Path) -> None:
    """Give a complete component its name. Raises FetchError."""
    try:
        if aside.is_dir() and folder.is_dir() and any(folder.iterdir()):
            shutil.rmtree(aside)  # another process has brought it meanwhile
        elif aside.is_dir():
            if folder.is_dir():
                folder.rmdir()  # nothing in it counted as present
            aside.replace(folder)
    except OSError as error:
        message = f"{aside} can't be renamed to {folder}: {reason(error)}."
        raise FetchError(message, hint="Check the folder, and start again.") from error


class _Total:
    """Passes events on, a row for each file and each component, and adds one for all of a plan where it has several."""

    def __init__(self, survey: Survey, listener: Listener) -> None:
        self._listener, self._before, self._before_row = listener, 0, 0
        self._total = survey.total if len(survey.needs) > 1 and not survey.unknown else None
        self._row_total: int | None = None

    def begin(self, need: Need) -> None:
        """The next file or component of the plan."""
        sizes = [link.size for link in need.links if not link.here]
        self._before_row = 0
        self._row_total = sum(size or 0 for size in sizes) if None not in sizes and len(need.links) > 1 else None

    def __call__(self, event: Event) -> None:
        if not isinstance(event, Progress) or event.stage != "download":
            self._listener(event)
            return
        row = event
        if self._row_total:
            row = replace(event, done=min(self._before_row + event.done, self._row_total), total=self._row_total)
        self._listener(row)
        if self._total:
            done = min(self._before + event.done, self._total)
            self._listener(replace(event, done=done, total=self._total, subject=TOTAL))

    def finish(self, link: Link) -> None:
        """A file is complete."""
        if not link.here:
            self._before += link.size or 0
            self._before_row += link.size or 0
