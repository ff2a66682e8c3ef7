"""What a definition needs under the user's preferences: versions chosen, files here, files to fetch.

`explain` is the one entry: the command line, the downloader, the engine and the page all take its result.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reeltune.checkpoints.names import read_name
from reeltune.definitions import Definition, Version
from reeltune.definitions.slots import PRELOAD, TRANSFORMER, Role, Slot, role_of
from reeltune.dtypes import DType
from reeltune.events import CancelToken
from reeltune.families import Component
from reeltune.files import expand
from reeltune.library.index import fold
from reeltune.library.inventory import Inventory, Unusable, component_files, is_int8
from reeltune.machine import Machine, probe
from reeltune.net import file_key, hub_endpoint
from reeltune.planning.choose import Choice, Facts, Selection
from reeltune.planning.facts import select, sum_for, wanted_file
from reeltune.planning.headers import Headers
from reeltune.preferences import Preferences, load_preferences


@dataclass(frozen=True)
class Item:
    """One thing needed: a file, or a component: its folder, or the file that holds it. `bytes` is None unless known.

    `weights`: it must be a checkpoint. `sums`: the definition's sha256 by file name or URL (some URLs don't hold the
    name). `obstacle`: what is wrong with the file that is at its place. For components: the Hub `repository` whose
    subfolder it is, and the `patterns` of the files it takes.
    """

    subject: str  # "transformer", "preload", "vae"…
    url: str
    path: Path
    present: bool
    bytes: int | None
    weights: bool = False
    sums: Mapping[str, str] = field(default_factory=dict)
    repository: str = ""
    patterns: tuple[str, ...] = ()
    obstacle: str = ""

    def sha256(self, *names: str) -> str | None:
        """The sum the definition gives for its URL, or for one of `names`."""
        return sum_for(self.sums, self.url, *names)


@dataclass(frozen=True)
class Plan:
    """What a definition needs under the preferences: the chosen versions and why, every file, and where it runs.

    `learned`: what was read of headers over the network, by URL.
    """

    definition: Definition
    preferences: Preferences
    machine: Machine
    selection: Selection
    items: tuple[Item, ...]
    notices: tuple[str, ...]
    learned: Mapping[str, Facts] = field(default_factory=dict, repr=False)

    @property
    def missing(self) -> tuple[Item, ...]:
        """What must be downloaded first."""
        return tuple(item for item in self.items if not item.present)

    @property
    def transformer(self) -> Choice:
        """The version chosen for the transformer, or for the first of two."""
        return self.selection.choices[TRANSFORMER]

    @property
    def dtype(self) -> DType:
        """The data type that the models compute in."""
        return self.transformer.dtype

    @property
    def device(self) -> str:
        """The device that computes: "cpu", "mps", "cuda", "cuda:1", …"""
        return self.machine.device(self.preferences.device)

    @property
    def products_in_fp32(self) -> bool:
        """Whether matrix products are computed in fp32, as the processor is slow in the run's data type."""
        return self.machine.products_in_fp32(self.preferences.device, self.dtype)

    @property
    def outputs(self) -> Path:
        """The folder that videos are written to."""
        return self.definition.root / expand(self.preferences.outputs)

    def path(self, subject: str) -> Path:
        """The file of a slot; the folder of a component, or the file that holds it."""
        return next(item.path for item in self.items if item.subject == subject)

    def files(self, slot: Slot) -> tuple[Path, ...]:
        """The file of a transformer, then those of the modules that are merged into it."""
        modules = [self.path(other) for other in self.selection.choices if other.is_module]
        return self.path(slot), *modules

    def as_json(self) -> dict[str, Any]:
        """Plain values for `explain --json`."""
        return {
            "id": self.definition.id,
            "runnable": self.definition.runnable,
            "reason": self.definition.reason,
            "architecture": self.definition.architecture.id,
            "device": self.device,
            "products_in_fp32": self.products_in_fp32,
            "choices": {slot: _choice_json(choice, self) for slot, choice in self.selection.choices.items()},
            "rejected": [
                {"slot": rejection.slot, "url": rejection.version.url, "reason": rejection.reason}
                for rejection in self.selection.rejected
            ],
            "downloads": [
                {"url": item.url, "path": str(item.path), "present": item.present, "bytes": item.bytes}
                for item in self.items
            ],
            "notices": list(self.notices),
        }


Explanation = Plan


def _choice_json(choice: Choice, plan: Plan) -> dict[str, Any]:
    return {
        "file": str(plan.path(choice.slot)),
        "url": choice.version.url,
        "quantization": choice.quantization,
        "quantize_on_load": choice.quantize_on_load,
        "dtype": choice.dtype,
        "reason": choice.reason,
    }


def explain(
    definition: Definition,
    preferences: Preferences | None = None,
    *,
    online: bool = False,
    machine: Machine | None = None,
    inventory: Inventory | None = None,
    known: Mapping[str, Facts] | None = None,
    cancel: CancelToken | None = None,
    headers: Headers | None = None,
) -> Plan:
    """Choose versions and list the files they take.

    Without preferences those of the definition's root count. `online` reads the headers that decide the choice of
    files that aren't here (a few hundred KB each), as `pull` does before it downloads; what can't be reached is
    reported and stays unknown. `inventory`: what is on disk, where several definitions are explained at one time.
    `known`: what was read before, by URL. `cancel` ends the reading. `headers` reads them instead, in the time that all
    definitions have together. Raises ChoiceError, DeviceError,
    PreferencesError; with `online` FetchError and CheckpointError, where nothing can be used because of a file behind
    a URL.
    """
    notices: list[str] = []
    if preferences is None:
        preferences, notices = load_preferences(definition.root)
    machine = machine or probe()
    inventory = inventory or Inventory(definition.root, preferences.model_folders)
    with contextlib.ExitStack() as stack:
        reading = headers or stack.enter_context(Headers(preferences.tokens, cancel=cancel))
        before = len(reading.notices)
        chosen = select(definition, preferences, machine, inventory, reading if online else None, known)
    notices += [*reading.notices[before:], *inventory.notices]
    selection = chosen.selection
    items = (*_files(definition, selection, inventory), *_components(definition, preferences, inventory, notices))
    notices += [_passed_over(file) for facts in chosen.facts.values() for file in facts.unusable]
    for choice in selection.choices.values():
        notices += choice.facts.found.notices if choice.facts.found else ()
        notices += _size_notice(definition, choice)
    notices += selection.notices
    return Plan(definition, preferences, machine, selection, items, tuple(notices), chosen.learned)


def _size_notice(definition: Definition, choice: Choice) -> list[str]:
    """A notice where the header is that of another size of the same structure: it loads, but may not be meant."""
    identity = choice.facts.identity
    if role_of(choice.slot, definition.slots) is not Role.WHOLE:
        return []
    if identity is None or not identity.architectures or definition.architecture.id in identity.architectures:
        return []
    return [
        f"{choice.version.file_name} looks like {' or '.join(identity.architectures)}, "
        f"the definition says {definition.architecture.id}: the definition counts."
    ]


def _files(definition: Definition, selection: Selection, inventory: Inventory) -> Iterator[Item]:
    taken: dict[str, str] = {}
    needed = [(slot, choice.version, choice.facts) for slot, choice in selection.choices.items()]
    for version in definition.preload:
        found, unusable = inventory.find(wanted_file(definition, version, PRELOAD))
        needed.append((PRELOAD, version, Facts(found, None, tuple(unusable))))
    for slot, version, facts in needed:
        item = _item(slot, version, facts, definition, inventory, taken)
        taken.setdefault(fold(item.path.name), file_key(item.url))
        yield item


def _item(
    slot: Slot,
    version: Version,
    facts: Facts,
    definition: Definition,
    inventory: Inventory,
    taken: Mapping[str, str],
) -> Item:
    if facts.found is not None:
        path = facts.found.path
    else:
        path = inventory.place(wanted_file(definition, version, slot), facts.unusable, taken)
    return Item(
        subject=slot,
        url=version.url,
        path=path,
        present=facts.found is not None,
        bytes=facts.bytes or inventory.index.size_of(version.url),
        weights=slot != PRELOAD,
        sums=definition.sha256,
        obstacle=next((file.reason for file in facts.unusable if file.path == path), ""),
    )


def _components(
    definition: Definition, preferences: Preferences, inventory: Inventory, notices: list[str]
) -> Iterator[Item]:
    counted: set[Path] = set()  # files that two components have in common count once
    for component in definition.architecture.parts:
        here = inventory.component(definition.components, component.name)
        size = size_on_disk(here.rglob("*")) if here else None
        if here is None and definition.components == definition.architecture.components_repo:
            here = _loose(component, preferences.text_encoder_quantization, inventory, notices)
            files = set(component_files(here, component) if here else ()) - counted
            size = size_on_disk(files) if here else None
            counted |= files
        path = here or inventory.component_folders(definition.components)[0] / component.name
        url = f"{hub_endpoint()}/{definition.components}/tree/main/{component.name}"
        size = inventory.index.size_of(url) if here is None else size
        yield Item(
            component.name, url, path, here is not None, size,
            repository=definition.components, patterns=component.files,
        )  # fmt: skip


def size_on_disk(paths: Iterable[Path]) -> int:
    """Bytes of the files among `paths`; what can't be looked at counts as none."""
    total = 0
    for path in paths:
        with contextlib.suppress(OSError):
            total += path.stat().st_size if path.is_file() else 0
    return total


def _loose(component: Component, quantization: str, inventory: Inventory, notices: list[str]) -> Path | None:
    """The file of a WanGP folder that holds a component, with notices about files that can't be used and about a
    preferred quantization that isn't there.
    """
    here, unusable = inventory.loose(component, quantization)
    notices += [text for text in map(_passed_over, unusable) if text not in notices]
    wanted = quantization == "int8"
    if here and is_int8(here.name) != wanted and any(is_int8(name) == wanted for name in component.wangp_files):
        notices.append(f"{component.name}: {here.name} is used, {quantization} is preferred, but isn't there.")
    return here


def _passed_over(file: Unusable) -> str:
    return f"{file.path} is passed over: {file.reason}"


def other_versions(plan: Plan) -> tuple[Item, ...]:
    """The versions that were not chosen, of every slot: what a copy for other machines also takes.

    Files of formats that are never loaded are left out.
    """
    definition = plan.definition
    inventory = Inventory(definition.root, plan.preferences.model_folders)
    chosen = {item.url for item in plan.items}
    items: list[Item] = []
    for slot, versions in definition.slots.items():
        for version in versions:
            if version.url in chosen or not version.remote or read_name(version.url).format in ("gguf", "pickle"):
                continue
            found, unusable = inventory.find(wanted_file(definition, version, slot))
            facts = Facts(found, None, tuple(unusable))
            taken = {fold(item.path.name): file_key(item.url) for item in (*plan.items, *items)}
            items.append(_item(slot, version, facts, definition, inventory, taken))
    return tuple(items)
