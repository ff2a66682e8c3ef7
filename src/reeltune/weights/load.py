"""A transformer from a checkpoint: built on `meta`, names checked before any memory is taken, then filled.

16-bit weights of the run's data type stay on the mapped file; others are converted one tensor at a time, as their
format wants it (`formats`); modules that diffusers keeps in fp32 are kept in fp32. Modules (VACE) fill the parameters
that the base's file doesn't have, each file in its own layout, data type and quantization.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from reeltune.checkpoints.formats import format_of
from reeltune.checkpoints.header import read_header
from reeltune.checkpoints.identify import identify
from reeltune.checkpoints.keys import map_names
from reeltune.checkpoints.loras import Targets
from reeltune.checkpoints.source import WeightSource
from reeltune.dtypes import DType
from reeltune.errors import UnsupportedFormat
from reeltune.events import CancelToken, Listener, Progress, ignore
from reeltune.families import FAMILIES, Family
from reeltune.families.base import Config
from reeltune.weights._libraries import modules_in_fp32
from reeltune.weights.building import empty_model, model_config
from reeltune.weights.loader import Loader
from reeltune.weights.lora import Edits, FileValues, read_edits
from reeltune.weights.matching import check_names
from reeltune.weights.tensors import RUN_DTYPES, TensorFile


@dataclass(frozen=True)
class MergedLora:
    """A LoRA file that is merged into a model with a constant weight."""

    path: Path
    weight: float


def load_transformer(
    path: Path,
    dtype: DType,
    *,
    modules: Sequence[Path] = (),
    config: Config | None = None,
    quantize: bool = False,
    keep: bool = False,
    loras: Sequence[MergedLora] = (),
    second: bool = False,
    into: nn.Module | None = None,
    listener: Listener = ignore,
    cancel: CancelToken | None = None,
) -> nn.Module:
    """The diffusers transformer a checkpoint and its `modules` hold, on the CPU, in eval mode.

    `dtype`: what it computes in; `config`: what the headers can't tell of the model's config; `quantize`: block linears
    that aren't int8 become so while loading; `keep`: block linears that are stored in 8 bits stay so, where their
    format allows it; `loras`: LoRAs to merge before that; `second`: whether it is the second of two transformers;
    `into`: a model whose weights are given up, and which is filled instead of a new one where it is of the same config.
    Raises HeaderError, UnsupportedFormat or TensorMismatch before memory is taken.
    """
    family, sources = _sources([path, *modules])
    model = _reused(into, empty_model(family, model_config(family, sources, config or {})))
    expected = {name: tuple(parameter.shape) for name, parameter in model.state_dict().items()}
    check_names(sources, expected)
    state: dict[str, torch.Tensor] = {}
    done = 0
    total = sum(len(source.parameters()) for source in sources)
    stage = "quantize" if quantize else "load"
    quantizable = family.quantizable if quantize else ()
    kept = family.quantizable if keep else ()
    edits = _merged(family, dict(zip([path, *modules], sources, strict=True)), loras, second)
    for source, file in zip(sources, [path, *modules], strict=True):
        loader = Loader(TensorFile(file), source, RUN_DTYPES[dtype], modules_in_fp32(model), quantizable, edits, kept)
        for stored in source.parameters():
            if cancel:
                cancel.check()
            state |= loader.load(stored, expected)
            done += 1
            listener(Progress(stage, done, total, "tensors", path.name))
    model.load_state_dict(state, strict=True, assign=True)
    return model.eval().requires_grad_(False)


def _merged(family: Family, sources: Mapping[Path, WeightSource], loras: Sequence[MergedLora], second: bool) -> Edits:
    """The edits of all LoRAs, by stored name. Raises LoraMismatch, UnsupportedFormat, CheckpointError."""
    edits: Edits = {}
    if not loras:
        return edits
    targets = Targets(family, *sources.values())
    homes = [(source, dict.fromkeys(source.parameters(), path)) for path, source in sources.items()]
    values = FileValues(*homes)
    for lora in loras:
        edits_of_lora, _ = read_edits(lora.path, lora.weight, targets, values, second=second)
        for stored, of_tensor in edits_of_lora.items():
            edits.setdefault(stored, []).extend(of_tensor)
    return edits


def _reused(before: Any, model: Any) -> nn.Module:
    """The model before, where the new one is built the same: what was set up on it (compiled blocks) stays.

    Either way it is emptied first, so that no two models' weights are in memory at once.
    """
    new_model: nn.Module = model
    if before is None:
        return new_model
    old_model: nn.Module = before
    for module in old_model.modules():
        for name, weight in module.named_parameters(recurse=False):
            empty = torch.empty(weight.shape, dtype=weight.dtype, device="meta")
            setattr(module, name, nn.Parameter(empty, requires_grad=False))
    same = type(before) is type(model) and dict(before.config) == dict(model.config)
    return old_model if same else new_model


def peek_config(path: Path, modules: Sequence[Path] = (), config: Config | None = None) -> Any:
    """The config object of the model that `load_transformer` would make, without loading it."""
    family, sources = _sources([path, *modules])
    return empty_model(family, model_config(family, sources, config or {})).config


def _sources(paths: Sequence[Path]) -> tuple[Family, list[WeightSource]]:
    """The files' headers sorted out. Raises UnsupportedFormat where one is not what stands in its place."""
    family, base = _source(paths[0], None)
    if base.identity.role == "module":
        raise UnsupportedFormat(f"{base.header.file} is a module: it extends a model and is none itself.")
    sources = [base]
    for path in paths[1:]:
        _, module = _source(path, family)
        if module.identity.role != "module":
            raise UnsupportedFormat(f"{module.header.file} is a whole model, and no module.")
        sources.append(module)
    return family, sources


def _source(path: Path, wanted: Family | None) -> tuple[Family, WeightSource]:
    """One file's header sorted out, and its family. Raises UnsupportedFormat, also for another family than `wanted`."""
    header = read_header(path)
    identity = identify(header)
    weight_format = format_of(identity.quantization)
    if weight_format.reason_not_loadable:
        message = f"{header.file} holds {weight_format.label} weights, which can't be loaded."
        raise UnsupportedFormat(message, hint=weight_format.hint)
    if identity.objection:
        raise UnsupportedFormat(f"{header.file} can't be loaded: {identity.objection}.", hint=weight_format.hint)
    family = next((known for known in FAMILIES if known.name == identity.family), None)
    if family is None or wanted not in (None, family):
        kind = "another" if family else "no known"
        first = next(iter(header.tensors))
        raise UnsupportedFormat(f"{header.file} is of {kind} model family.", hint=f"Its first tensor is {first!r}.")
    names = map_names(header.tensors, family, identity.layout or "original", identity.prefix)
    return family, WeightSource(header, identity, names)
