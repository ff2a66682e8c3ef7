"""Models built from headers: the config that shapes tell, and the class on `meta`, without memory."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import diffusers
from accelerate import init_empty_weights
from torch import nn

from reeltune._quiet import importing
from reeltune.checkpoints.identify import original_shapes
from reeltune.checkpoints.metadata import config_if_any
from reeltune.checkpoints.source import WeightSource
from reeltune.errors import CheckpointError
from reeltune.families import Family
from reeltune.families.base import Config


def transformer_class(name: str) -> Any:
    """diffusers' class of that name, imported on first use."""
    with importing():
        return getattr(diffusers, name)


def model_config(family: Family, sources: Sequence[WeightSource], config: Config) -> Config:
    """The config that all files together tell; `config` holds where they are silent. Raises CheckpointError."""
    shapes: dict[str, tuple[int, ...]] = {}
    stored = dict[str, Any]()
    for source in sources:
        shapes |= original_shapes(source.header, source.names, source.format)
        empty = next((name for name, shape in shapes.items() if 0 in shape), "")
        if empty:
            message = f"{source.header.file}: {empty} is empty, of shape {list(shapes[empty])}."
            raise CheckpointError(message, hint="It is damaged: download it again.")
        stored |= config_if_any(source.header.metadata)
    try:
        return {**config, **family.derive_config(shapes, stored)}
    except (KeyError, ValueError, IndexError, ZeroDivisionError) as error:
        files = " and ".join(str(source.header.file) for source in sources)
        message = f"{files}: tensors are missing that determine the model's size ({error})."
        raise CheckpointError(message, hint="Download it again.") from error


def empty_model(family: Family, config: Config) -> nn.Module:
    """The family's transformer on `meta`: names and shapes without memory. Raises CheckpointError."""
    model_class = transformer_class(config.get("_class_name", family.transformer_class))
    known = inspect.signature(model_class.__init__).parameters
    arguments = {key: value for key, value in config.items() if key in known}
    try:
        with init_empty_weights():
            model: nn.Module = model_class(**arguments)
    except (ValueError, TypeError, AssertionError, AttributeError, ZeroDivisionError, RuntimeError) as error:
        message = f"The file's shapes make no {model_class.__name__}: {type(error).__name__} {error}."
        raise CheckpointError(message, hint="It is damaged, or of a model this program doesn't know.") from error
    return model
