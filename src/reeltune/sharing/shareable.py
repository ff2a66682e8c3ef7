"""The copy of a definition that others can use: URLs in place of paths, and nothing of this machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reeltune.definitions import Catalog, Definition, Version
from reeltune.definitions.jsontext import parse_object
from reeltune.definitions.schema import MODEL_KEY, read_text
from reeltune.definitions.section import FILE_KEYS, LISTS
from reeltune.definitions.slots import Slot
from reeltune.definitions.writer import KeyPath, edited_text
from reeltune.errors import PublishError
from reeltune.families.values import PATHS
from reeltune.families.vocabulary import KEYS
from reeltune.files import is_folder
from reeltune.net import without_secrets
from reeltune.settings.renames import RENAMED
from reeltune.sharing.leaks import Secrets
from reeltune.sharing.licenses import License
from reeltune.untrusted import JsonObject

_LORA_SETTING = "activated_loras"


@dataclass(frozen=True)
class Replacements:
    """What changes in a definition when it is published.

    `urls`: the URLs of own files, by the path that the definition lists. `added`: the URLs of versions that were made,
    by slot. `sha256`: of own files, by their names. `license`: the chosen one.
    """

    urls: Mapping[str, str]
    added: Mapping[Slot, Sequence[str]]
    sha256: Mapping[str, str]
    license: License


@dataclass
class _Edits:
    """Edits of one definition. `notices`: what was left out."""

    changes: dict[KeyPath, Any] = field(default_factory=dict)
    removed: list[KeyPath] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)


def shareable_text(
    catalog: Catalog, definition: Definition, replacements: Replacements, secrets: Secrets
) -> tuple[str, list[str]]:
    """The text of a definition for others, and notices about what was left out.

    Only values that others can't use are changed. Raises PublishError for what can't be shared, and for secrets.
    """
    path = definition_file(definition)
    text = read_text(path)
    value = parse_object(text, str(path))[0]
    _check_components(definition)
    edits = _edits(catalog, definition, value, replacements, for_others=True)
    _remove_input_files(value, edits)
    result = edited_text(path, text, edits.changes, edits.removed)
    leak = secrets.find_in(parse_object(result, str(path))[0])
    if leak:
        message = f"{definition.id} can't be published: its {leak.replace(': ', ' contains ', 1)}."
        raise PublishError(message, hint="Remove it from the definition.")
    return result, edits.notices


def published_edits(
    catalog: Catalog, definition: Definition, replacements: Replacements
) -> tuple[dict[KeyPath, Any], Path]:
    """The edits of the user's own definition after it was published, and its file. Raises DefinitionError."""
    path = definition_file(definition)
    value = parse_object(read_text(path), str(path))[0]
    edits = _edits(catalog, definition, value, replacements, for_others=False)
    return edits.changes, path


def definition_file(definition: Definition) -> Path:
    """The user's file of a definition. Raises PublishError if it has none."""
    if definition.own_file is None:
        message = f"{definition.id} is built in: there is nothing of yours to publish."
        raise PublishError(
            message, hint=f"`reeltune definitions copy {definition.id} NEW` makes a definition of your own."
        )
    return definition.own_file


def _edits(
    catalog: Catalog, definition: Definition, value: JsonObject, replacements: Replacements, *, for_others: bool
) -> _Edits:
    """The edits of a parsed definition. `for_others`: also leave out what only this machine has."""
    edits = _Edits()
    section = value[MODEL_KEY]
    for key in LISTS:
        old = section.get(key)
        new = _replaced_list(catalog, definition, key, old, replacements, edits, for_others)
        if new != old:
            edits.changes[MODEL_KEY, key] = new
    for key in FILE_KEYS:
        old = section.get(key)
        if not isinstance(old, str):
            continue
        new = _replaced_list(catalog, definition, key, [old], replacements, edits, for_others)
        if not new:
            edits.removed.append((MODEL_KEY, key))
        elif new != [old]:
            edits.changes[MODEL_KEY, key] = new[0]
    _replace_loras(value, replacements, edits)
    sha256 = {**(section.get("sha256") or {}), **replacements.sha256}
    if replacements.sha256 and sha256 != section.get("sha256"):
        edits.changes[MODEL_KEY, "sha256"] = sha256
    chosen = replacements.license
    for key, text in (("license", chosen.id), ("license_name", chosen.name), ("license_link", chosen.link)):
        if text and section.get(key) != text:
            edits.changes[MODEL_KEY, key] = text
        if not text and key in section:
            edits.removed.append((MODEL_KEY, key))
    return edits


def _replaced_list(
    catalog: Catalog,
    definition: Definition,
    key: str,
    old: Any,
    replacements: Replacements,
    edits: _Edits,
    for_others: bool,
) -> Any:
    """A list of files with URLs in place of paths, and with the versions that were made."""
    added = [url for slot, urls in replacements.added.items() if slot.key == key for url in urls]
    if isinstance(old, str) and old and (added or (for_others and not _is_known_to_others(catalog, old))):
        old = _resolved(definition, key)
    if old is None and added:
        old = _resolved(definition, key)
    if not isinstance(old, list):
        return old

    def replaced(item: Any) -> list[Any]:
        if isinstance(item, list):
            return [[url for inner in item for url in replaced(inner)]]
        if not isinstance(item, str) or _is_id(catalog, item):
            return [item]
        if Version(item).remote:
            return [without_secrets(item)] if for_others else [item]
        if item in replacements.urls:
            return [replacements.urls[item]]
        if for_others:
            edits.notices.append(f"{Version(item).file_name} is not in the published definition: it isn't uploaded.")
            return []
        return [item]

    items = [new for item in old for new in replaced(item)]
    return [*items, *(url for url in added if url not in items)]


def _is_id(catalog: Catalog, item: str) -> bool:
    return item.partition("#")[0] in catalog


def _is_known_to_others(catalog: Catalog, reference: str) -> bool:
    """Whether a reference leads to a built-in definition that the user hasn't changed."""
    id = reference if reference in catalog else reference.rpartition("#")[0]
    return id in catalog and all(path.parent != catalog.root / "finetunes" for path in catalog.files_of(id))


def _resolved(definition: Definition, key: str) -> Any:
    """The list under a key with all references resolved."""
    lists: dict[str, Callable[[], Any]] = {
        "preload_URLs": lambda: [version.url for version in definition.preload],
        "loras": lambda: [version.url for version in definition.loras],
        "modules": lambda: [
            [version.url for version in versions] for slot, versions in definition.slots.items() if slot.is_module
        ],
    }
    if key in lists:
        return lists[key]()
    return [
        version.url for slot, versions in definition.all_versions.items() if slot.key == key for version in versions
    ]


def _replace_loras(value: JsonObject, replacements: Replacements, edits: _Edits) -> None:
    named = value.get(_LORA_SETTING)
    names = [named] if isinstance(named, str) and named else named
    if not isinstance(names, list):
        return
    new = [replacements.urls.get(name, name) if isinstance(name, str) else name for name in names]
    if new != names:
        edits.changes[(_LORA_SETTING,)] = new


def _remove_input_files(value: JsonObject, edits: _Edits) -> None:
    """Leave out settings that name images and videos on this machine."""
    for key, setting in value.items():
        newest = RENAMED.get(key, key)
        if key == MODEL_KEY or newest not in KEYS or KEYS[newest].kind is not PATHS:
            continue
        texts = [setting] if isinstance(setting, str) else setting
        if isinstance(texts, list) and any(
            isinstance(text, str) and text and not Version(text).remote for text in texts
        ):
            edits.removed.append((key,))
            edits.notices.append(f"The setting {key} is not in the published definition: it names a file of yours.")


def _check_components(definition: Definition) -> None:
    """Raise PublishError for components in a folder of this machine."""
    try:
        is_local = is_folder(definition.root / Path(definition.components).expanduser())
    except RuntimeError:
        is_local = False
    if is_local or definition.components.startswith(("/", "~", ".")):
        message = f"{definition.id} uses components from a folder of this machine, which others don't have."
        raise PublishError(message, hint="Upload the folder as a repository in diffusers layout, and name that.")
