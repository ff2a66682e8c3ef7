"""Definitions of files that are made from other models: merged weights, and extracted LoRAs.

The definition is planned before the file is made, so that a name that is taken is reported at once, and written after.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from reeltune.definitions import Catalog, Definition
from reeltune.definitions.copying import copied_model
from reeltune.definitions.writer import create
from reeltune.families.values import Settings
from reeltune.library.adding import (
    InspectedFile,
    definition_id,
    inspect_source,
    listed_location,
    planned_definition,
    unused_path,
)
from reeltune.settings import layer, portable
from reeltune.untrusted import JsonObject, clean_text

_OF_ONE_FILE = ("license", "license_name", "license_link", "sha256", "preload_URLs")


@dataclass(frozen=True)
class Naming:
    """How the user wants the definition to be called. `architecture`: needed where a header fits several."""

    id: str | None = None
    name: str | None = None
    architecture: str | None = None


@dataclass(frozen=True)
class PlannedDefinition:
    """A definition that isn't written yet: its path, its `model` object and its settings."""

    path: Path
    model: JsonObject
    settings: Settings

    def write(self, description: str, sha256: Mapping[str, str]) -> Path:
        """Write it and return its path. `sha256`: of its files, by name.

        Raises DefinitionError if it exists already by now.
        """
        model = {**self.model, "description": clean_text(description), "sha256": dict(sha256)}
        create(self.path, {"model": model, **self.settings})
        return self.path


def plan_merged(
    catalog: Catalog, first: Definition | Path, output: Path, naming: Naming, *, quantized: bool
) -> PlannedDefinition:
    """The definition of merged weights: that of the first model with another file.

    `first`: its definition, or its file. `output`: the file that will be written, `quantized` to int8 or not. Raises
    DefinitionError, AmbiguousArchitecture, CheckpointError.
    """
    url, _ = listed_location(catalog.root, str(output))
    if isinstance(first, Path):
        path, model = _planned_for_file(catalog, first, output, naming)
        settings: Settings = {}
    else:
        path, model, settings = _copied(catalog, first, output, naming)
        model["URLs"] = [url]
    model.pop("auto_quantize", None)
    if not quantized:
        model["auto_quantize"] = True
    return PlannedDefinition(path, model, settings)


def plan_with_lora(catalog: Catalog, base: Definition | Path, output: Path, naming: Naming) -> PlannedDefinition:
    """The definition of a model with a LoRA that is always applied.

    `base`: the definition of the model, or its file. `output`: the LoRA that will be written. Raises as `plan_merged`.
    """
    url, _ = listed_location(catalog.root, str(output))
    if isinstance(base, Path):
        path, model = _planned_for_file(catalog, base, output, naming)
        model["URLs"] = [listed_location(catalog.root, str(base))[0]]
        return PlannedDefinition(path, {**model, "loras": [url], "loras_multipliers": ["1"]}, {})
    path, model, settings = _copied(catalog, base, output, naming)
    model["loras"] = [*model.get("loras", []), url]
    model["loras_multipliers"] = [*model.get("loras_multipliers", []), "1"]
    return PlannedDefinition(path, model, settings)


def _copied(
    catalog: Catalog, definition: Definition, output: Path, naming: Naming
) -> tuple[Path, JsonObject, Settings]:
    """The path of a new definition, and the `model` object and the settings of another one."""
    architecture = definition.architecture.id
    path = unused_path(catalog, definition_id(architecture, naming.id or naming.name or output.stem))
    model = copied_model(catalog, definition)
    model = {key: value for key, value in model.items() if key not in _OF_ONE_FILE}
    model["name"] = naming.name or output.stem
    return path, model, portable(layer(definition.architecture, definition.settings))


def _planned_for_file(catalog: Catalog, source: Path, output: Path, naming: Naming) -> tuple[Path, JsonObject]:
    """As `add` writes it for `output`, whose header will be that of `source`."""
    inspection = inspect_source(catalog, str(source)).inspection
    inspected = InspectedFile(listed_location(catalog.root, str(output))[0], output.name, inspection)
    return planned_definition(
        catalog, inspected, architecture=naming.architecture, id=naming.id, name=naming.name or output.stem
    )
