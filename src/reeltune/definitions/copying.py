"""Copies of definitions as complete files, for users to start from."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from reeltune.definitions.catalog import Catalog
from reeltune.definitions.ltx_config import scales_keys
from reeltune.definitions.model import Definition, Version
from reeltune.definitions.slots import TRANSFORMER, TRANSFORMER_2
from reeltune.definitions.writer import create
from reeltune.errors import DefinitionError
from reeltune.settings import layer, portable

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,118}[A-Za-z0-9_-]|[A-Za-z0-9]")
_MODEL = "model"


def copy_definition(catalog: Catalog, id: str, new: str, name: str = "") -> Path:
    """Write `finetunes/<new>.json`, a complete definition equal to `id`; returns its path.

    References are replaced by the lists they refer to, and all settings are written, including defaults. Raises
    DefinitionError if `new` is not a valid id or exists already, or if `id` can't be resolved.
    """
    if not is_valid_id(new):
        message = f"Invalid id {new!r} for a definition."
        hint = "Use letters, digits, underscores, dots and hyphens; the id is also the name of the file."
        raise DefinitionError(message, hint=hint)
    if new in catalog or any(path.stem.lower() == new.lower() for path in _own_files(catalog)):
        raise DefinitionError(f"The definition {new} exists already.", hint="Choose another id.")
    definition = catalog[id]
    model = copied_model(catalog, definition) | {"name": name or f"{definition.name} (copy)"}
    settings = portable(layer(definition.architecture, definition.settings))
    path = catalog.root / "finetunes" / f"{new}.json"
    create(path, {_MODEL: model, **settings})
    return path


def is_valid_id(id: str) -> bool:
    """Whether a text can be the id of a new definition, and so the name of its file."""
    return _ID.fullmatch(id) is not None


def _own_files(catalog: Catalog) -> list[Path]:
    """All definition files of the user, including broken ones."""
    files = [path for id in catalog for path in catalog.files_of(id)]
    return [path for path in (*files, *catalog.broken) if path.parent == catalog.root / "finetunes"]


def copied_model(catalog: Catalog, definition: Definition) -> dict[str, Any]:
    """The `model` object of a copy, without references."""
    section = catalog.section(definition.id)
    model: dict[str, Any] = {"name": "", "architecture": definition.architecture.id}
    model["description"] = definition.description
    model["URLs"] = _urls(definition.slots[TRANSFORMER])
    if TRANSFORMER_2 in definition.slots:
        model["URLs2"] = _urls(definition.slots[TRANSFORMER_2])
    scales = scales_keys(definition.architecture)  # they may be those of the base model, or of the files
    modules = [_urls(versions) for slot, versions in definition.slots.items() if slot.is_module]
    lists = {
        "modules": modules,
        "preload_URLs": _urls(definition.preload),
        "loras": [url for url in _urls(definition.loras) if url not in scales.values()],
        **{slot.key: _urls(versions) for slot, versions in definition.component_versions.items()},
    }
    model |= {key: urls for key, urls in lists.items() if urls}
    if definition.lora_multipliers:
        model["loras_multipliers"] = definition.lora_multipliers.split()
    if definition.components != definition.architecture.components_repo:
        model["components"] = definition.components
    model |= scales
    if definition.text_encoder_folder:
        model["text_encoder_folder"] = definition.text_encoder_folder
    if section.sha256:
        model["sha256"] = dict(section.sha256)
    others = section.model_dump(exclude_none=True, exclude_unset=True)
    return model | {key: value for key, value in others.items() if key not in model and key not in lists}


def _urls(versions: tuple[Version, ...]) -> list[str]:
    return [version.url for version in versions]
