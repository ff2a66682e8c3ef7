"""A weight file that was recognized as a model: its names are sorted out, and its tensors checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from reeltune.checkpoints.formats import format_of
from reeltune.checkpoints.identify import Identity, identify
from reeltune.checkpoints.keys import map_names
from reeltune.checkpoints.loras import Targets
from reeltune.checkpoints.source import WeightSource
from reeltune.dtypes import DType
from reeltune.errors import UnsupportedFormat
from reeltune.families import ARCHITECTURES, FAMILIES, Family
from reeltune.weights._libraries import modules_in_fp32
from reeltune.weights.building import empty_model, model_config, transformer_class
from reeltune.weights.matching import check_names, check_storage
from reeltune.weights.parts import Parts, read_parts
from reeltune.weights.recipe import Target, Task, write_recipe


@dataclass(frozen=True)
class ModelFile:
    """A model, or a module of one, in a file or a set of files.

    `source`: its header with all names sorted out; `fp32`: names of the modules that stay in fp32.
    """

    path: Path
    parts: Parts
    source: WeightSource
    family: Family
    fp32: tuple[str, ...]

    @property
    def identity(self) -> Identity:
        """What its header says."""
        return self.source.identity

    @cached_property
    def targets(self) -> Targets:
        """Its stored tensors under every name that they go by."""
        return Targets(self.family, self.source)

    @cached_property
    def own_names(self) -> Mapping[str, str]:
        """The name of each weight in the file's own layout, by the name that it is stored under."""
        names = self.source.names
        by_layout = names.original
        if names.layout == "diffusers":
            by_layout = {stored: places.names[0] for stored, places in names.diffusers.items()}
        weight_name = self.source.format.weight_name
        return {stored: weight_name(by_layout[stored]) for stored in self.source.parameters()}

    @cached_property
    def tasks(self) -> Mapping[str, Task]:
        """How each stored tensor is read, by its name. Raises UnsupportedFormat for one that can't be decoded."""
        target = Target("bf16", DType.BF16, ())  # what it would become doesn't matter
        recipe = write_recipe(self.parts, self.source, self.family, target, {}, {})
        return {task.source.name: task for task in recipe.tasks}


def read_model(path: Path) -> ModelFile:
    """Recognize a file, or the set it belongs to, from its header.

    Raises UnsupportedFormat for a format that can't be read and a file of no known family, TensorMismatch for one that
    isn't complete, HeaderError.
    """
    parts = read_parts(path)
    identity = identify(parts.header)
    family = _family(path, identity)
    names = map_names(parts.header.tensors, family, identity.layout or "original", identity.prefix)
    source = WeightSource(parts.header, identity, names)
    return ModelFile(path, parts, source, family, _check_model(family, source))


def _family(path: Path, identity: Identity) -> Family:
    weight_format = format_of(identity.quantization)
    if weight_format.reason_not_loadable:
        message = f"{path} holds {weight_format.label} weights, which can't be read."
        raise UnsupportedFormat(message, hint="Start from a 16-bit version.")
    if identity.objection:
        raise UnsupportedFormat(f"{path} can't be read: {identity.objection}.", hint="Start from a 16-bit version.")
    family = next((known for known in FAMILIES if known.name == identity.family), None)
    if family is None:
        raise UnsupportedFormat(
            f"{path} is of no known model family.", hint="`reeltune inspect` shows what its header tells."
        )
    return family


def _check_model(family: Family, source: WeightSource) -> tuple[str, ...]:
    """Check that the file contains the model that its header tells of; returns the modules that stay in fp32.

    Raises TensorMismatch.
    """
    if source.identity.role == "module":
        check_storage(source)
        return modules_in_fp32(transformer_class(family.transformer_class))
    known = source.identity.architectures or source.identity.compatible
    config = ARCHITECTURES[known[0]].config if known else {}
    model = empty_model(family, model_config(family, [source], config))
    check_names([source], {name: tuple(parameter.shape) for name, parameter in model.state_dict().items()})
    return modules_in_fp32(model)
