"""A transformer from a checkpoint: built on `meta`, names checked before any memory is taken, then filled.

16-bit weights of the run's data type stay on the mapped file; others are converted one tensor at a time; quanto
int8 becomes torchao's `Int8Tensor`; modules that diffusers keeps in fp32 are kept in fp32.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import diffusers
import torch
from accelerate import init_empty_weights
from torch import nn
from torchao.quantization import Int8Tensor

from reeltune.checkpoints.header import Header
from reeltune.checkpoints.identify import Identity, identify
from reeltune.checkpoints.keys import NameMap, map_names, matches
from reeltune.checkpoints.names import QUANTO_INT8, SIXTEEN_BITS
from reeltune.checkpoints.quanto import ACTIVATION_SCALES, DATA, SCALE
from reeltune.errors import CheckpointError, TensorMismatch, UnsupportedFormat
from reeltune.events import CancelToken, Listener, Progress, ignore
from reeltune.families import FAMILIES, Family
from reeltune.weights.quantize import dequantize, quantize_tensor
from reeltune.weights.tensors import RUN_DTYPES, TensorFile

_SHOWN = 10


def load_transformer(
    path: Path,
    dtype: str,
    *,
    quantize: bool = False,
    listener: Listener = ignore,
    cancel: CancelToken | None = None,
) -> nn.Module:
    """The diffusers transformer a checkpoint holds, on the CPU, in eval mode.

    `dtype`: "bf16" | "fp16", what it computes in; `quantize`: 16-bit block linears become int8 while loading.
    Raises HeaderError, UnsupportedFormat or TensorMismatch before memory is taken.
    """
    file = TensorFile(path)
    identity = identify(file.header)
    family = _family(file.header, identity)
    names = map_names(file.header.tensors, family, identity.layout or "original", identity.prefix)
    model = empty_model(family, dict(identity.config or {}))
    check_names(file.header, names, model)
    run = RUN_DTYPES[dtype]
    loader = _Loader(file, names, family, run, _fp32_modules(model), quantize)
    state: dict[str, torch.Tensor] = {}
    for done, stored in enumerate(loader.tensors()):
        if cancel:
            cancel.check()
        state[loader.target(stored)] = loader.load(stored)
        listener(Progress("load", done + 1, len(loader.tensors()), "tensors", path.name))
    model.load_state_dict(state, strict=True, assign=True)
    return model.eval().requires_grad_(False)


def _family(header: Header, identity: Identity) -> Family:
    if identity.quantization not in (SIXTEEN_BITS, QUANTO_INT8):
        raise UnsupportedFormat(
            f"{header.file} holds {identity.quantization} weights, which can't be loaded.",
            hint="Use a bf16, fp16 or quanto int8 version.",
        )
    family = next((family for family in FAMILIES if family.name == identity.family), None)
    if family is None:
        raise UnsupportedFormat(
            f"{header.file} is of no known model family.",
            hint=f"Its first tensor is {next(iter(header.tensors))!r}.",
        )
    if identity.role == "module":
        raise UnsupportedFormat(f"{header.file} is a module: it extends a model and is none itself.")
    if identity.config is None:
        raise CheckpointError(f"{header.file} lacks tensors without which the model's size can't be told.")
    return family


def empty_model(family: Family, config: dict[str, Any]) -> nn.Module:
    """The family's transformer on `meta`: names and shapes without memory."""
    model_class = getattr(diffusers, family.transformer_class)
    known = inspect.signature(model_class.__init__).parameters
    with init_empty_weights():
        return model_class(**{key: value for key, value in config.items() if key in known})  # type: ignore[no-any-return]


def _fp32_modules(model: nn.Module) -> tuple[str, ...]:
    return tuple(getattr(model, "_keep_in_fp32_modules", None) or ())


def check_names(header: Header, names: NameMap, model: nn.Module) -> None:
    """Compare the file's tensors with the model's. Raises TensorMismatch with the first ten and a likely cause."""
    expected = {name: tuple(parameter.shape) for name, parameter in model.state_dict().items()}
    given: dict[str, tuple[int, ...]] = {}
    unexpected = list(names.unknown)
    for stored, target in names.diffusers.items():
        if target.endswith((SCALE, *ACTIVATION_SCALES)):
            continue
        plain = target.removesuffix(DATA) + ".weight" if target.endswith(DATA) else target
        if plain in expected:
            given[plain] = header.tensors[stored].shape
        else:
            unexpected.append(stored)
    missing = sorted(set(expected) - set(given))
    missing += _missing_scales(names)
    unexpected += _stray(names)
    misshapen = [
        f"{name}: {list(shape)} in the file, {list(expected[name])} in the model"
        for name, shape in given.items()
        if shape != expected[name]
    ]
    misshapen += _bad_scales(header, names)
    if missing or unexpected or misshapen:
        parts = [
            _listed("missing", missing), _listed("not the model's", unexpected), _listed("of another shape", misshapen)
        ]  # fmt: skip
        cause = _cause(header, missing, unexpected)
        raise TensorMismatch(
            f"{header.file} does not hold this model: " + "; ".join(part for part in parts if part) + f". {cause}",
            missing=missing,
            unexpected=unexpected,
            misshapen=misshapen,
        )


def _missing_scales(names: NameMap) -> list[str]:
    present = set(names.diffusers.values())
    quantized = [target.removesuffix(DATA) for target in present if target.endswith(DATA)]
    return sorted(module + SCALE for module in quantized if module + SCALE not in present)


def _stray(names: NameMap) -> list[str]:
    """Scales of layers that aren't quantized, and tensors that fill what another fills already."""
    present = {target: stored for stored, target in names.diffusers.items()}
    stray = [stored for target, stored in present.items()
             if target.endswith(SCALE) and target.removesuffix(SCALE) + DATA not in present]  # fmt: skip
    stray += [stored for target, stored in present.items()
              if target.endswith(DATA) and target.removesuffix(DATA) + ".weight" in present]  # fmt: skip
    return stray + [stored for stored, target in names.diffusers.items() if present[target] != stored]


def _bad_scales(header: Header, names: NameMap) -> list[str]:
    """Quantized data that isn't int8, and scales that aren't one floating number for each row of it."""
    present = {target: header.tensors[stored] for stored, target in names.diffusers.items()}
    bad = []
    for target, data in present.items():
        scale = present.get(target.removesuffix(DATA) + SCALE) if target.endswith(DATA) else None
        if scale is None:
            continue
        if data.dtype != "I8" or scale.dtype not in ("BF16", "F16", "F32") or scale.elements != data.shape[0]:
            bad.append(f"{target}: {data.dtype} {list(data.shape)} with {scale.dtype} scales {list(scale.shape)}")
    return bad


def _listed(what: str, names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{len(names)} {what} ({', '.join(names[:_SHOWN])}{more})" if names else ""


def _cause(header: Header, missing: list[str], unexpected: list[str]) -> str:
    """The likely reason behind a mismatch."""
    everything = " ".join(unexpected)
    if any(part in everything for part in ("first_stage_model.", "vae.", "text_encoder", "cond_stage_model.")):
        return "It looks like an all-in-one file: extract its diffusion model first."
    if any(part in everything for part in ("lora_", ".lora.", ".diff")):
        return "It looks like a LoRA, or has one left in it."
    if "scale_weight" in everything or "scaled_fp8" in everything:
        return "Its fp8 scales can't be used."
    if missing and not unexpected:
        return "The file was cut or only partly converted."
    if len(missing) > len(header.tensors) // 2:
        return "Its names follow a layout this program does not know."
    return "It may belong to another version of the model."


class _Loader:
    """Turns stored tensors into the model's, one at a time."""

    def __init__(
        self,
        file: TensorFile,
        names: NameMap,
        family: Family,
        run: torch.dtype,
        fp32: tuple[str, ...],
        quantize: bool,
    ) -> None:
        self._file, self._names, self._family = file, names, family
        self._run, self._fp32, self._quantize = run, fp32, quantize
        self._stored = {target: stored for stored, target in names.diffusers.items()}

    def tensors(self) -> list[str]:
        """Stored names that become a parameter (scales go with their data)."""
        return [name for name in self._names.diffusers if not name.endswith((SCALE, *ACTIVATION_SCALES))]

    def target(self, stored: str) -> str:
        """The parameter a stored tensor fills."""
        name = self._names.diffusers[stored]
        return name.removesuffix(DATA) + ".weight" if name.endswith(DATA) else name

    def load(self, stored: str) -> torch.Tensor:
        """The parameter itself."""
        target = self._names.diffusers[stored]
        keep = any(part in target.split(".") for part in self._fp32)
        dtype = torch.float32 if keep else self._run
        tensor = self._file[stored]
        if target.endswith(DATA):
            module = target.removesuffix(DATA)
            scale = self._file[self._stored[module + SCALE]]
            self._check_scales(module, scale)
            return dequantize(tensor, scale, dtype) if keep else int8_tensor(tensor, scale, self._run)
        if not tensor.is_floating_point():
            raise UnsupportedFormat(f"{self._file.path}: {stored} is stored as {tensor.dtype}, without its scale.")
        if self._quantize and not keep and self._quantizable(stored):
            converted = int8_tensor(*quantize_tensor(tensor, self._run, stored), self._run)
        else:
            converted = tensor.to(dtype)
        if converted is not tensor:
            self._file.release(stored)  # so that the file's copy does not pile up beside the model's
        return converted

    def _check_scales(self, module: str, scale: torch.Tensor) -> None:
        """Raise where a layer's scales are damaged, or its activations are quantized too."""
        if not bool(torch.isfinite(scale).all()):
            raise CheckpointError(f"{self._file.path}: scales of {module} are NaN or infinite.", hint="Fetch it again.")
        for suffix in ACTIVATION_SCALES:
            stored = self._stored.get(module + suffix)
            if stored is not None and not bool((self._file[stored] == 1).all()):
                message = f"{self._file.path}: the activations of {module} are quantized too, which can't be run."
                raise UnsupportedFormat(message, hint="Use a version whose weights alone are quantized.")

    def _quantizable(self, stored: str) -> bool:
        module = self._names.original[stored].removesuffix(".weight")
        is_weight = self._names.original[stored].endswith(".weight")
        return is_weight and any(matches(module, pattern) for pattern in self._family.quantizable)


def int8_tensor(data: torch.Tensor, scale: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """torchao's weight-only int8 tensor from quanto's `data` [out, in] and `scale` [out, 1]."""
    rows = scale.to(dtype).reshape(-1, 1)
    return Int8Tensor(data, rows, [1, data.shape[1]], dtype)  # type: ignore[no-any-return]
