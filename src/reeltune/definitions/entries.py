"""Definitions before their references are resolved: the files of one id in layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reeltune.definitions.schema import DefinitionFile, misspelled_key
from reeltune.definitions.section import ModelSection
from reeltune.errors import DefinitionInvalid, Problem


@dataclass(frozen=True)
class Entry:
    """All files of one id, built-in ones first; a later file overrides earlier ones key by key.

    `model`, `settings`: merged from all files. `layers`: the `model` section of each file.
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
        """The value of a key of the `model` section up to a layer, and the index of the layer that sets it.

        None and -1 if no layer sets it.
        """
        for index in range(layer, -1, -1):
            value = getattr(self.layers[index], key, None)
            if value is not None:
                return value, index
        return None, -1

    def with_file(self, file: DefinitionFile) -> Entry:
        """The entry with one more file, which overrides the others."""
        overrides = file.model.model_dump(exclude_unset=True, exclude_none=True)
        return Entry(
            id=self.id,
            kind=self.kind,
            model=self.model.model_copy(update=overrides),
            settings={**self.settings, **file.settings},
            layers=(*self.layers, file.model),
            files=(*self.files, file.path),
            notices=(*self.notices, *file.notices),
        )


def new_entry(file: DefinitionFile, kind: str) -> Entry:
    """The entry of a file that overrides none. Raises DefinitionInvalid if `architecture` or `URLs` is missing."""
    missing = [key for key in ("architecture", "URLs") if not getattr(file.model, key)]
    if missing:
        raise DefinitionInvalid([_missing(file, key) for key in missing])
    return Entry(file.id, kind, file.model, file.settings, (file.model,), (file.path,), file.notices)


def _missing(file: DefinitionFile, key: str) -> Problem:
    """The problem of a missing required key, with its fix."""
    where = f"model.{key}"
    if getattr(file.model, key) is not None:
        return Problem(str(file.path), where, f"`{key}` is empty.", f"Use {_example(key)}, for example.")
    message = f"`{key}` is missing, and there is no built-in definition {file.id!r} to override."
    misspelled = misspelled_key(file.model, key)
    if misspelled:
        fix = f"Rename {misspelled!r} to {key!r}."
    elif any(problem.where == key for problem in file.notices):
        fix = f"Move {key!r} into the `model` object."
    else:
        fix = f"Add {_example(key)} to the `model` object."
    return Problem(str(file.path), where, message, fix)


def _example(key: str) -> str:
    return '"architecture": "t2v"' if key == "architecture" else '"URLs": ["https://…"]'
