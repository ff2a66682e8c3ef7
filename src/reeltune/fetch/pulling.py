"""`pull`: download everything that definitions need, after all sizes have been checked."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from reeltune.definitions import Definition
from reeltune.errors import CheckpointError, FetchError, NotRunnable
from reeltune.events import CancelToken, Event, Listener, Notice, Progress, ignore
from reeltune.fetch.download import Downloader
from reeltune.fetch.locked import verify_locked
from reeltune.fetch.survey import ItemDownload, Survey, survey
from reeltune.fetch.task import DownloadTask, is_complete
from reeltune.files import make_folder, reason
from reeltune.library.index import Index
from reeltune.library.inventory import Inventory
from reeltune.library.places import label
from reeltune.machine import Machine, probe
from reeltune.net import offline, shown
from reeltune.planning.headers import Headers
from reeltune.planning.item import Item
from reeltune.planning.plan import Plan, explain, other_versions
from reeltune.preferences import Preferences, load_preferences

TOTAL = "in total"  # the subject of the progress of a whole plan


@dataclass(frozen=True)
class Scope:
    """Which files of a plan are downloaded; by default everything that is needed to make a video.

    `weights_only`: leave out components and preloaded files. `all_versions`: also the versions that weren't chosen.
    """

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
    """What `pull_all` would download, with sizes and free disk space. Servers are asked only about missing files.

    Offline, or if a server can't be reached, the last known sizes are used, with a notice. Raises FetchError and its
    subclasses if something is wrong with a file.
    """
    plans = _make_plans(definitions, preferences, machine, cancel, anyway=anyway)
    return ask_sizes(plans, scope, listener=listener, cancel=cancel)


def ask_sizes(
    plans: Sequence[Plan],
    scope: Scope = Scope(),
    *,
    listener: Listener = ignore,
    cancel: CancelToken | None = None,
) -> tuple[list[Plan], Survey]:
    """The same plans with the sizes that servers report for missing files. See `plan_download`."""
    root = plans[0].definition.root
    index = Index(root / "ckpts")
    with Downloader(plans[0].preferences, listener, cancel, index) as downloader:
        result = survey(still_missing(plans, scope), root, downloader, dry_run=True)
    for notice in result.notices:
        listener(Notice(notice))
    if (root / "ckpts").is_dir():
        result.remember(index)
    sizes = {download.item.url: download.bytes for download in result.downloads}
    return [_with_sizes(plan, sizes) for plan in plans], result


def _with_sizes(plan: Plan, sizes: Mapping[str, int | None]) -> Plan:
    items = []
    for item in plan.items:
        if not item.present and item.bytes is None:
            item = replace(item, bytes=sizes.get(item.url))
        items.append(item)
    return replace(plan, items=tuple(items))


def require(plan: Plan) -> None:
    """Raise FetchError if something is still missing after `pull`."""
    for item in plan.missing:
        message = f"{item.path.name} ({item.subject}) is missing: {_why_missing(item)}."
        raise FetchError(message, hint="Correct the URL in the definition.")


def _why_missing(item: Item) -> str:
    return item.obstacle or f"the file that {shown(item.url)} serves is not the one that is needed"


def _make_plans(
    definitions: Sequence[Definition],
    preferences: Preferences | None,
    machine: Machine | None,
    cancel: CancelToken | None,
    *,
    anyway: bool = False,
    loras: Sequence[str] | None = None,
) -> list[Plan]:
    """The plans of several definitions of one root, whose folders are searched once.

    The headers of chosen files that aren't on disk are read, so that the choice doesn't depend on their names alone.
    Raises NotRunnable if a definition can't run on this machine, unless `anyway`.
    """
    for definition in definitions:
        if not (definition.runnable or anyway):
            message = f"{definition.id} can't run here: {definition.reason}."
            raise NotRunnable(message, hint="`reeltune pull --anyway` downloads it for other programs.")
    root = definitions[0].root
    notices: list[str] = []
    if preferences is None:
        preferences, notices = load_preferences(root)
    machine = machine or probe()
    inventory = Inventory(root, preferences.model_folders)
    with Headers(preferences.tokens, cancel=cancel) as headers:
        plans = [_make_plan(definition, preferences, machine, inventory, headers, loras) for definition in definitions]
    plans[0] = replace(plans[0], notices=(*notices, *plans[0].notices))
    return plans


def _make_plan(
    definition: Definition,
    preferences: Preferences,
    machine: Machine,
    inventory: Inventory,
    headers: Headers,
    loras: Sequence[str] | None,
) -> Plan:
    make_plan = partial(explain, definition, preferences, machine=machine, inventory=inventory, loras=loras)
    if not offline():
        try:
            return make_plan(online=True, headers=headers)
        except (CheckpointError, FetchError):  # the download will report what is wrong
            pass
    return make_plan()


def pull(
    definition: Definition,
    preferences: Preferences | None = None,
    *,
    weights_only: bool = False,
    loras: Sequence[str] | None = None,
    listener: Listener = ignore,
    cancel: CancelToken | None = None,
    machine: Machine | None = None,
) -> Plan:
    """Download everything that a definition needs under the preferences, and return the plan after the download.

    `weights_only` leaves out components and preloaded files. `loras`: the URLs or paths of the LoRAs to apply; by
    default those of the definition and its saved settings. If nothing is missing, the network isn't used. Raises
    NotRunnable if the definition can't run on this machine, ChoiceError, Cancelled, FetchError and its subclasses
    (NotEnoughDisk before the first byte).
    """
    plans = _make_plans([definition], preferences, machine, cancel, loras=loras)
    return _download(plans, Scope(weights_only), listener, cancel)[0]


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
    """The same as `pull` for several definitions of one root; a file that they share is downloaded once.

    `anyway`: also download definitions that can't run on this machine.
    """
    plans = _make_plans(definitions, preferences, machine, cancel, anyway=anyway)
    return _download(plans, scope, listener, cancel)


def _download(plans: list[Plan], scope: Scope, listener: Listener, cancel: CancelToken | None) -> list[Plan]:
    """Download what the plans lack within a scope, and return the plans after the download."""
    missing = still_missing(plans, scope)
    if not missing:
        verify_locked(plans, listener, cancel)
        return plans
    root = plans[0].definition.root
    index = Index(root / "ckpts")
    with Downloader(plans[0].preferences, listener, cancel, index) as downloader:
        result = survey(missing, root, downloader)
        listener(result.as_event())
        result.check_disk()
        make_folder(root / "ckpts")
        result.remember(index)
        progress = _PlanProgress(result, listener)
        downloader.set_listener(progress)
        for download in result.downloads:
            progress.begin(download)
            _download_item(download, downloader, index, progress)
    plans_after = _make_plans_again(plans)
    for item in still_missing(plans_after, scope):
        name = label(item.path, root / "ckpts")
        listener(Notice(f"{name} is still missing: {_why_missing(item)}."))
    verify_locked(plans_after, listener, cancel)
    return plans_after


def _make_plans_again(plans: Sequence[Plan]) -> list[Plan]:
    """The plans after the download, made with the headers that the first plans were made with."""
    inventory = Inventory(plans[0].definition.root, plans[0].preferences.model_folders)
    return [
        explain(
            plan.definition,
            plan.preferences,
            machine=plan.machine,
            inventory=inventory,
            known=plan.remote_facts,
            loras=[lora.source for lora in plan.loras],
        )
        for plan in plans
    ]


def still_missing(plans: Sequence[Plan], scope: Scope = Scope()) -> list[Item]:
    """The missing items within a scope."""
    items: list[Item] = []
    for plan in plans:
        items += [item for item in plan.missing if not scope.weights_only or item.weights]
        if scope.all_versions:
            items += [item for item in other_versions(plan) if not item.present]
    return items


def _download_item(download: ItemDownload, downloader: Downloader, index: Index, progress: _PlanProgress) -> None:
    """Download the file of an item, or all files of a component, whose folder then gets its name."""
    for task in download.tasks:
        if download.partial_folder is None or not is_complete(task, index):
            downloader.fetch(task)
        progress.finish(task)
    if download.partial_folder is None:
        return
    digests: dict[DownloadTask, str] = {}
    for task in download.tasks:
        digests[task] = downloader.sha256_by_path.get(task.target) or index.sha256(task.target) or ""
    _rename_component(download.partial_folder, download.item.path)
    for task, digest in digests.items():
        path = download.item.path / task.target.name
        if path.is_file():  # another process may have downloaded the component
            index.record_file(path, task.url, digest or index.sha256(path) or "")


def _rename_component(partial_folder: Path, folder: Path) -> None:
    """Give the folder of a complete component its name. Raises FetchError."""
    try:
        if not partial_folder.is_dir():
            return
        if folder.is_dir():
            if any(folder.iterdir()):
                shutil.rmtree(partial_folder)  # another process has downloaded the component in the meantime
                return
            folder.rmdir()
        partial_folder.replace(folder)
    except OSError as error:
        message = f"{partial_folder} can't be renamed to {folder}: {reason(error)}."
        raise FetchError(message, hint="Check the folder, and try again.") from error


class _PlanProgress:
    """Passes events on, with one progress for each file or component, and adds the progress of the whole plan."""

    def __init__(self, survey: Survey, listener: Listener) -> None:
        self._listener = listener
        self._total: int | None = None  # bytes of the plan, if it has several items of known size
        if len(survey.downloads) > 1 and not survey.unknown_sizes:
            self._total = survey.total_bytes
        self._finished = 0
        self._item_total: int | None = None  # bytes of a component with several files of known size
        self._item_finished = 0

    def begin(self, download: ItemDownload) -> None:
        """The download of the next file or component begins."""
        self._item_finished = 0
        self._item_total = None
        sizes = [task.size for task in download.tasks if not task.available]
        known_sizes = [size for size in sizes if size is not None]
        if len(download.tasks) > 1 and len(known_sizes) == len(sizes):
            self._item_total = sum(known_sizes)

    def __call__(self, event: Event) -> None:
        if not isinstance(event, Progress) or event.stage != "download":
            self._listener(event)
            return
        if self._item_total:
            done = min(self._item_finished + event.done, self._item_total)
            self._listener(replace(event, done=done, total=self._item_total))
        else:
            self._listener(event)
        if self._total:
            done = min(self._finished + event.done, self._total)
            self._listener(replace(event, done=done, total=self._total, subject=TOTAL))

    def finish(self, task: DownloadTask) -> None:
        """The download of a file is complete."""
        if not task.available:
            self._finished += task.size or 0
            self._item_finished += task.size or 0
