"""What publishing a definition will do: shown first, and carried out only afterwards.

plan = plan_publication(catalog, "t2v_mine", options, repository, folder)
for file in plan.files:
    print(file.name, file.bytes, file.state)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from urllib.parse import quote

from reeltune.checkpoints.header import read_header
from reeltune.checkpoints.names import base_name
from reeltune.definitions import Catalog, Definition
from reeltune.definitions.slots import Slot
from reeltune.errors import CheckpointError, PublishError, PublishRefused
from reeltune.events import CancelToken, Listener, ignore
from reeltune.library.digests import sha256_of
from reeltune.library.index import Index
from reeltune.library.inventory import CHECKPOINT_SUFFIXES
from reeltune.net import HUB, shown
from reeltune.preferences import load_preferences
from reeltune.sharing.card import MAX_BYTES, NAME, CardFacts, CardFile, card_text
from reeltune.sharing.examples import Example, find_examples
from reeltune.sharing.hub import HubRepository, LargeFile, RemoteEntry, RepositoryState, SmallFile
from reeltune.sharing.leaks import Secrets
from reeltune.sharing.licenses import License, remembered_license
from reeltune.sharing.own_files import MissingVersion, OwnFile, OwnFiles, own_files
from reeltune.sharing.relation import base_model, pipeline_tag, relation
from reeltune.sharing.shareable import Replacements, definition_file, shareable_text

_UNDECIDED = License("unknown")  # in the texts of a plan that is only shown
DEFAULT_EXAMPLES = 3


class UploadState(StrEnum):
    """What happens to a file."""

    NEW = "new"
    SAME = "on the Hub already"
    REPLACES = "replaces another file"


@dataclass(frozen=True)
class PublishOptions:
    """What the user chose. `versions`: empty for all that are listed. `license`: None for the remembered one.

    `examples`: how many videos at most. `keep_metadata`: publish files whose metadata contains paths of this machine.
    `force`: replace files of a repository that wasn't published from this definition.
    """

    public: bool = False
    pull_request: bool = False
    versions: tuple[str, ...] = ()
    license: License | None = None
    examples: int = DEFAULT_EXAMPLES
    keep_metadata: bool = False
    force: bool = False


@dataclass(frozen=True)
class PlannedUpload:
    """A file of the plan. `bytes`, `sha256`: unknown for a version that is still to be made."""

    name: str
    bytes: int | None
    sha256: str
    state: UploadState


@dataclass(frozen=True)
class PublishPlan:
    """Everything that publishing will do.

    `state`: the repository; None if it will be created. `license`: None while the user hasn't chosen. `large`, `small`:
    all files. `present`: what the repository has under their names. `missing`: versions to make first. `others`: the
    URLs of others, which stay.
    """

    definition: Definition
    repository: str
    options: PublishOptions
    state: RepositoryState | None
    license: License | None
    own: OwnFiles
    large: tuple[LargeFile, ...]
    small: tuple[SmallFile, ...]
    present: Mapping[str, RemoteEntry]
    replacements: Replacements
    others: tuple[str, ...]
    examples: tuple[Example, ...]
    notices: tuple[str, ...]
    missing: tuple[MissingVersion, ...] = ()
    secrets: Secrets = field(default=Secrets((), ()), repr=False)

    @property
    def files(self) -> tuple[PlannedUpload, ...]:
        """All files with what happens to them."""
        planned = [PlannedUpload(f.name, f.bytes, f.sha256, self._state_of(f)) for f in self.large]
        planned += [PlannedUpload(m.name, None, "", UploadState.NEW) for m in self.missing]
        planned += [PlannedUpload(f.name, len(f.content), "", self._state_of(f)) for f in self.small]
        return tuple(planned)

    @property
    def uploads(self) -> tuple[LargeFile | SmallFile, ...]:
        """All files that the repository will have, except versions that are still to be made."""
        return (*self.large, *self.small)

    @property
    def to_send(self) -> tuple[LargeFile, ...]:
        """The large files that the repository doesn't have."""
        return tuple(file for file in self.large if self._state_of(file) is not UploadState.SAME)

    @property
    def changed_texts(self) -> tuple[SmallFile, ...]:
        """The small files that differ from those in the repository."""
        return tuple(file for file in self.small if self._state_of(file) is not UploadState.SAME)

    def _state_of(self, file: LargeFile | SmallFile) -> UploadState:
        entry = self.present.get(file.name)
        if entry is None:
            return UploadState.NEW
        return UploadState.SAME if is_same(file, entry) else UploadState.REPLACES


def is_same(file: LargeFile | SmallFile, entry: RemoteEntry) -> bool:
    """Whether an entry of a repository has the bytes of a file."""
    if isinstance(file, LargeFile):
        return entry.bytes == file.bytes and entry.sha256 == file.sha256
    return entry.bytes == len(file.content) and entry.blob_id == file.blob_id


def file_url(repository: str, name: str) -> str:
    """The URL of a file on the main branch of a repository."""
    return f"{HUB}/{repository}/resolve/main/{quote(name)}"


def definition_url(repository: str, id: str) -> str:
    """The URL that `reeltune add` takes."""
    return f"{HUB}/{repository}/blob/main/{quote(id)}.json"


def plan_publication(
    catalog: Catalog,
    id: str,
    options: PublishOptions,
    hub: HubRepository,
    folder: Path,
    *,
    made: Sequence[OwnFile] = (),
    listener: Listener = ignore,
    cancel: CancelToken | None = None,
) -> PublishPlan:
    """Work out what publishing will do. Nothing is sent, and no file of the user is changed.

    `folder`: for copies of example videos. `made`: versions that were made for this. Raises PublishError for what can't
    be published, PublishRefused if the token may not write to the repository, FileError, Cancelled.
    """
    definition = catalog[id]
    definition_file(definition)
    preferences, _ = load_preferences(catalog.root)
    secrets = Secrets.of(catalog.root, preferences.tokens.values())
    own = own_files(definition, preferences, options.versions, file_url(hub.name, ""))
    missing = tuple(
        version for version in own.missing if (version.slot, version.name) not in {(m.role, m.name) for m in made}
    )
    files = (*own.files, *made)
    if not files and not missing and file_url(hub.name, "") not in "\n".join(_others(definition)):
        message = f"{id} lists no file of this machine: there is nothing to upload."
        raise PublishError(message, hint="Others can already use its definition as it is.")
    state = _checked_repository(hub, options)
    index = Index(catalog.root / "ckpts")
    large = [_large_file(file, index, listener, cancel) for file in files]
    _check_metadata(files, secrets, options)
    examples = find_examples(definition, preferences, options.examples, secrets, folder)
    license = options.license or remembered_license(catalog.section(id))
    replacements = Replacements(
        {file.source: file_url(hub.name, file.name) for file in own.files},
        _added(hub.name, made, missing),
        {file.name: file.sha256 for file in large},
        license or _UNDECIDED,
    )
    text, notices = shareable_text(catalog, definition, replacements, secrets)
    plan = PublishPlan(
        definition=definition,
        repository=hub.name,
        options=options,
        state=state,
        license=license,
        own=replace(own, files=files),
        large=(*dict.fromkeys(large), *(example.file for example in examples)),
        small=(SmallFile(f"{id}.json", text.encode("utf-8")),),
        present={},
        replacements=replacements,
        others=tuple(url for url in _others(definition) if url not in {file.source for file in own.files}),
        examples=tuple(examples),
        notices=tuple(notices),
        missing=missing,
        secrets=secrets,
    )
    return _with_remote_state(_with_card(plan, hub), hub)


def _checked_repository(hub: HubRepository, options: PublishOptions) -> RepositoryState | None:
    """The state of the repository. Raises PublishRefused unless the token may write to it, or create it."""
    account = hub.account()
    state = hub.state()
    if state is not None:
        if not options.pull_request:
            hub.check_write()
        return state
    owner = hub.name.partition("/")[0]
    if options.pull_request:
        raise PublishError(f"{hub.name} doesn't exist.", hint="A pull request needs a repository that exists.")
    if owner not in (account.name, *account.organizations):
        names = ", ".join((account.name, *account.organizations))
        message = f"{hub.name} doesn't exist, and your token can't create repositories of {owner}."
        raise PublishRefused(message, hint=f"Use one of the names {names}.")
    if not account.may_write:
        message = "Your token can only read."
        raise PublishRefused(message, hint="Create one with the right to write: https://huggingface.co/settings/tokens")
    return None


def _large_file(file: OwnFile, index: Index, listener: Listener, cancel: CancelToken | None) -> LargeFile:
    digest = sha256_of(file.path, index, listener, cancel)
    return LargeFile(file.name, file.path, file.path.stat().st_size, digest)


def _check_metadata(files: Sequence[OwnFile], secrets: Secrets, options: PublishOptions) -> None:
    """Raise PublishError for a weight file whose metadata contains a secret, as some trainers write paths into it."""
    for file in files:
        if not file.name.lower().endswith(CHECKPOINT_SUFFIXES):
            continue
        try:
            metadata = read_header(file.path).metadata
        except CheckpointError as error:
            raise PublishError(f"{file.name} is damaged: {error.message}", hint=error.hint) from error
        leak = secrets.find_in(dict(metadata))
        if leak and not options.keep_metadata:
            message = f"The metadata of {file.name} has {leak.partition(': ')[2]} under {leak.partition(': ')[0]!r}."
            raise PublishError(message, hint="Write the file again without it, or use --keep-metadata.")


def _added(repository: str, made: Sequence[OwnFile], missing: Sequence[MissingVersion]) -> dict[Slot, tuple[str, ...]]:
    """The URLs of versions that were made, or will be, by slot."""
    names = [(Slot(file.role), file.name) for file in made] + [(version.slot, version.name) for version in missing]
    added: dict[Slot, tuple[str, ...]] = {}
    for slot, name in names:
        added[slot] = (*added.get(slot, ()), file_url(repository, name))
    return added


def _others(definition: Definition) -> list[str]:
    """The URLs of others that the definition lists, for messages."""
    lists = [*definition.all_versions.values(), definition.preload, definition.loras]
    return list(dict.fromkeys(shown(version.url) for versions in lists for version in versions if version.remote))


def _with_card(plan: PublishPlan, hub: HubRepository) -> PublishPlan:
    """The plan with the card. Raises PublishError if it would contain a secret."""
    existing = None
    if plan.state is not None and NAME in hub.entries([NAME], plan.state.head):
        existing = hub.read(NAME, plan.state.head, MAX_BYTES).decode("utf-8", "replace")
    text = card_text(existing, _card_facts(plan))
    secret = plan.secrets.find(text.replace(existing or "\0", ""))
    if secret:
        raise PublishError(f"The card would contain {secret}.", hint="Remove it from the definition or the prompts.")
    return replace(plan, small=(SmallFile(NAME, text.encode("utf-8")), *plan.small))


def _card_facts(plan: PublishPlan) -> CardFacts:
    definition = plan.definition
    versions = {file.name: file for file in plan.own.files}
    files = [
        CardFile(
            file.name, versions[file.name].role, versions[file.name].version, file.bytes, file.sha256,
            file_url(plan.repository, file.name),
        )
        for file in plan.large
        if file.name in versions
    ]  # fmt: skip
    files += [CardFile(base_name(url), "", "", None, "", url) for url in plan.others]
    settings = {key: value for key, value in definition.settings.items() if not plan.secrets.find_in(value)}
    return CardFacts(
        title=definition.name,
        description=definition.description,
        license=plan.license or _UNDECIDED,
        base_model=base_model(definition),
        relation=relation(plan.own.files, plan.others),
        pipeline=pipeline_tag(definition),
        files=files,
        settings={key: value for key, value in settings.items() if value not in (None, "", [])},
        examples=plan.examples,
        definition_url=definition_url(plan.repository, definition.id),
        definition_id=definition.id,
    )


def _with_remote_state(plan: PublishPlan, hub: HubRepository) -> PublishPlan:
    """The plan with what the repository has. Raises PublishError if it would replace files of another model."""
    if plan.state is None:
        return plan
    is_private = plan.state.private
    names = [file.name for file in plan.uploads]
    plan = replace(plan, present=hub.entries(names, plan.state.head))
    replaced = [file.name for file in plan.files if file.state is UploadState.REPLACES and file.name != NAME]
    is_own = f"{plan.definition.id}.json" in plan.present
    if replaced and not (is_own or plan.options.force):
        message = f"{plan.repository} exists already, and has another {replaced[0]}."
        raise PublishError(message, hint="Choose another repository, or replace the file with --force.")
    if not plan.options.public and not is_private:
        return replace(plan, notices=(*plan.notices, f"{plan.repository} is public: everybody will see the files."))
    return plan
