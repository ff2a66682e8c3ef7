"""What a definition needs under the user's preferences: the chosen versions, and the files on disk and to download.

`explain` returns a `Plan`, which the command line, the downloader, the engine and the page all use.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from reeltune._text import counted
from reeltune.checkpoints.formats import format_of
from reeltune.checkpoints.names import format_objection
from reeltune.definitions import Definition, Version
from reeltune.definitions.slots import PRELOAD, TRANSFORMER, Role, Slot, role_of
from reeltune.dtypes import DType
from reeltune.events import CancelToken
from reeltune.files import expand
from reeltune.library.index import fold
from reeltune.library.inventory import Inventory
from reeltune.machine import Machine, probe
from reeltune.net import file_key
from reeltune.planning.choose import Choice, Facts, Selection
from reeltune.planning.components import as_component, component_items, is_in_place
from reeltune.planning.contradiction import component_of
from reeltune.planning.facts import file_query, select
from reeltune.planning.headers import Headers
from reeltune.planning.item import Item
from reeltune.planning.loras import PlannedLora, default_loras, planned_loras
from reeltune.preferences import Preferences, load_preferences
from reeltune.untrusted import JsonObject


@dataclass(frozen=True)
class Plan:
    """What a definition needs under the preferences: the chosen versions and why, every file, and the device.

    `loras`: the LoRAs, in the order in which they are applied. `remote_facts`: headers that were read over the network,
    by URL.
    """

    definition: Definition
    preferences: Preferences
    machine: Machine
    selection: Selection
    items: tuple[Item, ...]
    notices: tuple[str, ...]
    loras: tuple[PlannedLora, ...] = ()
    remote_facts: Mapping[str, Facts] = field(default_factory=dict, repr=False)

    @property
    def missing(self) -> tuple[Item, ...]:
        """The items that must be downloaded."""
        return tuple(item for item in self.items if not item.present)

    @property
    def transformer(self) -> Choice:
        """The choice for the transformer; for the first one if there are two."""
        return self.selection.choices[TRANSFORMER]

    @property
    def dtype(self) -> DType:
        """The data type that the model computes in."""
        return self.transformer.dtype

    @property
    def device(self) -> str:
        """The device that computes, such as "cpu", "mps", "cuda" or "cuda:1"."""
        return self.machine.device(self.preferences.device)

    @property
    def products_in_fp32(self) -> bool:
        """Whether matrix products are computed in fp32, because the processor is slow in the plan's data type."""
        return self.machine.products_in_fp32(self.preferences.device, self.dtype)

    @property
    def products_in_fp8(self) -> bool:
        """Whether fp8 weights are multiplied in fp8, because the device computes it and the preferences allow it."""
        able = self.machine.computes_fp8(self.preferences.device) and self.dtype is DType.BF16
        return self.keeps_fp8 and able and self.preferences.fp8 == "dynamic"

    @property
    def keeps_fp8(self) -> bool:
        """Whether any weights stay fp8 in memory."""
        return any(
            choice.keep and not format_of(choice.quantization).stored_as_int8
            for choice in self.selection.choices.values()
        )

    @property
    def outputs(self) -> Path:
        """The folder that videos are written to."""
        return self.definition.root / expand(self.preferences.outputs)

    @property
    def bytes_in_place(self) -> int:
        """The bytes of files that are used where other programs or the user have put them."""
        return sum(item.bytes or 0 for item in self.items if item.present and item.in_place)

    def item(self, subject: str) -> Item:
        """The item of a slot or a component."""
        return next(item for item in self.items if item.subject == subject)

    def path(self, subject: str) -> Path:
        """The file of a slot, or the folder or file of a component."""
        return self.item(subject).path

    def files(self, slot: Slot) -> tuple[Path, ...]:
        """The file of a transformer, followed by the files of the modules that are merged into it."""
        modules = [self.path(other) for other in self.selection.choices if other.is_module]
        return self.path(slot), *modules

    def as_json(self) -> JsonObject:
        """The plan as printed by `explain --json`."""
        return {
            "id": self.definition.id,
            "runnable": self.definition.runnable,
            "reason": self.definition.reason,
            "architecture": self.definition.architecture.id,
            "device": self.device,
            "products_in_fp32": self.products_in_fp32,
            "products_in_fp8": self.products_in_fp8,
            "choices": {
                slot: _choice_json(choice, self)
                for slot, choice in {**self.selection.choices, **self.selection.components}.items()
            },
            "components": {
                item.subject: {
                    "path": str(item.path),
                    "more": [str(path) for path in item.more],
                    "present": item.present,
                    "quantize_on_load": item.quantize,
                }
                for item in self.items
                if item.component
            },
            "rejected": [
                {"slot": rejection.slot, "url": rejection.version.url, "reason": rejection.reason}
                for rejection in self.selection.rejected
            ],
            "downloads": [
                {
                    "url": item.url,
                    "path": str(item.path),
                    "present": item.present,
                    "bytes": item.bytes,
                    "in_place": item.in_place,
                }
                for item in self.items
            ],
            "bytes_in_place": self.bytes_in_place,
            "notices": list(self.notices),
        }


def _choice_json(choice: Choice, plan: Plan) -> JsonObject:
    return {
        "file": str(plan.path(choice.slot)),
        "url": choice.version.url,
        "quantization": choice.quantization,
        "quantize_on_load": choice.quantize_on_load,
        "keep": choice.keep,
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
    loras: Sequence[str] | None = None,
) -> Plan:
    """Choose the versions of a definition and list the files that they need.

    Args:
        definition: The definition to explain.
        preferences: The preferences to use; by default those of the definition's root.
        online: Read the headers of files that aren't on disk and may change the choice (a few hundred KB each), as
            `pull` does before it downloads. A server that can't be reached is reported as a notice.
        machine: The machine to choose for; by default this one.
        inventory: The files on disk, to share one inventory between several definitions.
        known: Facts that were read before, by URL.
        cancel: A token that ends the reading of headers.
        headers: A reader of headers whose time limit is shared by several definitions.
        loras: The URLs or paths of the LoRAs to apply; by default those of the definition and its saved settings.

    Raises ChoiceError, DeviceError and PreferencesError; with `online` also FetchError and CheckpointError, if no
    version can be used because of a file behind a URL.
    """
    notices: list[str] = []
    if preferences is None:
        preferences, notices = load_preferences(definition.root)
    machine = machine or probe()
    inventory = inventory or Inventory(definition.root, preferences.model_folders)
    with contextlib.ExitStack() as stack:
        reader = headers or stack.enter_context(Headers(preferences.tokens, cancel=cancel))
        earlier_notices = len(reader.notices)
        selected = select(definition, preferences, machine, inventory, reader if online else None, known)
        notices += reader.notices[earlier_notices:]
    notices += inventory.notices
    selection = selected.selection
    planned = planned_loras(definition, preferences, default_loras(definition) if loras is None else loras)
    counted: set[Path] = set()  # a file that several items share counts once
    items = [
        *(item.counted_once(counted) for item in _files(definition, selection, inventory)),
        *component_items(definition, preferences, selection, inventory, notices, counted),
        *(lora.item.counted_once(counted) for lora in planned),
    ]
    notices += [file.notice for facts in selected.facts.values() for file in facts.unusable]
    notices += _preload_notices(definition)
    for choice in (*selection.choices.values(), *selection.components.values()):
        if choice.facts.found is not None:
            notices += choice.facts.found.notices
        notices += _size_notices(definition, choice)
    notices += selection.notices
    notices += [notice for lora in planned for notice in lora.notices]
    return Plan(
        definition, preferences, machine, selection, tuple(items), tuple(notices), planned, selected.remote_facts
    )


def _size_notices(definition: Definition, choice: Choice) -> list[str]:
    """A notice if the header is that of another architecture with the same structure, such as another size."""
    identity = choice.facts.identity
    if role_of(choice.slot, definition.slots) is not Role.WHOLE:
        return []
    architecture = definition.architecture
    own = {architecture.id, architecture.transformer_of}
    if identity is None or not identity.architectures or own.intersection(identity.architectures):
        return []
    return [
        f"The header of {choice.version.file_name} looks like {' or '.join(identity.architectures)}; it is used as "
        f"{architecture.id}, as the definition says."
    ]


def _files(definition: Definition, selection: Selection, inventory: Inventory) -> Iterator[Item]:
    chosen = {**selection.choices, **selection.components}
    needed = [(slot, choice.version, choice.facts) for slot, choice in chosen.items()]
    for version in used_preload(definition):
        needed.append((PRELOAD, version, _facts_on_disk(definition, version, PRELOAD, inventory)))
    reserved: dict[str, str] = {}
    for slot, version, facts in needed:
        item = _item(slot, version, facts, definition, inventory, reserved)
        reserved.setdefault(fold(item.path.name), file_key(item.url))
        if slot in selection.components:
            item = as_component(item, component_of(definition.architecture, slot), selection.components[slot])
        yield item


def used_preload(definition: Definition) -> tuple[Version, ...]:
    """The versions under `preload_URLs`, without LoRAs of modes and those that only features of other programs use."""
    if definition.architecture.mode_loras:
        return ()
    unused = definition.architecture.unused_files
    return tuple(
        version for version in definition.preload if not any(part in version.file_name.lower() for part in unused)
    )


def _preload_notices(definition: Definition) -> list[str]:
    if definition.architecture.mode_loras:
        return []
    left_out = len(definition.preload) - len(used_preload(definition))
    if not left_out:
        return []
    return [f"Not downloaded: {counted(left_out, 'IC-LoRA')} of preload_URLs, which nothing in reeltune uses."]


def _facts_on_disk(definition: Definition, version: Version, slot: Slot, inventory: Inventory) -> Facts:
    file, unusable = inventory.find(file_query(definition, version, slot))
    return Facts(file, None, tuple(unusable))


def _item(
    slot: Slot,
    version: Version,
    facts: Facts,
    definition: Definition,
    inventory: Inventory,
    reserved: Mapping[str, str],
) -> Item:
    if facts.found is not None:
        path = facts.found.path
    else:
        path = inventory.download_path(file_query(definition, version, slot), facts.unusable, reserved)
    return Item(
        subject=slot,
        url=version.url,
        path=path,
        present=facts.found is not None,
        bytes=facts.bytes or inventory.index.size_of_url(version.url),
        weights=slot != PRELOAD,
        sha256_by_name=definition.sha256,
        obstacle=next((file.reason for file in facts.unusable if file.path == path), ""),
        in_place=facts.found is not None and is_in_place(path, inventory),
    )


def other_versions(plan: Plan) -> tuple[Item, ...]:
    """The versions that were not chosen, of every slot, for copies that other machines use too.

    Files in formats that can't be loaded are left out.
    """
    definition = plan.definition
    inventory = Inventory(definition.root, plan.preferences.model_folders)
    chosen_urls = {item.url for item in plan.items}
    reserved = {fold(item.path.name): file_key(item.url) for item in plan.items}
    items: list[Item] = []
    for slot, versions in definition.all_versions.items():
        for version in versions:
            never_loaded = bool(format_objection(version.url))
            if version.url in chosen_urls or not version.remote or never_loaded:
                continue
            facts = _facts_on_disk(definition, version, slot, inventory)
            item = _item(slot, version, facts, definition, inventory, reserved)
            reserved[fold(item.path.name)] = file_key(item.url)
            items.append(item)
    return tuple(items)
