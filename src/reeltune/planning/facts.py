"""The choice of versions on the facts there are: files on disk, and headers behind URLs where these decide it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from reeltune.checkpoints.identify import Identity
from reeltune.checkpoints.names import SIXTEEN_BITS, format_objection, read_name
from reeltune.definitions import Catalog, Definition, Summary, Version
from reeltune.definitions.model import ListedFile
from reeltune.definitions.slots import PRELOAD, Slot, role_of
from reeltune.errors import CheckpointError, ChoiceError, DeviceError, FetchError, ReeltuneError
from reeltune.library.inventory import Inventory, Namesake, Wanted
from reeltune.machine import Machine, probe
from reeltune.planning.choose import Facts, Selection, choose, contradiction
from reeltune.planning.headers import Headers
from reeltune.preferences import Preferences


@dataclass(frozen=True)
class Chosen:
    """A selection, and all that it was made from: facts by URL."""

    selection: Selection
    facts: Mapping[str, Facts]

    @property
    def learned(self) -> dict[str, Facts]:
        """What was read over the network, by URL: headers, and why there are none."""
        found = {url: Facts(remote=row.remote, broken=row.broken) for url, row in self.facts.items()}
        return {url: row for url, row in found.items() if row != Facts()}


def select(
    definition: Definition,
    preferences: Preferences,
    machine: Machine,
    inventory: Inventory,
    headers: Headers | None = None,
    known: Mapping[str, Facts] | None = None,
) -> Chosen:
    """Choose a version for every slot.

    With `headers` those are read that may change the choice: of the versions chosen that aren't on disk, and of those
    whose names hide what they hold, until the choice stands. `known`: what was read before. Raises
    ChoiceError, DeviceError; FetchError or CheckpointError where nothing can be used because of a file behind a URL.
    """
    facts = _on_disk(definition, inventory, known or {})
    failures: list[FetchError | CheckpointError] = []
    while True:
        selection = _choose(definition, preferences, machine, facts)
        unread = _worth_reading(definition, selection, facts) if headers is not None else []
        if headers is None or not unread:
            break
        for version in unread:
            facts[version.url] = _read(version, facts[version.url], headers, failures)
    if isinstance(selection, ChoiceError):
        raise failures[0] if failures else selection
    return Chosen(selection, {url: row.facts for url, row in facts.items()})


@dataclass(frozen=True)
class _Looked:
    """What is known of a version, and whether there is no more to be asked about it."""

    facts: Facts
    final: bool


def _on_disk(definition: Definition, inventory: Inventory, known: Mapping[str, Facts]) -> dict[str, _Looked]:
    looked: dict[str, _Looked] = {}
    for slot, versions in definition.slots.items():
        for version in versions:
            found, unusable = inventory.find(wanted_file(definition, version, slot))
            facts = Facts(found, None, tuple(unusable))
            final = found is not None or not version.remote or bool(format_objection(version.url))
            if version.url in known and not final:
                facts, final = replace(known[version.url], unusable=tuple(unusable)), True
            looked[version.url] = _Looked(facts, final)
    return looked


def _choose(
    definition: Definition, preferences: Preferences, machine: Machine, looked: Mapping[str, _Looked]
) -> Selection | ChoiceError:
    facts = {url: row.facts for url, row in looked.items()}
    try:
        return choose(definition, preferences, machine.data_types(preferences.device), facts)
    except ChoiceError as error:
        return error


def _worth_reading(
    definition: Definition, selection: Selection | ChoiceError, looked: Mapping[str, _Looked]
) -> list[Version]:
    """Versions whose headers may change the choice, and were not read yet."""
    if isinstance(selection, ChoiceError):  # a name may have said what the header doesn't
        versions = [row.version for row in selection.rejected]
        return _unread([version for version in versions if version.remote], looked)
    versions = []
    for slot, choice in selection.choices.items():
        if not choice.present:
            versions += [choice.version, *(row for row in definition.slots[slot] if _hides_its_type(row))]
    return _unread(versions, looked)


def _unread(versions: Sequence[Version], looked: Mapping[str, _Looked]) -> list[Version]:
    return [version for version in dict.fromkeys(versions) if not looked[version.url].final]


def _hides_its_type(version: Version) -> bool:
    name = read_name(version.url)
    return name.dtype is None and name.quantization == SIXTEEN_BITS


def _read(version: Version, looked: _Looked, headers: Headers, failures: list[FetchError | CheckpointError]) -> _Looked:
    try:
        return _Looked(replace(looked.facts, remote=headers.identity(version)), True)
    except (CheckpointError, FetchError) as error:
        failures.append(error)
        return _Looked(replace(looked.facts, broken=str(error)), True)


def wanted_file(definition: Definition, version: Version, slot: Slot) -> Wanted:
    """What to look for on disk as a version of a slot."""
    architecture, weights = definition.architecture, slot != PRELOAD
    role = role_of(slot, definition.slots)
    return Wanted(
        version,
        weights=weights,
        sha256=sum_for(definition.sha256, version.url, version.file_name) if weights else None,
        objection=lambda identity: contradiction(identity, architecture, role) if weights else "",
        namesakes=lambda: tuple(map(_namesake, definition.namesakes(version))),
    )


def _namesake(listed: ListedFile) -> Namesake:
    def fits(identity: Identity) -> bool:
        role = role_of(listed.slot, listed.slots)
        return listed.slot == PRELOAD or not contradiction(identity, listed.architecture, role)

    return Namesake(listed.url, fits)


def sum_for(sums: Mapping[str, str], *names: str) -> str | None:
    """The sha256 a definition gives under one of several names."""
    return next((sums[name] for name in names if name in sums), None)


def summaries_here(catalog: Catalog, preferences: Preferences, machine: Machine | None = None) -> list[Summary]:
    """The summaries of a catalog with what files on disk, the device and the preferences say besides."""
    machine = machine or probe()
    inventory = Inventory(catalog.root, preferences.model_folders)
    return [_summary_here(catalog, row, preferences, machine, inventory) for row in catalog.summaries()]


def reason_here(
    definition: Definition, preferences: Preferences, machine: Machine, inventory: Inventory | None = None
) -> str:
    """Why a definition can't run here, as far as the files on disk and the device show; empty where it can."""
    if not definition.runnable:
        return definition.reason
    try:
        select(definition, preferences, machine, inventory or Inventory(definition.root, preferences.model_folders))
    except (ChoiceError, DeviceError) as error:
        return error.message
    return ""


def _summary_here(
    catalog: Catalog, row: Summary, preferences: Preferences, machine: Machine, inventory: Inventory
) -> Summary:
    try:
        reason = reason_here(catalog[row.id], preferences, machine, inventory)
    except ReeltuneError:  # it can't be resolved, as the summary says
        return row
    if not reason:  # a header may know better than the name that a summary goes by
        return replace(row, runnable=True, reason="", cause="")
    return replace(row, runnable=False, reason=row.reason or reason, cause=row.cause or reason)
