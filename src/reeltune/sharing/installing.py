"""`add` of a shared definition: checked and described completely before anything is written.

shared = describe(catalog, read_incoming(url, preferences), preferences)
install(catalog, shared)
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from reeltune.definitions import Catalog, Definition, Version
from reeltune.definitions.copying import is_valid_id
from reeltune.definitions.jsontext import parse_object
from reeltune.definitions.schema import MODEL_KEY, DefinitionFile, parse_definition, read_definition
from reeltune.definitions.section import FILE_KEYS, LISTS
from reeltune.definitions.slots import PRELOAD
from reeltune.definitions.writer import KeyPath, edited_text
from reeltune.errors import DefinitionError, DefinitionInvalid, Problem
from reeltune.events import CancelToken
from reeltune.families.values import PATHS, Settings
from reeltune.families.vocabulary import KEYS
from reeltune.files import write_atomic
from reeltune.library.inventory import Inventory
from reeltune.net import offline, shown
from reeltune.planning.facts import file_query
from reeltune.planning.loras import planned_loras, split_source
from reeltune.preferences import Preferences
from reeltune.settings.renames import RENAMED
from reeltune.sharing.incoming import IncomingDefinition, shown_source
from reeltune.sharing.licenses import License, remembered_license
from reeltune.sharing.probing import Question, is_on_local_network, probe_all
from reeltune.sharing.sources import InstalledSource, source_path, write_source

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_SECONDS = 30.0  # for the sizes of all files


@dataclass(frozen=True)
class SharedFile:
    """A file that a definition would download. `role`: its slot, "preload" or "loras". `bytes`: None if unknown.

    `problem`: why the server doesn't serve it; empty if it does, or wasn't asked.
    """

    role: str
    url: str
    bytes: int | None
    present: bool
    problem: str = ""

    @property
    def name(self) -> str:
        """The name of the file."""
        return Version(self.url).file_name


@dataclass(frozen=True)
class SharedDefinition:
    """A definition that can be installed.

    `text`: what will be written. `files`: everything that it lists. `own_settings`: its settings. `notices`: warnings
    about its values, and what was left out. `replaces`: the user's file with this id, if there is one.
    """

    incoming: IncomingDefinition
    id: str
    text: str
    definition: Definition
    files: tuple[SharedFile, ...]
    own_settings: Settings
    license: License | None
    notices: tuple[str, ...]
    replaces: Path | None


def describe(
    catalog: Catalog,
    incoming: IncomingDefinition,
    preferences: Preferences,
    *,
    id: str = "",
    name: str = "",
    sizes: bool = True,
    cancel: CancelToken | None = None,
) -> SharedDefinition:
    """Check a definition as if it were installed. Nothing is written.

    `id`, `name`: others than its own. `sizes`: ask the servers for the sizes of its files. Raises DefinitionError for
    one that can't be used, names files of its author's machine, or has the id of a built-in one.
    """
    chosen_id = id or incoming.id
    if not is_valid_id(chosen_id):
        message = f"{shown_source(incoming.source)} has no name that can be an id." if not id else f"Invalid id {id!r}."
        raise DefinitionError(message, hint="Choose an id: --id my_model.")
    path = catalog.root / "finetunes" / f"{chosen_id}.json"
    replaces = _replaced_file(catalog, chosen_id, path)
    if replaces is not None:  # its id may differ in upper and lower case
        path, chosen_id = replaces, replaces.stem
    text, removed = _cleaned_text(path, incoming.text, name)
    file = parse_definition(path, text)
    base = catalog if replaces is None else _without(catalog, replaces)
    definition = base.with_file(file)[chosen_id]
    _refuse_local_files(base, file, definition.components, shown_source(incoming.source))
    problems = [problem for problem in definition.notices if problem.file == str(path)]
    notices = [*incoming.notices, *removed, *(f"{problem.where}: {problem.message}" for problem in problems)]
    if definition.reason:
        notices.append(f"It can't run: {definition.reason}.")
    files = _files(definition, preferences, ask=sizes and not offline(), source=incoming.source, cancel=cancel)
    return SharedDefinition(
        incoming=incoming,
        id=chosen_id,
        text=text,
        definition=definition,
        files=tuple(files),
        own_settings=file.settings,
        license=remembered_license(file.model),
        notices=tuple(notices),
        replaces=replaces,
    )


def install(catalog: Catalog, shared: SharedDefinition, *, force: bool = False) -> Path:
    """Write a definition and remember its source; returns its path.

    Raises DefinitionError if a file with its id exists, unless `force`, FileError.
    """
    path = catalog.root / "finetunes" / f"{shared.id}.json"
    if path.exists() and not force:
        message = f"The definition {shared.id} exists already."
        raise DefinitionError(message, hint="Replace it with --force, or choose another id with --id.")
    write_atomic(path, shared.text.encode("utf-8"))
    if shared.incoming.remote:
        write_source(path, InstalledSource(shared.incoming.source, shared.incoming.text))
    else:
        source_path(path).unlink(missing_ok=True)
    return path


def _replaced_file(catalog: Catalog, id: str, path: Path) -> Path | None:
    """The user's file with an id. Raises DefinitionError for the id of a built-in definition."""
    same_id = next((other for other in catalog if other.lower() == id.lower()), None)
    if same_id is not None and any(file.parent != path.parent for file in catalog.files_of(same_id)):
        message = f"{same_id} is a built-in definition, which a shared one can't replace."
        raise DefinitionError(message, hint="Choose another id: --id my_model.")
    if same_id is not None:
        return path.with_name(f"{same_id}.json")
    return path if path.exists() else None


def _without(catalog: Catalog, replaced: Path) -> Catalog:
    """The same catalog as if a file didn't exist."""

    def read(path: Path) -> DefinitionFile:
        if path == replaced:
            raise DefinitionError(f"{path} will be replaced.")
        return read_definition(path)

    return Catalog(catalog.root, read)


def _cleaned_text(path: Path, text: str, name: str) -> tuple[str, list[str]]:
    """The text to write: with another name if one was chosen, and without settings that name files of a machine."""
    value = parse_object(text, path.name)[0]
    removed: list[KeyPath] = []
    notices = []
    for key, setting in value.items():
        newest = RENAMED.get(key, key)
        is_input = key != MODEL_KEY and newest in KEYS and KEYS[newest].kind is PATHS
        if is_input and setting not in (None, "", []):
            removed.append((key,))
            notices.append(f"{key} is left out: it names files of another machine.")
    changes: dict[KeyPath, str] = {(MODEL_KEY, "name"): name} if name else {}
    if not removed and not changes:
        return text, []
    return edited_text(path, text, changes, removed), notices


def _refuse_local_files(catalog: Catalog, file: DefinitionFile, components: str, source: str) -> None:
    """Raise DefinitionInvalid for a definition that names files or folders of its author's machine."""
    fix = "Its author can share it with `reeltune publish`."
    problems = []
    for key in LISTS:
        for path in _local_paths(catalog, key, getattr(file.model, key, None)):
            problems.append(Problem(source, f"model.{key}", f"{path!r} is a path on its author's machine.", fix))
    for key in FILE_KEYS:
        own = getattr(file.model, key, None)
        if own and not Version(own).remote:
            problems.append(Problem(source, f"model.{key}", f"{own!r} is a path on its author's machine.", fix))
    if file.model.components and not _REPOSITORY.fullmatch(components):
        problems.append(Problem(source, "model.components", f"{components!r} is not a repository NAME/REPO.", fix))
    if problems:
        raise DefinitionInvalid(problems)


def _local_paths(catalog: Catalog, key: str, value: object, *, nested: bool = False) -> Iterator[str]:
    """The paths in a list of files. Ids of definitions are no paths, nor are plain names of LoRAs."""
    for item in value if isinstance(value, list) else ():
        if isinstance(item, list):
            yield from _local_paths(catalog, key, item, nested=True)
        elif isinstance(item, str) and not Version(item).remote:
            is_id = key == "modules" and not nested and item.partition("#")[0] in catalog
            is_lora_name = key == "loras" and "/" not in item and "\\" not in item
            if not (is_id or is_lora_name):
                yield item


def _files(
    definition: Definition, preferences: Preferences, *, ask: bool, source: str, cancel: CancelToken | None
) -> list[SharedFile]:
    """Everything that a definition lists. `ask`: whether to ask the servers for sizes."""
    inventory = Inventory(definition.root, preferences.model_folders)
    listed: list[tuple[str, str, bool]] = []
    for slot, versions in [*definition.all_versions.items(), (PRELOAD, definition.preload)]:
        for version in versions:
            found, _ = inventory.find(file_query(definition, version, slot))
            listed.append((slot, version.url, found is not None))
    named = definition.settings.get("activated_loras") or ()
    loras = [*(lora.url for lora in definition.loras), *([named] if isinstance(named, str) else named)]
    for lora in planned_loras(definition, preferences, list(dict.fromkeys(loras))):
        listed.append(("loras", split_source(lora.source)[0], lora.item.present))
    urls = [url for _, url, _ in listed if Version(url).remote and _may_be_asked(url, source)]
    answers = probe_all([Question(url, weights=False) for url in urls] if ask else [], preferences.tokens,
                        seconds=_SECONDS, cancel=cancel)  # fmt: skip
    files = []
    for role, url, present in listed:
        answer = answers.get(url)
        problem = ""
        if not Version(url).remote:
            problem = "" if present else "it is named without a URL, and isn't on this machine"
        elif not _may_be_asked(url, source):
            problem = "its server is in a local network, and was not asked"
        elif answer is not None and answer.error is not None:
            problem = answer.error.message.removeprefix(shown(url)).lstrip(": ").rstrip(".")
        files.append(SharedFile(role, url, None if answer is None else answer.bytes, present, problem))
    return files


def _may_be_asked(url: str, source: str) -> bool:
    """Whether a server may be asked before the user has agreed: not those of the user's own network.

    Asking them could trigger something there, unless the definition itself comes from there.
    """
    return not is_on_local_network(url) or ("://" in source and is_on_local_network(source))
