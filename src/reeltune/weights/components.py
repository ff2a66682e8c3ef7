"""A component of the pipeline from one file of a WanGP `ckpts` folder, by the class that diffusers' folder names.

As with transformers: built on `meta`, names and shapes compared before any memory is taken, then filled from the
mapped file, one tensor at a time. What the class keeps in fp32 in its own loader is kept so here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
import transformers
from accelerate import init_empty_weights
from torch import nn

from reeltune.checkpoints.contents import Header
from reeltune.checkpoints.foreign import START_BYTES, refuse_pointer
from reeltune.checkpoints.formats import format_of
from reeltune.checkpoints.header import FileSource, read_header
from reeltune.checkpoints.identify import identify
from reeltune.checkpoints.keys import NameMap, Places, map_names
from reeltune.checkpoints.metadata import config_if_any
from reeltune.checkpoints.source import WeightSource
from reeltune.dtypes import Quantization
from reeltune.errors import CheckpointError, TensorMismatch, UnsupportedFormat
from reeltune.families import Component
from reeltune.families.base import Config
from reeltune.families.components import LAYOUTS, WAN_VAE, Layout
from reeltune.library.inventory import CHECKPOINT_SUFFIXES, component_files
from reeltune.weights._libraries import (
    dequantized,
    is_int8,
    library_class,
    modules_in_fp32,
    modules_strictly_in_fp32,
    wan_vae_names,
)
from reeltune.weights.loader import Loader
from reeltune.weights.matching import check_names
from reeltune.weights.tensors import TensorFile

_HINT = "Move the file away, and the component is downloaded instead."
_CONVERTERS: Mapping[str, Callable[[Mapping[str, str]], dict[str, str]]] = MappingProxyType({WAN_VAE: wan_vae_names})
_Shapes = dict[str, tuple[int, ...]]


def load_component_file(component: Component, path: Path, dtype: torch.dtype) -> Any:
    """A component from its file, on the CPU, in eval mode; an image processor that suits the file's model.

    `dtype`: what it computes in. Raises HeaderError, UnsupportedFormat or TensorMismatch before memory is taken.
    """
    source = _source(read_header(path), component.layout)
    config = _config(source, LAYOUTS[component.layout])
    if component.class_name.endswith("Processor"):
        size = config["image_size"]
        return getattr(transformers, component.class_name)(size={"shortest_edge": size}, crop_size=size)
    model, tied = _empty(component, config, source.header.file)
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items() if name not in tied}
    source = _without_leading_ones(source, expected)
    try:
        check_names([source], expected)
    except TensorMismatch as error:
        error.hint = _HINT
        raise
    model.load_state_dict(_state(model, path, source, expected, dtype), strict=False, assign=True)
    if tied:
        model.tie_weights()
    return model.eval().requires_grad_(False)


def check_folder(component: Component, folder: Path) -> None:
    """Look into a component's folder for what its class's own loader would take without noticing.

    Raises HeaderError or UnsupportedFormat for weights whose scales that loader doesn't know, and for Git LFS pointers.
    """
    for file in component_files(folder, component):
        if file.name.endswith(CHECKPOINT_SUFFIXES):
            quantization = identify(read_header(file)).quantization
            if quantization is not Quantization.NONE:
                message = f"{file} holds {quantization} weights, which can't be loaded."
                raise UnsupportedFormat(message, hint="Use a 16-bit version of this component.")
            continue
        with FileSource(file) as source:
            refuse_pointer(source.name, source.read_at(0, START_BYTES))


def _source(header: Header, layout_name: str) -> WeightSource:
    """The file's header with its names sorted out. Raises UnsupportedFormat where its weights can't be computed."""
    identity = identify(header)
    weight_format = format_of(identity.quantization)
    if weight_format.reason_not_loadable or weight_format.converted_on_load:
        message = f"{header.file} holds {identity.quantization} weights, which can't be loaded."
        raise UnsupportedFormat(message, hint=_HINT)
    return WeightSource(header, identity, _names(header, layout_name))


def _names(header: Header, layout_name: str) -> NameMap:
    layout = LAYOUTS[layout_name]
    wanted = [name for name in header.tensors if not name.startswith(layout.ignored)]
    if layout.renames:
        return map_names(wanted, layout, "original")
    targets = {name: name.removeprefix(layout.prefix) for name in wanted}
    if layout_name in _CONVERTERS:
        try:
            targets = {stored: name for name, stored in _CONVERTERS[layout_name](targets).items()}
        except (ValueError, IndexError) as error:  # a forged block number
            raise CheckpointError(f"{header.file} is not laid out as known: {error}.", hint=_HINT) from error
    unknown = tuple(name for name in wanted if name not in targets)  # a second name of one that is there
    for alias, name in layout.aliases.items():
        if targets.pop(alias, None) and name not in header.tensors:
            targets[alias] = name
    places = {stored: Places((name,)) for stored, name in targets.items()}
    return NameMap("original", "", targets, places, unknown)


def _config(source: WeightSource, layout: Layout) -> Config:
    """The class's config, from shapes by its own names. Raises CheckpointError where they don't tell it."""
    shapes: _Shapes = {}
    for stored, places in source.names.diffusers.items():
        if not source.format.is_part(stored):
            shapes[source.format.weight_name(places.names[0])] = source.weight_shape(stored)
    try:
        return layout.derive_config(shapes, config_if_any(source.header.metadata))
    except (KeyError, ValueError, IndexError, ZeroDivisionError) as error:
        message = f"{source.header.file}: tensors are missing that determine the model's size ({error})."
        raise CheckpointError(message, hint=_HINT) from error


def _empty(component: Component, config: Config, file: str) -> tuple[Any, set[str]]:
    """The model on `meta`, and the names of parameters that are others' second names."""
    model_class = library_class(component.library, component.class_name)
    try:
        with init_empty_weights():
            if component.library == "transformers":
                model = model_class(model_class.config_class(**config))
            else:
                model = model_class(**config)
    except (ValueError, TypeError, ZeroDivisionError, RuntimeError) as error:
        message = f"{file}: its shapes make no {component.class_name}: {error}."
        raise CheckpointError(message, hint=_HINT) from error
    return model, set(getattr(model, "all_tied_weights_keys", None) or ())


def _without_leading_ones(source: WeightSource, expected: Mapping[str, tuple[int, ...]]) -> WeightSource:
    """The source with shapes such as [1, 1, width] as the model has them, [width], where that is all that differs."""
    tensors = dict(source.header.tensors)
    for stored, places in source.names.diffusers.items():
        shape, wanted = tensors[stored].shape, expected.get(places.names[0], ())
        extra = len(shape) - len(wanted)
        if len(places.names) == 1 and extra > 0 and shape == (1,) * extra + wanted:
            tensors[stored] = replace(tensors[stored], shape=wanted)
    return replace(source, header=replace(source.header, tensors=MappingProxyType(tensors)))


def _state(
    model: Any, path: Path, source: WeightSource, expected: _Shapes, dtype: torch.dtype
) -> dict[str, torch.Tensor]:
    """The model's parameters in its data type; int8 stays where a linear layer computes with it."""
    loader = Loader(TensorFile(path), source, dtype, _kept_in_fp32(model, dtype))
    state: dict[str, torch.Tensor] = {}
    for stored in source.parameters():
        for name, tensor in loader.load(stored, expected).items():
            module = model.get_submodule(name.rpartition(".")[0])
            if is_int8(tensor) and not isinstance(module, nn.Linear):
                tensor = dequantized(tensor)
            state[name] = tensor if tuple(tensor.shape) == expected[name] else tensor.reshape(expected[name])
    return state


def _kept_in_fp32(model: Any, dtype: torch.dtype) -> tuple[str, ...]:
    """Modules that the class's own loader keeps in fp32: transformers does so with bf16 only where it is strict."""
    names = modules_strictly_in_fp32(model)
    if dtype == torch.float16 or not isinstance(model, transformers.PreTrainedModel):
        names += modules_in_fp32(model)
    return names
