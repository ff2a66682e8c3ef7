"""A transformer from a checkpoint: built on `meta`, names checked before any memory is taken, then filled.

16-bit weights of the run's data type stay on the mapped file; others are converted one tensor at a time; quanto
int8 becomes torchao's `Int8Tensor`; fp8 is multiplied with its scales; modules that diffusers keeps in fp32 are kept in
fp32. Modules (VACE) fill the parameters that the base's file doesn't have, each file in its own layout, data type and
quantization.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import diffusers
import torch
from accelerate import init_empty_weights
from torch import nn
from torchao.quantization import Int8Tensor

from reeltune._quiet import importing
from reeltune.checkpoints.fp8 import NOTE, PLAIN, is_matrix
from reeltune.checkpoints.header import read_header
from reeltune.checkpoints.identify import identify, original_shapes
from reeltune.checkpoints.keys import map_names, matches
from reeltune.checkpoints.names import FP8, QUANTO_INT8, SIXTEEN_BITS
from reeltune.checkpoints.quanto import ACTIVATION_SCALES, DATA, SCALE, config_if_any
from reeltune.errors import CheckpointError, UnsupportedFormat
from reeltune.events import CancelToken, Listener, Progress, ignore
from reeltune.families import FAMILIES, Family
from reeltune.weights.matching import Source, check_names, parameter_name
from reeltune.weights.quanto import dequantize, quantize_tensor
from reeltune.weights.tensors import RUN_DTYPES, TensorFile
from reeltune.weights.unscaled import check_plain

_MOST_NOTE = 4096  # bytes


def load_transformer(
    path: Path,
    dtype: str,
    *,
    modules: Sequence[Path] = (),
    config: Mapping[str, Any] | None = None,
    quantize: bool = False,
    into: nn.Module | None = None,
    listener: Listener = ignore,
    cancel: CancelToken | None = None,
) -> nn.Module:
    """The diffusers transformer a checkpoint and its `modules` hold, on the CPU, in eval mode.

    `dtype`: "bf16" | "fp16", what it computes in; `config`: what the headers can't tell of the model's config;
    `quantize`: block linears that aren't int8 become so while loading; `into`: a model whose weights are let go, and
    which is filled instead of a new one where it is of the same config. Raises HeaderError, UnsupportedFormat or
    TensorMismatch before memory is taken.
    """
    family, sources = _sources([path, *modules])
    model = _like(into, empty_model(family, model_config(family, sources, config or {})))
    expected = {name: tuple(parameter.shape) for name, parameter in model.state_dict().items()}
    check_names(sources, expected)
    keep = tuple(getattr(model, "_keep_in_fp32_modules", None) or ())
    state: dict[str, torch.Tensor] = {}
    total, done = sum(len(source.parameters()) for source in sources), 0
    for source, place in zip(sources, [path, *modules], strict=True):
        loader = Loader(TensorFile(place), source, RUN_DTYPES[dtype], keep, family.quantizable if quantize else ())
        for stored in source.parameters():
            if cancel:
                cancel.check()
            state |= loader.load(stored, expected)
            done += 1
            listener(Progress("quantize" if quantize else "load", done, total, "tensors", path.name))
    model.load_state_dict(state, strict=True, assign=True)
    return model.eval().requires_grad_(False)


def _like(before: Any, model: Any) -> nn.Module:
    """The model before, where the new one is built the same: what was set up on it (compiled blocks) stays.

    Either way it is emptied first, so that no two models' weights are in memory at once.
    """
    if before is None:
        return model  # type: ignore[no-any-return]
    for module in before.modules():
        for name, weight in module.named_parameters(recurse=False):
            empty = torch.empty(weight.shape, dtype=weight.dtype, device="meta")
            setattr(module, name, nn.Parameter(empty, requires_grad=False))
    same = type(before) is type(model) and dict(before.config) == dict(model.config)
    return before if same else model  # type: ignore[no-any-return]


def peek_config(path: Path, modules: Sequence[Path] = (), config: Mapping[str, Any] | None = None) -> Any:
    """The config object of the model that `load_transformer` would make, without loading it."""
    family, sources = _sources([path, *modules])
    return empty_model(family, model_config(family, sources, config or {})).config


def _sources(paths: Sequence[Path]) -> tuple[Family, list[Source]]:
    """The files' headers sorted out. Raises UnsupportedFormat where one is not what stands in its place."""
    sources, family = [], None
    for index, path in enumerate(paths):
        header = read_header(path)
        identity = identify(header)
        known = next((row for row in FAMILIES if row.name == identity.family), None)
        if identity.quantization not in (SIXTEEN_BITS, QUANTO_INT8, *FP8):
            raise UnsupportedFormat(
                f"{header.file} holds {identity.quantization} weights, which can't be loaded.",
                hint="Use a bf16, fp16, fp8 or quanto int8 version.",
            )
        if known is None or known is not (family or known):
            raise UnsupportedFormat(
                f"{header.file} is of {'another' if known else 'no known'} model family.",
                hint=f"Its first tensor is {next(iter(header.tensors))!r}.",
            )
        if (identity.role == "module") != (index > 0):
            what = "a module: it extends a model and is none itself" if index == 0 else "a whole model, and no module"
            raise UnsupportedFormat(f"{header.file} is {what}.")
        family = known
        check_notes(path, header.tensors)
        names = map_names(header.tensors, family, identity.layout or "original", identity.prefix)
        sources.append(Source(header, identity, names))
    assert family is not None
    return family, sources


def model_config(family: Family, sources: Sequence[Source], config: Mapping[str, Any]) -> dict[str, Any]:
    """The config that all files together tell; `config` holds where they are silent. Raises CheckpointError."""
    shapes: dict[str, tuple[int, ...]] = {}
    stored: dict[str, Any] = {}
    for source in sources:
        shapes |= original_shapes(source.header, source.names)
        if empty := next((name for name, shape in shapes.items() if 0 in shape), ""):
            message = f"{source.header.file}: {empty} is empty, of shape {list(shapes[empty])}."
            raise CheckpointError(message, hint="It is damaged: download it again.")
        stored |= config_if_any(source.header.metadata)
    try:
        return {**config, **family.derive_config(shapes, stored)}
    except (KeyError, ValueError, IndexError, ZeroDivisionError) as error:
        files = " and ".join(str(source.header.file) for source in sources)
        lacks = f"without which the model's size can't be told ({error})"
        raise CheckpointError(f"{files}: tensors are lacking {lacks}.", hint="Fetch it again.") from error


def empty_model(family: Family, config: Mapping[str, Any]) -> nn.Module:
    """The family's transformer on `meta`: names and shapes without memory."""
    model_class = transformer_class(config.get("_class_name", family.transformer_class))
    known = inspect.signature(model_class.__init__).parameters
    try:
        with init_empty_weights():
            return model_class(**{key: value for key, value in config.items() if key in known})  # type: ignore[no-any-return]
    except (ValueError, TypeError, AssertionError, AttributeError, ZeroDivisionError, RuntimeError) as error:
        message = f"The file's shapes make no {model_class.__name__}: {type(error).__name__} {error}."
        raise CheckpointError(message, hint="It is damaged, or of a model this program doesn't know.") from error


def check_notes(path: Path, names: Iterable[str]) -> None:
    """Read what a file's notes say of how its fp8 layers are stored. Raises UnsupportedFormat for any other way."""
    notes = [name for name in names if name.endswith(NOTE)]
    if not notes:
        return
    file = TensorFile(path)
    for name in notes:
        try:
            note = json.loads(bytes(file[name].view(torch.uint8).reshape(-1)[:_MOST_NOTE].tolist()))
            plain = note.get("format") in PLAIN and note.keys() <= {"format", "full_precision_matrix_mult"}
        except (ValueError, AttributeError, RecursionError):
            plain = False
        if not plain:
            raise UnsupportedFormat(
                f"{path}: {name} tells of a storage that isn't known here.", hint="Use a bf16 version."
            )


def transformer_class(name: str) -> Any:
    """diffusers' class of that name, imported on first use."""
    with importing():
        return getattr(diffusers, name)


class Loader:
    """Turns a file's stored tensors into the model's, one at a time.

    `fp32`: modules kept in fp32; `quantizable`: linears, in original names, that become int8 where they aren't.
    """

    def __init__(
        self,
        file: TensorFile,
        source: Source,
        run: torch.dtype,
        fp32: tuple[str, ...] = (),
        quantizable: tuple[str, ...] = (),
    ) -> None:
        self._file, self._source = file, source
        self._run, self._fp32, self._patterns = run, fp32, quantizable

    def load(self, stored: str, expected: Mapping[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
        """The parameters a stored tensor fills: one, or the layers it holds stacked."""
        tensor = self._floating(stored)
        scale = self._scale(stored) if stored.endswith(DATA) else None
        places = self._source.names.diffusers[stored]
        found: dict[str, torch.Tensor] = {}
        converted, begin = True, 0
        for target in map(parameter_name, places.names):
            rows = slice(begin, begin + expected[target][0]) if len(places.names) > 1 else slice(None)
            begin = rows.stop or 0
            part = _swapped(tensor) if places.swapped else tensor[rows] if begin else tensor
            part_scale = None if scale is None else _swapped(scale) if places.swapped else scale[rows]
            found[target] = self._convert(stored, target, part, part_scale)
            converted &= found[target] is not part
        if converted:
            self._file.release(stored)  # so that the file's copy does not pile up beside the model's
        return found

    def _convert(self, stored: str, target: str, tensor: torch.Tensor, scale: torch.Tensor | None) -> torch.Tensor:
        keep = any(part in target.split(".") for part in self._fp32)
        dtype = torch.float32 if keep else self._run
        if scale is not None:
            return dequantize(tensor, scale, dtype) if keep else int8_tensor(tensor, scale, self._run)
        if not tensor.is_floating_point():
            raise UnsupportedFormat(f"{self._file.path}: {stored} is stored as {tensor.dtype}, without its scale.")
        if not keep and self._quantizable(stored):
            return int8_tensor(*quantize_tensor(tensor, self._run, stored), self._run)
        return tensor.to(dtype)

    def _floating(self, stored: str) -> torch.Tensor:
        """A tensor as it is stored; fp8 as fp32, with its scale."""
        tensor, name = self._file[stored], self._source.fp8_scales.get(stored)
        if name is not None and not bool(torch.isfinite(self._file[name]).all()):
            raise CheckpointError(f"{self._file.path}: {name} is NaN or infinite.", hint="Fetch it again.")
        if name is not None:
            return dequantize(tensor, self._file[name].reshape(-1, *[1] * (tensor.ndim - 1)), torch.float32)
        if tensor.dtype.itemsize != 1 or not tensor.is_floating_point():
            return tensor
        if is_matrix(stored, tuple(tensor.shape)):
            check_plain(tensor, stored, self._file.path.name)
        return tensor.to(torch.float32)

    def _scale(self, stored: str) -> torch.Tensor:
        """Scales of a quantized layer [rows, 1]. Raises where they are damaged, or activations are quantized too."""
        module = stored.removesuffix(DATA)
        scale = self._file[module + SCALE]
        if not bool(torch.isfinite(scale).all()):
            raise CheckpointError(f"{self._file.path}: scales of {module} are NaN or infinite.", hint="Fetch it again.")
        for suffix in ACTIVATION_SCALES:
            name = module + suffix
            if name in self._source.names.diffusers and not bool((self._file[name] == 1).all()):
                message = f"{self._file.path}: the activations of {module} are quantized too, which can't be run."
                raise UnsupportedFormat(message, hint="Use a version whose weights alone are quantized.")
        return scale.reshape(-1, 1)

    def _quantizable(self, stored: str) -> bool:
        name = self._source.names.original[stored]
        module = name.removesuffix(".weight")
        return name.endswith(".weight") and any(matches(module, row) for row in self._patterns)


def _swapped(tensor: torch.Tensor) -> torch.Tensor:
    """The lower half of the rows before the upper one."""
    return torch.cat(tuple(reversed(tensor.chunk(2))))


def int8_tensor(data: torch.Tensor, scale: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """torchao's weight-only int8 tensor from quanto's `data` [out, in] and `scale` [out, 1]."""
    rows = scale.to(dtype).reshape(-1, 1)
    return Int8Tensor(data, rows, [1, data.shape[1]], dtype)  # type: ignore[no-any-return]
