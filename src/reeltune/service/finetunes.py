"""Finetune definitions made, changed and deleted through the page: validated before they are written, losslessly."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from reeltune.definitions import Definition
from reeltune.definitions.jsontext import decode, parse_object
from reeltune.definitions.schema import MODEL_KEY, build_definition, parse_definition
from reeltune.definitions.writer import create, edit
from reeltune.errors import DefinitionError, SettingsError
from reeltune.files import read_bytes, write_atomic
from reeltune.jobs.confine import Confinement
from reeltune.library.adding import definition_id
from reeltune.service.studio import Studio
from reeltune.untrusted import clean_text

_MOST_BYTES = 1_000_000
_PATHS = ("URLs2", "modules", "loras", "components")  # keys of a model that name files, besides all that end in URLs
_INSIDE = "Put it into ckpts/, or give a URL."


@dataclass(frozen=True)
class Wanted:
    """What the form says: texts as they stand there, a URL or path a line. Empty `urls`: the base's own weights."""

    id: str
    name: str
    description: str
    urls: str
    urls2: str = ""
    modules: str = ""
    auto_quantize: bool = True


def lines(text: str) -> list[str]:
    """The lines of a text box that say something."""
    return [row.strip() for row in (text or "").splitlines() if row.strip()]


def new_id(base: Definition, wanted: Wanted) -> str:
    """The id a finetune gets: the base's, then its own."""
    return definition_id(_root_id(base), wanted.id or wanted.name)


def _root_id(base: Definition) -> str:
    """What a finetune of it names as its architecture: the base model, or what a finetune derives from."""
    return base.id if base.kind == "base" else base.architecture.id


def write_new(studio: Studio, base: Definition, wanted: Wanted, settings: Mapping[str, Any]) -> str:
    """Write a finetune of `base`; returns its id. Raises DefinitionError."""
    if not wanted.name.strip():
        raise DefinitionError("A finetune needs a name.", hint="Write one.")
    id = new_id(base, wanted)
    if id in studio.catalog():
        raise DefinitionError(f"There is a definition {id} already.", hint="Choose another id.")
    model: dict[str, Any] = {"name": wanted.name.strip(), "architecture": _root_id(base)}
    model["description"] = wanted.description.strip()
    model |= _weights(studio, base, wanted)
    if base.components != base.architecture.components_repo:
        model["components"] = base.components
    path = studio.root / "finetunes" / f"{id}.json"
    value = {"model": model, **{key: row for key, row in settings.items() if row is not None}}
    check_paths(studio, {key: row for key, row in value.items() if key != MODEL_KEY})
    studio.catalog().with_file(build_definition(path, value, []))[id]  # refuses what can't be resolved
    create(path, value)
    return id


def _weights(studio: Studio, base: Definition, wanted: Wanted) -> dict[str, Any]:
    """The model's keys that say where weights are."""
    urls = [allowed(studio, row) for row in lines(wanted.urls)]
    found: dict[str, Any] = {"URLs": urls or base.id}
    second = [allowed(studio, row) for row in lines(wanted.urls2)]
    if second or "transformer_2" in base.slots:
        found["URLs2"] = second or base.id
    if modules := lines(wanted.modules):
        found["modules"] = [row if row in studio.catalog() else [allowed(studio, row)] for row in modules]
    elif any(slot.startswith("modules") for slot in base.slots):
        found["modules"] = [base.id]
    if urls and wanted.auto_quantize:
        found["auto_quantize"] = True
    return found


def allowed(studio: Studio, source: str) -> str:
    """A URL, or a path that whoever uses the page may name. Raises DefinitionError."""
    if studio.local or _remote(source) or Confinement.of(studio.root, studio.preferences()).allows(source):
        return source
    raise DefinitionError(f"{source} lies outside this folder and the model folders.", hint=_INSIDE)


def check_paths(studio: Studio, value: Mapping[str, Any]) -> None:
    """Raise DefinitionError where a definition's text names a file that whoever uses the page may not name; the
    message has the key. `value`: the parsed file.
    """
    if studio.local:
        return
    confinement = Confinement.of(studio.root, studio.preferences())
    try:
        confinement.check_settings({key: row for key, row in value.items() if key != MODEL_KEY})
    except SettingsError as error:
        raise DefinitionError(error.message, hint=error.hint) from error
    section = value.get(MODEL_KEY)
    for key, row in section.items() if isinstance(section, Mapping) else ():
        if key not in _PATHS and not key.lower().endswith("urls"):
            continue
        for source in _texts(row):
            if not (_remote(source) or source in studio.catalog() or confinement.allows(source)):
                message = f"{MODEL_KEY}.{key}: {source} lies outside this folder and the model folders."
                raise DefinitionError(message, hint=_INSIDE)


def _remote(source: str) -> bool:
    return source.lower().startswith(("http://", "https://"))


def _texts(value: Any) -> list[str]:
    """The texts of a value, those of lists in lists included."""
    if isinstance(value, str):
        return [value]
    return [text for item in value for text in _texts(item)] if isinstance(value, list) else []


# --- the files that are there -----------------------------------------------------------------------------------


def own_files(studio: Studio) -> dict[str, Path]:
    """The user's own files by id, broken ones included."""
    folder = studio.root / "finetunes"
    catalog = studio.catalog()
    found = {id: path for id in catalog for path in catalog.files_of(id) if path.parent == folder}
    found |= {path.stem: path for path in catalog.broken if path.parent == folder}
    return {id: path for id, path in sorted(found.items()) if clean_text(id) == id}  # a page is UTF-8


def own_file(studio: Studio, id: str) -> Path:
    """One of them. Raises DefinitionError."""
    path = own_files(studio).get(id)
    if path is None:
        raise DefinitionError(f"{id or 'That'} is no finetune of yours.", hint="Built-in definitions aren't edited.")
    return path


def read(studio: Studio, id: str) -> tuple[str, dict[str, Any]]:
    """The text of a file and its `model` section, as far as it can be read."""
    raw = own_file(studio, id).read_bytes()
    text = decode(raw, id)
    try:
        section = parse_object(text, id)[0].get(MODEL_KEY)
    except DefinitionError:
        section = None
    return text, section if isinstance(section, dict) else {}


def change(studio: Studio, id: str, values: Mapping[str, Any]) -> list[str]:
    """Set keys of a file's `model` section that differ, everything else byte for byte as it was; says which."""
    path, section = own_file(studio, id), read(studio, id)[1]
    changed = {key: value for key, value in values.items() if section.get(key, "") != value}

    def write() -> None:
        for key, value in changed.items():
            edit(path, (MODEL_KEY, key), value)

    _or_as_before(studio, path, write)
    return list(changed)


def save_text(studio: Studio, id: str, text: str) -> None:
    """Replace a file's text. Raises DefinitionError, and leaves it as it was, where the new one can't be used."""
    path = own_file(studio, id)
    if len(text) > _MOST_BYTES:
        raise DefinitionError(f"The text has {len(text):,} characters; a definition has a few.")
    parse_definition(path, text)
    check_paths(studio, parse_object(text, path.name)[0])
    _or_as_before(studio, path, lambda: write_atomic(path, text.encode("utf-8")))


def _or_as_before(studio: Studio, path: Path, write: Any) -> None:
    """Write, and put the old text back where the definition then can't be resolved."""
    before = path.read_bytes()
    try:
        write()
        studio.reload()
        studio.catalog()[path.stem]
    except DefinitionError:
        write_atomic(path, before)
        studio.reload()
        raise


def import_file(studio: Studio, path: Path) -> str:
    """Take in a definition file as it is; returns its id. Raises DefinitionError where it can't be used."""
    id = path.stem
    target = studio.root / "finetunes" / f"{id}.json"
    if path.stat().st_size > _MOST_BYTES:
        raise DefinitionError(f"{path.name} is too large for a definition.")
    if target.exists():
        raise DefinitionError(f"There is a file {target.name} already.", hint="Delete it first, or rename the new one.")
    raw = path.read_bytes()
    text = decode(raw, path.name)
    file = parse_definition(target, text)
    check_paths(studio, parse_object(text, path.name)[0])
    studio.catalog().with_file(file)[id]
    write_atomic(target, raw)
    return id


def delete(studio: Studio, id: str) -> None:
    """Delete a definition file; its weights stay."""
    own_file(studio, id).unlink(missing_ok=True)


# --- the files that came with the program -----------------------------------------------------------------------


def copy(studio: Studio, id: str) -> str:
    """Copy a prebuilt finetune into the user's own, everything in it kept; returns the copy's id.

    Raises DefinitionError where it is no prebuilt one.
    """
    if id not in prebuilt(studio):
        raise DefinitionError(f"{id or 'That'} is no prebuilt finetune.", hint="Choose one of the list.")
    source = studio.catalog()[id].files[0]
    new = next(name for name in _names(f"{id}_copy") if not _taken(studio, name))
    path = studio.root / "finetunes" / f"{new}.json"
    write_atomic(path, read_bytes(source, _MOST_BYTES))
    edit(path, (MODEL_KEY, "name"), f"{studio.catalog()[id].name} (copy)")
    return new


def prebuilt(studio: Studio) -> dict[str, str]:
    """The names of the finetunes that came with the program, by id."""
    folder = studio.root / "finetunes"
    catalog = studio.catalog()
    own = {id for id in catalog for path in catalog.files_of(id)[:1] if path.is_relative_to(folder)}
    return {row.id: row.name for row in catalog.summaries() if row.kind == "finetune" and row.id not in own}


def _names(stem: str) -> Iterator[str]:
    yield stem
    yield from (f"{stem}_{number}" for number in count(2))


def _taken(studio: Studio, id: str) -> bool:
    return id in studio.catalog() or (studio.root / "finetunes" / f"{id}.json").exists()
