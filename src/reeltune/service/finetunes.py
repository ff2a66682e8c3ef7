"""The user's finetunes: created, changed, imported, copied and deleted; every change is checked before it is written.

new = NewFinetune(id="", name="Water colour", description="", urls="https://example.org/water_bf16.safetensors")
id = create_finetune(workspace, workspace.catalog()["t2v"], new, settings)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from reeltune.definitions import Definition
from reeltune.definitions.copying import copy_definition
from reeltune.definitions.jsontext import decode, parse_object
from reeltune.definitions.schema import MODEL_KEY, build_definition, parse_definition
from reeltune.definitions.writer import create, edit
from reeltune.errors import DefinitionError, SettingsError
from reeltune.families.values import Settings
from reeltune.files import write_atomic
from reeltune.jobs.confine import Confinement
from reeltune.library.adding import definition_id
from reeltune.service.workspace import Workspace
from reeltune.untrusted import JsonObject, clean_text

_MAX_BYTES = 1_000_000
_FILE_KEYS = ("URLs2", "modules", "loras", "components")  # keys that name files, besides those that end in URLs
_OUTSIDE_HINT = "Move it to ckpts/, or enter a URL."


@dataclass(frozen=True)
class NewFinetune:
    """A finetune to create, as it was entered. The last four fields hold one URL, path or id per line.

    Without `id` the name is used, without `urls` the weights of the base model.
    """

    id: str
    name: str
    description: str
    urls: str
    urls2: str = ""
    modules: str = ""
    auto_quantize: bool = True


def nonempty_lines(text: str) -> list[str]:
    """The lines of a text without the empty ones."""
    return [line.strip() for line in (text or "").splitlines() if line.strip()]


def create_finetune(workspace: Workspace, base: Definition, new: NewFinetune, settings: Settings) -> str:
    """Write a finetune of `base` with its settings; returns its id. Raises DefinitionError."""
    if not new.name.strip():
        raise DefinitionError("A finetune needs a name.", hint="Enter a name.")
    id = definition_id(_base_model_id(base), new.id or new.name)
    if id in workspace.catalog():
        raise DefinitionError(f"There is a definition {id} already.", hint="Choose another id.")
    model: JsonObject = {"name": new.name.strip(), "architecture": _base_model_id(base)}
    model["description"] = new.description.strip()
    model |= _weights(workspace, base, new)
    if base.components != base.architecture.components_repo:
        model["components"] = base.components
    stored_settings = {key: value for key, value in settings.items() if value is not None}
    content = {MODEL_KEY: model, **stored_settings}
    path = workspace.root / "finetunes" / f"{id}.json"
    check_paths(workspace, stored_settings)
    workspace.catalog().with_file(build_definition(path, content, []))[id]  # raises if it can't be resolved
    create(path, content)
    return id


def _base_model_id(base: Definition) -> str:
    """The id of the base model itself, or of the architecture that a finetune derives from."""
    return base.id if base.kind == "base" else base.architecture.id


def _weights(workspace: Workspace, base: Definition, new: NewFinetune) -> JsonObject:
    """The keys of the model object that name weights."""
    urls = [allowed_source(workspace, source) for source in nonempty_lines(new.urls)]
    weights: JsonObject = {"URLs": urls or base.id}
    urls2 = [allowed_source(workspace, source) for source in nonempty_lines(new.urls2)]
    if urls2 or "transformer_2" in base.slots:
        weights["URLs2"] = urls2 or base.id
    modules = nonempty_lines(new.modules)
    if modules:
        weights["modules"] = [_module(workspace, source) for source in modules]
    elif any(slot.startswith("modules") for slot in base.slots):
        weights["modules"] = [base.id]
    if urls and new.auto_quantize:
        weights["auto_quantize"] = True
    return weights


def _module(workspace: Workspace, source: str) -> str | list[str]:
    """The id of a definition whose module is used, or a list of versions."""
    if source in workspace.catalog():
        return source
    return [allowed_source(workspace, source)]


# --- files that a definition may name ---------------------------------------------------------------------------


def allowed_source(workspace: Workspace, source: str) -> str:
    """A URL or path, unchanged. Raises DefinitionError for a path that users of this workspace may not use."""
    if workspace.local or _is_url(source):
        return source
    if Confinement.of(workspace.root, workspace.preferences()).allows(source):
        return source
    raise DefinitionError(f"{source} is outside this folder and the model folders.", hint=_OUTSIDE_HINT)


def check_paths(workspace: Workspace, content: JsonObject) -> None:
    """Raise DefinitionError if a parsed definition names a file that users of this workspace may not use."""
    if workspace.local:
        return
    confinement = Confinement.of(workspace.root, workspace.preferences())
    try:
        confinement.check_settings({key: value for key, value in content.items() if key != MODEL_KEY})
    except SettingsError as error:
        raise DefinitionError(error.message, hint=error.hint) from error
    model = content.get(MODEL_KEY)
    if not isinstance(model, Mapping):
        return
    for key, value in model.items():
        if key not in _FILE_KEYS and not key.lower().endswith("urls"):
            continue
        allows = confinement.allows_lora if key == "loras" else confinement.allows
        for source in _texts_in(value):
            if not (_is_url(source) or source in workspace.catalog() or allows(source)):
                message = f"{MODEL_KEY}.{key}: {source} is outside this folder and the model folders."
                raise DefinitionError(message, hint=_OUTSIDE_HINT)


def _is_url(source: str) -> bool:
    return source.lower().startswith(("http://", "https://"))


def _texts_in(value: Any) -> list[str]:
    """The texts in a value and in lists at any depth."""
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list):
        return []
    return [text for item in value for text in _texts_in(item)]


# --- the user's own files ---------------------------------------------------------------------------------------


def own_files(workspace: Workspace) -> dict[str, Path]:
    """The user's definition files by id, including those that can't be read."""
    folder = workspace.root / "finetunes"
    catalog = workspace.catalog()
    files = {id: path for id in catalog for path in catalog.files_of(id) if path.parent == folder}
    files |= {path.stem: path for path in catalog.broken if path.parent == folder}
    return {id: path for id, path in sorted(files.items()) if clean_text(id) == id}  # others can't be displayed


def own_file(workspace: Workspace, id: str) -> Path:
    """The user's definition file with this id. Raises DefinitionError."""
    path = own_files(workspace).get(id)
    if path is None:
        message = f"{id} is not one of your finetunes." if id else "Choose a finetune first."
        raise DefinitionError(message, hint="Built-in definitions can't be changed; copy them instead." if id else "")
    return path


def read_finetune(workspace: Workspace, id: str) -> tuple[str, JsonObject]:
    """The text of a definition file and its model object, which is empty if it can't be parsed."""
    text = decode(own_file(workspace, id).read_bytes(), id)
    try:
        model = parse_object(text, id)[0].get(MODEL_KEY)
    except DefinitionError:
        model = None
    return text, model if isinstance(model, dict) else {}


def change_finetune(workspace: Workspace, id: str, values: JsonObject) -> list[str]:
    """Set keys of a file's model object, leaving every other character as it is; returns the keys that changed."""
    path = own_file(workspace, id)
    _, model = read_finetune(workspace, id)
    changed = {key: value for key, value in values.items() if model.get(key, "") != value}

    def write() -> None:
        for key, value in changed.items():
            edit(path, (MODEL_KEY, key), value)

    _write_or_restore(workspace, path, write)
    return list(changed)


def save_finetune_text(workspace: Workspace, id: str, text: str) -> None:
    """Replace the text of a definition file. An invalid text raises DefinitionError and changes nothing."""
    path = own_file(workspace, id)
    if len(text) > _MAX_BYTES:
        raise DefinitionError(f"The text has {len(text):,} characters; at most {_MAX_BYTES:,} are allowed.")
    parse_definition(path, text)
    check_paths(workspace, parse_object(text, path.name)[0])
    _write_or_restore(workspace, path, lambda: write_atomic(path, text.encode("utf-8")))


def _write_or_restore(workspace: Workspace, path: Path, write: Callable[[], None]) -> None:
    """Write a definition file, and restore its old content if it can't be resolved afterwards."""
    old_content = path.read_bytes()
    try:
        write()
        workspace.reload()
        workspace.catalog()[path.stem]
    except DefinitionError:
        write_atomic(path, old_content)
        workspace.reload()
        raise


def import_finetune(workspace: Workspace, path: Path) -> str:
    """Add a definition file without changes; returns its id. Raises DefinitionError if it is invalid."""
    id = path.stem
    target = workspace.root / "finetunes" / f"{id}.json"
    if path.stat().st_size > _MAX_BYTES:
        raise DefinitionError(f"{path.name} is too large for a definition.")
    if target.exists():
        message = f"There is a file {target.name} already."
        raise DefinitionError(message, hint="Delete that file first, or rename the new one.")
    content = path.read_bytes()
    text = decode(content, path.name)
    definition_file = parse_definition(target, text)
    check_paths(workspace, parse_object(text, path.name)[0])
    workspace.catalog().with_file(definition_file)[id]  # raises if it can't be resolved
    write_atomic(target, content)
    return id


def delete_finetune(workspace: Workspace, id: str) -> None:
    """Delete a definition file but not its weights. Raises DefinitionError."""
    own_file(workspace, id).unlink(missing_ok=True)


# --- prebuilt finetunes -----------------------------------------------------------------------------------------


def prebuilt_finetunes(workspace: Workspace) -> dict[str, str]:
    """The names of the finetunes that are part of the package, by id."""
    folder = workspace.root / "finetunes"
    catalog = workspace.catalog()
    own_ids = {id for id in catalog for path in catalog.files_of(id)[:1] if path.is_relative_to(folder)}
    summaries = [summary for summary in catalog.summaries() if summary.kind == "finetune"]
    return {summary.id: summary.name for summary in summaries if summary.id not in own_ids}


def copy_prebuilt(workspace: Workspace, id: str) -> str:
    """Copy a prebuilt finetune as one of the user's own; returns the id of the copy. Raises DefinitionError."""
    if id not in prebuilt_finetunes(workspace):
        message = f"{id} is not a prebuilt finetune." if id else "Choose a prebuilt finetune first."
        raise DefinitionError(message)
    copy_id = _free_id(workspace, f"{id}_copy")
    copy_definition(workspace.catalog(), id, copy_id)
    return copy_id


def _free_id(workspace: Workspace, id: str) -> str:
    """The id, with a number appended if it is taken."""
    candidates = (id if number == 1 else f"{id}_{number}" for number in count(1))
    folder = workspace.root / "finetunes"
    return next(
        candidate
        for candidate in candidates
        if candidate not in workspace.catalog() and not (folder / f"{candidate}.json").exists()
    )
