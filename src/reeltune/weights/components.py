"""A component of the pipeline from files in the layouts of other programs, by the class that diffusers' folder names.

As with transformers: built on `meta`, names and shapes compared before any memory is taken, then filled from the
mapped files, one tensor at a time. What the class keeps in fp32 in its own loader is kept so here. A text encoder may
become int8 on the way, so that its 16-bit weights are never in memory as a whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
import transformers
from accelerate import init_empty_weights
from torch import nn

from reeltune.checkpoints.components import class_shapes, component_names, component_start
from reeltune.checkpoints.contents import Header
from reeltune.checkpoints.foreign import START_BYTES, refuse_pointer
from reeltune.checkpoints.formats import format_of
from reeltune.checkpoints.header import FileSource, read_header
from reeltune.checkpoints.identify import identify
from reeltune.checkpoints.keys import NameMap, Places
from reeltune.checkpoints.metadata import config_if_any
from reeltune.checkpoints.source import WeightSource
from reeltune.dtypes import Quantization
from reeltune.errors import CheckpointError, TensorMismatch, UnsupportedFormat
from reeltune.families import Component, ComponentPart
from reeltune.families.base import Config
from reeltune.families.components import BYT5, KINDS, LLAVA, LLAVA_VISION, SENTENCEPIECE, SIGLIP_VISION
from reeltune.library.inventory import CHECKPOINT_SUFFIXES, component_files
from reeltune.weights._libraries import (
    dequantized,
    is_int8,
    library_class,
    modules_in_fp32,
    modules_strictly_in_fp32,
)
from reeltune.weights.loader import Loader
from reeltune.weights.matching import check_names
from reeltune.weights.parts import Parts, read_parts
from reeltune.weights.sentencepiece import load_sentencepiece
from reeltune.weights.tensors import TensorFile

_HINT = "Move the file away, and the component is downloaded instead."
_BAD_SHAPES = (KeyError, ValueError, IndexError, ZeroDivisionError, TypeError)
_Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class _PartSource:
    """A part of a component: its header with its names, and the file of each tensor."""

    part: ComponentPart
    source: WeightSource
    homes: Mapping[str, Path]

    def stored_names(self, file: Path) -> list[str]:
        """The stored names in one of its files that become parameters."""
        return [name for name in self.source.parameters() if self.homes[name] == file]

    @property
    def files(self) -> tuple[Path, ...]:
        """Its files, once each."""
        return tuple(dict.fromkeys(self.homes.values()))


def load_component_file(
    component: Component, path: Path, dtype: torch.dtype, *, more: Sequence[Path] = (), quantize: bool = False
) -> Any:
    """A component from its file, on the CPU, in eval mode; a tokenizer or an image processor that suits the file.

    `dtype`: what it computes in. `more`: other files that it is assembled from. `quantize`: its linear layers that
    aren't int8 become so while they are loaded. Raises HeaderError, UnsupportedFormat or TensorMismatch before memory
    is taken.
    """
    if component.kind == SENTENCEPIECE.name:
        return load_sentencepiece(path)
    sources = _sources(component, [path, *more])
    config = _config(component, sources)
    if component.kind == BYT5.name and component.class_name.endswith("Tokenizer"):
        return transformers.ByT5Tokenizer()  # its vocabulary is all bytes
    if component.class_name.endswith("Processor"):
        return _image_processor(component, config)
    model = _empty(component, config, str(path))
    return _filled(component, model, sources, dtype, quantize=quantize)


def _image_processor(component: Component, config: Config) -> Any:
    """What makes images as large as an image encoder takes them. SigLIP sees the whole image, CLIP its middle."""
    processor_class = getattr(transformers, component.class_name)
    side = config["vision_config"]["image_size"] if "vision_config" in config else config["image_size"]
    if component.kind == SIGLIP_VISION.name:
        return processor_class(size={"height": side, "width": side})
    return processor_class(size={"shortest_edge": side}, crop_size=side)


def load_component_folder(
    component: Component, folder: Path, dtype: torch.dtype, *, quantize: bool
) -> nn.Module | None:
    """A text encoder from a folder in diffusers layout. With `quantize`, its linear layers become int8 while loading.

    Returns None if the names in the folder's weights are not known here. Raises as `load_component_file`.
    """
    kind = KINDS[component.kind]
    parts = _weights_of(component, folder)
    if parts is None or component_start(parts.header, kind) is None:
        return None
    source = _source(parts.header, component.kind, "")
    model_class = getattr(transformers, component.class_name)
    with init_empty_weights():
        model = model_class(model_class.config_class.from_pretrained(str(folder), local_files_only=True))
    _drop_head(model)
    part = _PartSource(ComponentPart(component.kind, ""), source, parts.homes)
    return _filled(component, model, [part], dtype, quantize=quantize)


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


def _weights_of(component: Component, folder: Path) -> Parts | None:
    """The weights in a folder: one file, or a set of files. None if it isn't clear which of its files are used."""
    files = [file for file in component_files(folder, component) if file.name.endswith(CHECKPOINT_SUFFIXES)]
    whole = [file for file in files if file.name == "model.safetensors"]
    if not whole and not files:
        return None
    parts = read_parts((whole or files)[0])
    return parts if whole or set(parts.files) == set(files) else None


# --- headers ----------------------------------------------------------------------------------------------------


def _sources(component: Component, paths: Sequence[Path]) -> list[_PartSource]:
    """The parts of a component in its files. Raises CheckpointError for a file that contains none of them."""
    headers = {path: read_header(path) for path in paths}
    first = paths[0]
    if len(paths) == 1 and component_start(headers[first], KINDS[component.kind]) is not None:
        assigned = [(ComponentPart(component.kind, ""), first)]
    elif component.assembled:
        assigned = [(part, _path_of(part, headers)) for part in component.assembled]
    else:
        assigned = [(ComponentPart(component.kind, ""), first)]
    return [_part_source(part, path, headers[path]) for part, path in assigned]


def _path_of(part: ComponentPart, headers: Mapping[Path, Header]) -> Path:
    for path, header in headers.items():
        if component_start(header, KINDS[part.kind]) is not None:
            return path
    message = f"No file contains the {KINDS[part.kind].label}: {', '.join(map(str, headers))}."
    raise CheckpointError(message, hint=_HINT)


def _part_source(part: ComponentPart, path: Path, header: Header) -> _PartSource:
    return _PartSource(part, _source(header, part.kind, part.prefix), dict.fromkeys(header.tensors, path))


def _source(header: Header, kind_name: str, class_prefix: str) -> WeightSource:
    """A file's header with its names sorted out. Raises CheckpointError, UnsupportedFormat."""
    identity = identify(header)
    weight_format = format_of(identity.quantization)
    if weight_format.reason_not_loadable:
        message = f"{header.file} holds {weight_format.label} weights, which can't be loaded."
        raise UnsupportedFormat(message, hint=_HINT)
    if identity.objection:
        raise UnsupportedFormat(f"{header.file} can't be loaded: {identity.objection}.", hint=_HINT)
    kind = KINDS[kind_name]
    start = component_start(header, kind)
    if start is None:
        message = (
            f"{header.file} is no {kind.label} in a known layout: tensors are missing that determine the model's size."
        )
        raise CheckpointError(message, hint=_HINT)
    names = component_names(header.tensors, *start)
    if class_prefix:
        names = _with_prefix(names, class_prefix)
    return WeightSource(header, identity, names)


def _with_prefix(names: NameMap, prefix: str) -> NameMap:
    """The names as those of a part of a larger model."""
    places = {
        stored: Places(tuple(prefix + name for name in place.names), place.swapped)
        for stored, place in names.diffusers.items()
    }
    return replace(names, original={stored: prefix + name for stored, name in names.original.items()}, diffusers=places)


def _config(component: Component, sources: Sequence[_PartSource]) -> Config:
    """The class's config, from shapes by its own names. Raises CheckpointError where they don't tell it."""
    shapes: _Shapes = {}
    stored: dict[str, Any] = {}
    for part in sources:
        shapes |= class_shapes(part.source.header, part.source.names, part.source.format)
        stored |= config_if_any(part.source.header.metadata)
    kind = KINDS[component.kind]
    if kind is LLAVA and all(part.part.kind == LLAVA_VISION.name for part in sources):
        prefix = sources[0].part.prefix  # an image processor needs nothing else
        kind = LLAVA_VISION
        shapes = {name.removeprefix(prefix): shape for name, shape in shapes.items()}
    try:
        return kind.derive_config(shapes, stored)
    except _BAD_SHAPES as error:
        files = " and ".join(part.source.header.file for part in sources)
        message = f"{files}: tensors are missing that determine the model's size ({error})."
        raise CheckpointError(message, hint=_HINT) from error


def _empty(component: Component, config: Config, file: str) -> Any:
    """The model on `meta`."""
    model_class = library_class(component.library, component.class_name)
    try:
        with init_empty_weights():
            if component.library == "transformers":
                model = model_class(model_class.config_class(**config))
            else:
                model = model_class(**config)
    except (ValueError, TypeError, ZeroDivisionError, RuntimeError, IndexError) as error:
        message = f"{file}: its shapes make no {component.class_name}: {error}."
        raise CheckpointError(message, hint=_HINT) from error
    _drop_head(model)
    return model


def _drop_head(model: Any) -> None:
    """Remove the layer that predicts tokens: only hidden states are used, and files of text encoders may lack it."""
    if hasattr(model, "lm_head"):
        model.lm_head = nn.Identity()


# --- weights ----------------------------------------------------------------------------------------------------


def _filled(
    component: Component, model: Any, sources: Sequence[_PartSource], dtype: torch.dtype, *, quantize: bool
) -> nn.Module:
    """The model with the weights of all parts. Raises TensorMismatch before memory is taken."""
    tied = set(getattr(model, "all_tied_weights_keys", None) or ())
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items() if name not in tied}
    fitted = [replace(part, source=_without_extra_ones(part.source, expected)) for part in sources]
    try:
        check_names([part.source for part in fitted], expected)
    except TensorMismatch as error:
        error.hint = _HINT
        raise
    quantizable = KINDS[component.kind].quantizable if quantize else ()
    state: dict[str, torch.Tensor] = {}
    for part in fitted:
        for file in part.files:
            loader = Loader(TensorFile(file), part.source, dtype, _kept_in_fp32(model, dtype), quantizable)
            state |= _state(model, loader, part.stored_names(file), expected)
    model.load_state_dict(state, strict=False, assign=True)
    if tied:
        model.tie_weights()
    filled: nn.Module = model.eval().requires_grad_(False)
    return filled


def _without_extra_ones(source: WeightSource, expected: Mapping[str, tuple[int, ...]]) -> WeightSource:
    """The source with shapes as the model has them, where they only have more sides of 1: [1, width], [out, in, 1]."""
    tensors = dict(source.header.tensors)
    for stored, places in source.names.diffusers.items():
        shape, wanted = tensors[stored].shape, expected.get(places.names[0], ())
        if len(places.names) == 1 and len(shape) > len(wanted) and _sides(shape) == _sides(wanted):
            tensors[stored] = replace(tensors[stored], shape=wanted)
    return replace(source, header=replace(source.header, tensors=MappingProxyType(tensors)))


def _sides(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(side for side in shape if side != 1)


def _state(model: Any, loader: Loader, stored_names: Iterable[str], expected: _Shapes) -> dict[str, torch.Tensor]:
    """The model's parameters in its data type; int8 stays where a linear layer computes with it."""
    state: dict[str, torch.Tensor] = {}
    for stored in stored_names:
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
