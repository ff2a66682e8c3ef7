"""Definitions before anything they refer to is looked up: the files of one id, in layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reeltune.definitions.schema import DefinitionFile, meant_by
from reeltune.definitions.section import ModelSection
from reeltune.errors import DefinitionInvalid, Problem


@dataclass(frozen=True)
class Entry:
    """All files of one id, built-in ones first: a later file overrides the earlier ones key by key.

    `model`, `settings`: as they come to; `layers`: the `model` section of each file.
    """

    id: str
    kind: str  # "base" | "finetune"
    model: ModelSection
    settings: Mapping[str, Any]
    layers: tuple[ModelSection, ...]
    files: tuple[Path, ...]
    notices: tuple[Problem, ...]

    @property
    def top(self) -> int:
        """The index of the last layer."""
        return len(self.layers) - 1

    def value(self, key: str, layer: int) -> tuple[Any, int]:
        """The value of a key of the `model` section as of a layer, and the layer that sets it; None and -1 where none
        does.
        """
        for index in range(layer, -1, -1):
            found = getattr(self.layers[index], key, None)
            if found is not None:
                return found, index
        return None, -1

    def with_file(self, file: DefinitionFile) -> Entry:
        """The entry with one more file on top."""
        given = file.model.model_dump(exclude_unset=True, exclude_none=True)
        return Entry(
            id=self.id,
            kind=self.kind,
            model=self.model.model_copy(update=given),
            settings={**self.settings, **file.settings},
            layers=(*self.layers, file.model),
            files=(*self.files, file.path),
            notices=(*self.notices, *file.notices),
        )


def first_entry(file: DefinitionFile, kind: str) -> Entry:
    """The entry of a file that overrides nothing. Raises DefinitionInvalid where it doesn't say what the model is."""
    missing = [key for key in ("architecture", "URLs") if not getattr(file.model, key)]
    if missing:
        raise DefinitionInvalid([_missing(file, key) for key in missing])
    return Entry(file.id, kind, file.model, file.settings, (file.model,), (file.path,), file.notices)


def _missing(file: DefinitionFile, key: str) -> Problem:
    """Why a key that every new definition needs isn't there, and what to write."""
    if getattr(file.model, key) is not None:
        message, fix = f"`{key}` is empty.", _example(key)
    else:
        message = f"`{key}` is missing, and no built-in definition is called {file.id!r}."
        fix = f"Add {_example(key)} to the `model` object."
        if meant := meant_by(file.model, key):
            fix = f"Rename {meant!r} to {key!r}."
        elif any(row.where == key for row in file.notices):
            fix = f"Move {key!r} into the `model` object."
    return Problem(str(file.path), f"model.{key}", message, fix)


def _example(key: str) -> str:
    return '"architecture": "t2v"' if key == "architecture" else '"URLs": ["https://…"]'
