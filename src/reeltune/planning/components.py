"""The components of a plan: where each of them is on disk, or what has to be downloaded."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from reeltune.checkpoints.formats import format_of
from reeltune.checkpoints.identify import Identity
from reeltune.definitions import Definition
from reeltune.definitions.slots import TEXT_ENCODER, TRANSFORMER
from reeltune.dtypes import Quantization
from reeltune.errors import ChoiceError
from reeltune.families import Component
from reeltune.families.components import KINDS
from reeltune.library.component_folders import component_files, has_tokenizer
from reeltune.library.component_search import ComponentOnDisk
from reeltune.library.inventory import PACKAGE_FILES, FileOnDisk, Inventory
from reeltune.net import hub_endpoint
from reeltune.planning.choose import choose_component
from reeltune.planning.item import Item
from reeltune.planning.selection import Choice, Facts, Selection
from reeltune.preferences import Preferences

SMALLEST_QUANTIZED = 1_000_000_000  # bytes of a text encoder; int8 saves little memory with smaller ones
_INT8_SHARE = 0.55  # of the bytes of a 16-bit text encoder: its embeddings stay in 16 bits


def component_items(
    definition: Definition,
    preferences: Preferences,
    selection: Selection,
    inventory: Inventory,
    notices: list[str],
    counted: set[Path],
) -> Iterator[Item]:
    """The components of a definition, except those that it lists versions of. Adds notices about files.

    `counted`: files whose bytes other items have, since a file may contain several models. Adds the components' files.
    """
    transformer = selection.choices[TRANSFORMER]
    for component in definition.architecture.parts:
        if component.name in selection.components:
            continue
        place, choice = _place(component, definition, preferences, transformer, inventory, notices)
        yield _item(component, definition, inventory, place, choice, counted)
    if definition.text_encoder_folder and not _folder_is_used(definition, inventory):
        notices.append(
            f"text_encoder_folder: {definition.text_encoder_folder} has no tokenizer or text encoder below ckpts/, the "
            "model folders and the root: those of the architecture are used."
        )
    notices += [notice for notice in inventory.components.notices if notice not in notices]


def _place(
    component: Component,
    definition: Definition,
    preferences: Preferences,
    transformer: Choice,
    inventory: Inventory,
    notices: list[str],
) -> tuple[ComponentOnDisk | None, Choice | None]:
    """Where a component is, and for a model the choice of this place; None if it has to be downloaded."""
    named = _in_text_encoder_folder(component, definition, inventory)
    own = inventory.component(definition.components, component.name)
    if named is not None:
        places = [named]
    elif own and component.repository:
        places = [ComponentOnDisk(own)]
    elif not component.repository and definition.components != definition.architecture.components_repo:
        places = [ComponentOnDisk(own)] if own else []
    else:
        places, unusable = inventory.components.candidates(component, repository_of(component, definition))
        notices += [file.notice for file in unusable if file.notice not in notices]
    if not component.is_model:
        return (places[0], None) if places else (None, None)
    facts = [Facts(_on_disk(place)) for place in places]
    try:
        choice, told = choose_component(component, facts, definition.architecture, preferences, transformer)
    except ChoiceError as error:
        notices += [f"{component.name}: {error.message}"] if places else []
        return None, None
    place = next(place for place, known in zip(places, facts, strict=True) if known is choice.facts)
    notices += [notice for notice in told if notice not in notices]
    if not place.published:
        label = KINDS[component.kind].label
        notices.append(
            f"{component.name}: {place.path} is used, because its header is that of the {label}. Its name isn't one "
            "of the published files: list it in the definition, or move it away, if it is another model."
        )
    return place, choice


def repository_of(component: Component, definition: Definition) -> str:
    """The repository that a component is downloaded from."""
    return component.repository or definition.components


def _on_disk(place: ComponentOnDisk) -> FileOnDisk:
    """A place as the file that a choice is made of. A folder in diffusers layout has 16-bit weights."""
    if place.files:
        return replace(place.files[0], path=place.path)
    return FileOnDisk(place.path, 0, None)


def _folder_is_used(definition: Definition, inventory: Inventory) -> bool:
    parts = definition.architecture.parts
    return any(_in_text_encoder_folder(component, definition, inventory) for component in parts)


def _in_text_encoder_folder(
    component: Component, definition: Definition, inventory: Inventory
) -> ComponentOnDisk | None:
    """The tokenizer, or a text encoder in transformers' layout, in the folder that the definition names."""
    if not definition.text_encoder_folder or component.name not in ("tokenizer", TEXT_ENCODER):
        return None
    name = definition.text_encoder_folder.replace("\\", "/")
    for top in (*inventory.folders, definition.root):
        folder = top / name
        if component.is_model:
            files = component_files(folder, component) if folder.is_dir() else []
            if any(file.name == "config.json" for file in files) and len(files) > 1:
                return ComponentOnDisk(folder)
        elif has_tokenizer(folder):
            return ComponentOnDisk(folder)
    return None


def _item(
    component: Component,
    definition: Definition,
    inventory: Inventory,
    place: ComponentOnDisk | None,
    choice: Choice | None,
    counted: set[Path],
) -> Item:
    repository = repository_of(component, definition)
    url = f"{hub_endpoint()}/{repository}/tree/main/{component.name}"
    item = Item(
        subject=component.name,
        url=url,
        path=inventory.component_folders(repository)[0] / component.name,
        present=False,
        bytes=inventory.index.size_of_url(url),
        sha256_by_name=definition.sha256,
        repository=repository,
        patterns=component.files,
        component=True,
    )
    if place is None:
        return item
    files: set[Path] = set()
    for path in (place.path, *place.more):
        files |= set(
            path.rglob("*") if path.is_dir() and _is_own(path, inventory) else component_files(path, component)
        )
    files -= counted
    counted |= files
    item = replace(
        item,
        path=place.path,
        more=place.more,
        present=True,
        bytes=size_on_disk(files),
        in_place=is_in_place(place.path, inventory),
    )
    return item if choice is None else as_component(item, component, choice, place.files)


def _is_own(path: Path, inventory: Inventory) -> bool:
    """Whether a folder is a component's in a repository, which contains nothing else."""
    return path.is_dir() and path.is_relative_to(inventory.downloads) and "--" in path.parent.name


def as_component(item: Item, component: Component, choice: Choice, files: Iterable[FileOnDisk] = ()) -> Item:
    """An item as the component that was chosen: whether it is quantized while loading, and the memory that it takes."""
    known = {file.path: file for file in files if file.identity is not None}.values()  # parts may be in one file
    identities = [file.identity for file in known if file.identity is not None]
    if not identities and choice.facts.identity is not None:
        identities = [choice.facts.identity]
    loaded = sum(_loaded_bytes(identity, component) for identity in identities)
    size = sum(file.bytes for file in known) or item.bytes or 0  # the item's leaves out files counted before
    if any(identity.quantization is not Quantization.NONE for identity in identities):
        size = loaded  # in 16 bits
    elif loaded:
        size = size * loaded // sum(identity.memory_bytes for identity in identities)
    stays_int8 = format_of(choice.quantization).stays_quantized
    quantize = choice.quantize_on_load and item.subject == TEXT_ENCODER and size >= SMALLEST_QUANTIZED
    memory = loaded if stays_int8 and loaded else size
    return replace(
        item, component=True, quantize=quantize, memory=round(size * _INT8_SHARE) if quantize else memory or None
    )


def _loaded_bytes(identity: Identity, component: Component) -> int:
    """The bytes of a file's weights, in memory, that are the component's; a file may contain other models too."""
    sizes = {match.kind: match.memory_bytes for match in identity.components}
    parts = sum(sizes.get(part.kind, 0) for part in component.assembled)
    return sizes.get(component.kind, 0) or parts or identity.memory_bytes


def is_in_place(path: Path, inventory: Inventory) -> bool:
    """Whether a file or folder was put there by the user or another program."""
    if path.is_relative_to(PACKAGE_FILES):
        return False
    if not path.is_relative_to(inventory.root / "ckpts"):
        return True
    if path.is_dir():
        return not any(inventory.index.sources(file) for file in path.glob("*"))
    return not inventory.index.sources(path)


def size_on_disk(paths: Iterable[Path]) -> int:
    """The bytes of the files among `paths`; files that can't be read count as 0."""
    total = 0
    for path in paths:
        with contextlib.suppress(OSError):
            if path.is_file():
                total += path.stat().st_size
    return total
