"""The choice of versions with all available facts: files on disk, and headers behind URLs that decide the choice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from reeltune.checkpoints.identify import Identity
from reeltune.checkpoints.names import format_objection, read_name
from reeltune.definitions import Catalog, Definition, Summary, Version
from reeltune.definitions.model import ListedFile
from reeltune.definitions.slots import PRELOAD, Slot, role_of
from reeltune.dtypes import Quantization
from reeltune.errors import CheckpointError, ChoiceError, DeviceError, FetchError, ReeltuneError
from reeltune.library.inventory import FileQuery, Inventory, Namesake
from reeltune.machine import Machine, probe
from reeltune.planning.choose import Facts, Selection, choose
from reeltune.planning.contradiction import contradiction
from reeltune.planning.headers import Headers
from reeltune.planning.stand_ins import stand_ins, with_stand_ins
from reeltune.preferences import Preferences


@dataclass(frozen=True)
class SelectionWithFacts:
    """A selection and the facts that it is based on, by URL."""

    selection: Selection
    facts: Mapping[str, Facts]

    @property
    def remote_facts(self) -> dict[str, Facts]:
        """What was read over the network, by URL: headers, and why they could not be read."""
        remote = {url: Facts(remote=facts.remote, broken=facts.broken) for url, facts in self.facts.items()}
        return {url: facts for url, facts in remote.items() if facts != Facts()}


def select(
    definition: Definition,
    preferences: Preferences,
    machine: Machine,
    inventory: Inventory,
    headers: Headers | None = None,
    known: Mapping[str, Facts] | None = None,
) -> SelectionWithFacts:
    """Choose a version for every slot.

    With `headers`, the headers that may change the choice are read: those of chosen versions that aren't on disk, and
    those of versions whose names don't contain a data type. This is repeated until the choice doesn't change. `known`:
    facts that were read before, by URL. Raises ChoiceError and DeviceError; FetchError or CheckpointError if no version
    can be used because of a file behind a URL.
    """
    facts = _facts_on_disk(definition, inventory, known or {})
    other_files = stand_ins(definition, inventory, facts.keys() - _absent(facts))
    if other_files is not None:
        on_disk = _facts_on_disk(other_files, inventory, {})
        selection = _choose(other_files, preferences, machine, on_disk)
        if isinstance(selection, Selection):
            facts_by_url = {url: version_facts.facts for url, version_facts in on_disk.items()}
            return SelectionWithFacts(with_stand_ins(definition, selection), facts_by_url)
    failures: list[FetchError | CheckpointError] = []
    while True:
        selection = _choose(definition, preferences, machine, facts)
        unread = _headers_to_read(definition, selection, facts) if headers is not None else []
        if headers is None or not unread:
            break
        for version in unread:
            facts[version.url] = _read_header(version, facts[version.url], headers, failures)
    if isinstance(selection, ChoiceError):
        raise failures[0] if failures else selection
    return SelectionWithFacts(selection, {url: version_facts.facts for url, version_facts in facts.items()})


@dataclass(frozen=True)
class _VersionFacts:
    """The facts about a version. `final`: reading its header over the network would add nothing."""

    facts: Facts
    final: bool


def _absent(facts: Mapping[str, _VersionFacts]) -> set[str]:
    """The URLs of versions that aren't on disk."""
    return {url for url, version_facts in facts.items() if version_facts.facts.found is None}


def _facts_on_disk(
    definition: Definition, inventory: Inventory, known: Mapping[str, Facts]
) -> dict[str, _VersionFacts]:
    facts: dict[str, _VersionFacts] = {}
    for slot, versions in definition.all_versions.items():
        for version in versions:
            facts[version.url] = _version_facts(definition, version, slot, inventory, known)
    return facts


def _version_facts(
    definition: Definition, version: Version, slot: Slot, inventory: Inventory, known: Mapping[str, Facts]
) -> _VersionFacts:
    file, unusable = inventory.find(file_query(definition, version, slot))
    if file is not None or not version.remote or format_objection(version.url):
        return _VersionFacts(Facts(file, None, tuple(unusable)), final=True)
    if version.url in known:
        return _VersionFacts(replace(known[version.url], unusable=tuple(unusable)), final=True)
    return _VersionFacts(Facts(None, None, tuple(unusable)), final=False)


def _choose(
    definition: Definition, preferences: Preferences, machine: Machine, facts: Mapping[str, _VersionFacts]
) -> Selection | ChoiceError:
    facts_by_url = {url: version_facts.facts for url, version_facts in facts.items()}
    try:
        data_types, stores_fp8 = machine.data_types(preferences.device), machine.stores_fp8(preferences.device)
        return choose(definition, preferences, data_types, facts_by_url, stores_fp8=stores_fp8)
    except ChoiceError as error:
        return error


def _headers_to_read(
    definition: Definition, selection: Selection | ChoiceError, facts: Mapping[str, _VersionFacts]
) -> list[Version]:
    """Versions whose headers may change the choice and have not been read yet."""
    versions: list[Version] = []
    if isinstance(selection, ChoiceError):  # a version may have been rejected by its name alone
        versions = [rejection.version for rejection in selection.rejected if rejection.version.remote]
    else:
        for slot, choice in {**selection.choices, **selection.components}.items():
            if not choice.present:
                versions.append(choice.version)
                versions += [version for version in definition.all_versions[slot] if _has_no_dtype_in_name(version)]
    return [version for version in dict.fromkeys(versions) if not facts[version.url].final]


def _has_no_dtype_in_name(version: Version) -> bool:
    name = read_name(version.url)
    return name.dtype is None and name.quantization == Quantization.NONE


def _read_header(
    version: Version, known: _VersionFacts, headers: Headers, failures: list[FetchError | CheckpointError]
) -> _VersionFacts:
    try:
        return _VersionFacts(replace(known.facts, remote=headers.identity(version)), final=True)
    except (CheckpointError, FetchError) as error:
        failures.append(error)
        return _VersionFacts(replace(known.facts, broken=str(error)), final=True)


def file_query(definition: Definition, version: Version, slot: Slot) -> FileQuery:
    """The query for the file of a slot's version on disk."""
    role = role_of(slot, definition.slots)

    def objection(identity: Identity) -> str:
        return contradiction(identity, definition.architecture, role, slot)

    def namesakes() -> list[Namesake]:
        return [_namesake(listed) for listed in definition.namesakes(version)]

    if slot == PRELOAD:
        return FileQuery(version, weights=False, namesakes=namesakes)
    sha256 = listed_sha256(definition.sha256, version.url, version.file_name)
    return FileQuery(version, sha256=sha256, objection=objection, namesakes=namesakes)


def _namesake(listed: ListedFile) -> Namesake:
    def fits(identity: Identity) -> bool:
        role = role_of(listed.slot, listed.slots)
        return listed.slot == PRELOAD or not contradiction(identity, listed.architecture, role, listed.slot)

    return Namesake(listed.url, fits)


def listed_sha256(sha256_by_name: Mapping[str, str], *names: str) -> str | None:
    """The sha256 that a definition lists for the first of `names` that it lists one for."""
    for name in names:
        if name in sha256_by_name:
            return sha256_by_name[name]
    return None


def local_summaries(catalog: Catalog, preferences: Preferences, machine: Machine | None = None) -> list[Summary]:
    """The summaries of a catalog, where `runnable` also depends on files on disk, the device and the preferences."""
    machine = machine or probe()
    inventory = Inventory(catalog.root, preferences.model_folders)
    return [_local_summary(catalog, summary, preferences, machine, inventory) for summary in catalog.summaries()]


def reason_not_runnable(
    definition: Definition, preferences: Preferences, machine: Machine, inventory: Inventory | None = None
) -> str:
    """Why a definition can't run on this machine, by the files on disk and the device; empty if it can."""
    if not definition.runnable:
        return definition.reason
    try:
        select(definition, preferences, machine, inventory or Inventory(definition.root, preferences.model_folders))
    except (ChoiceError, DeviceError) as error:
        return error.message
    return ""


def _local_summary(
    catalog: Catalog, summary: Summary, preferences: Preferences, machine: Machine, inventory: Inventory
) -> Summary:
    try:
        reason = reason_not_runnable(catalog[summary.id], preferences, machine, inventory)
    except ReeltuneError:  # the definition can't be resolved, and the summary has the reason
        return summary
    if not reason:  # a header shows that the file can be used, although its name suggests otherwise
        return replace(summary, runnable=True, reason="", cause="")
    return replace(summary, runnable=False, reason=summary.reason or reason, cause=summary.cause or reason)
