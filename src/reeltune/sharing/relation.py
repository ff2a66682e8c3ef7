"""How a published model relates to the one it is based on, in the words of the Hub's cards."""

from __future__ import annotations

from collections.abc import Sequence

from reeltune.definitions import Definition
from reeltune.sharing.own_files import LORAS, OwnFile


def base_model(definition: Definition) -> str:
    """The Hub repository of the model that a definition is based on: the one that its components come from."""
    return definition.components


def relation(files: Sequence[OwnFile], others: Sequence[str]) -> str:
    """How the published files relate to the base model: "finetune", "adapter" or "quantized".

    `others`: the URLs of others that the definition lists besides the own files.
    """
    weights = [file for file in files if file.role != LORAS]
    if not weights:
        return "adapter"
    if others and all(file.version.startswith("int8") for file in weights):
        return "quantized"
    return "finetune"


def pipeline_tag(definition: Definition) -> str:
    """The Hub's name of the task."""
    needs_image = any(item.required and item.kind in ("image", "images") for item in definition.architecture.inputs)
    return "image-to-video" if needs_image else "text-to-video"
