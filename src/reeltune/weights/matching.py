"""Whether the tensors of a checkpoint and its modules are those of a model: names and shapes alone, nothing is read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from reeltune.checkpoints import fp8
from reeltune.checkpoints.header import Header
from reeltune.checkpoints.identify import Identity
from reeltune.checkpoints.keys import NameMap, Places
from reeltune.checkpoints.names import FP8_SCALED, read_name
from reeltune.checkpoints.quanto import ACTIVATION_SCALES, DATA, SCALE
from reeltune.errors import TensorMismatch

_SHOWN = 10
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Source:
    """A file that fills a model, or part of it: its header, what it is, and its names sorted out."""

    header: Header
    identity: Identity
    names: NameMap

    def parameters(self) -> list[str]:
        """Stored names that become parameters (scales go with their data)."""
        beside = (SCALE, *ACTIVATION_SCALES, *(fp8.EXTRAS if fp8.is_fp8(self.identity.quantization) else ()))
        return [name for name in self.names.diffusers if not name.endswith(beside)]

    def unknown(self) -> list[str]:
        """Stored names that are nothing of the model's, nor marks of how it is stored."""
        marks = fp8.EXTRAS if fp8.is_fp8(self.identity.quantization) else ()
        return [name for name in self.names.unknown if not (marks and name.endswith(marks))]

    @cached_property
    def fp8_scales(self) -> Mapping[str, str]:
        """The scale of each scaled fp8 weight, by its name."""
        return fp8.scale_names(self.names.diffusers) if fp8.is_fp8(self.identity.quantization) else {}


def parameter_name(target: str) -> str:
    """The parameter that a place stands for: quantized data count as the weight."""
    return target.removesuffix(DATA) + ".weight" if target.endswith(DATA) else target


def stacked_shape(places: Places, expected: Shapes) -> tuple[int, ...]:
    """Shape of what is stored for parameters of the `expected` shapes: their rows one below the other."""
    shapes = [expected[parameter_name(name)] for name in places.names]
    return shapes[0] if len(shapes) == 1 else (sum(shape[0] for shape in shapes), *shapes[0][1:])


def check_names(sources: Sequence[Source], expected: Shapes) -> None:
    """Compare files with a model's parameters. Raises TensorMismatch with the first ten and a likely cause."""
    given: dict[str, str] = {}
    missing: list[str] = []
    unexpected: list[str] = []
    misshapen: list[str] = []
    for source in sources:
        unexpected += [*source.unknown(), *_stray(source)]
        missing += _missing_scales(source)
        misshapen += _bad_scales(source)
        for stored in source.parameters():
            places = source.names.diffusers[stored]
            targets = [parameter_name(name) for name in places.names]
            if any(name not in expected for name in targets):
                unexpected.append(stored)
                continue
            unexpected += [f"{stored} (a second time)" for name in targets if name in given]
            given |= dict.fromkeys(targets, stored)
            shape, wanted = source.header.tensors[stored].shape, stacked_shape(places, expected)
            if shape != wanted:
                misshapen.append(f"{targets[0]}: {list(shape)} in the file, {list(wanted)} in the model")
    missing = sorted(set(expected) - set(given)) + missing
    if missing or unexpected or misshapen:
        _refuse(sources, missing, unexpected, misshapen)


def check_storage(source: Source) -> None:
    """What can be told of a file that is no whole model: its own names, and its scales. Raises TensorMismatch."""
    unexpected, missing, misshapen = [*source.unknown(), *_stray(source)], _missing_scales(source), _bad_scales(source)
    if missing or unexpected or misshapen:
        _refuse([source], missing, unexpected, misshapen)


def _refuse(sources: Sequence[Source], missing: list[str], unexpected: list[str], misshapen: list[str]) -> None:
    parts = [
        _listed("missing", missing), _listed("not the model's", unexpected), _listed("of another shape", misshapen)
    ]  # fmt: skip
    files = " and ".join(str(source.header.file) for source in sources)
    hold = "does not hold" if len(sources) == 1 else "do not make"
    cause = _cause(sources, missing, unexpected, misshapen)
    raise TensorMismatch(
        f"{files} {hold} this model: " + "; ".join(part for part in parts if part) + f". {cause}",
        missing=missing,
        unexpected=unexpected,
        misshapen=misshapen,
    )


def _missing_scales(source: Source) -> list[str]:
    """Scales that aren't there though their weights are: without them the numbers mean nothing."""
    stored = source.names.diffusers
    quanto = sorted(
        name.removesuffix(DATA) + SCALE
        for name in stored
        if name.endswith(DATA) and name.removesuffix(DATA) + SCALE not in stored
    )
    return quanto + _missing_fp8_scales(source)


def _missing_fp8_scales(source: Source) -> list[str]:
    """Scales lacking in a scaled fp8 file: one that holds a scale or a mark of them, or is named so."""
    scaled = FP8_SCALED in (source.identity.quantization, read_name(source.header.file).quantization)
    if not scaled or not fp8.is_fp8(source.identity.quantization):
        return []
    tensors, scales = source.header.tensors, source.fp8_scales
    return sorted(
        name.removesuffix(".weight") + fp8.WEIGHT_SCALES[0]
        for name in source.names.diffusers
        if tensors[name].dtype in fp8.DTYPES and fp8.is_matrix(name, tensors[name].shape) and name not in scales
    )


def _stray(source: Source) -> list[str]:
    """Scales of layers that aren't quantized, and data of layers that are there unquantized too."""
    stored = source.names.diffusers
    stray = [name for name in stored if name.endswith(SCALE) and name.removesuffix(SCALE) + DATA not in stored]
    stray += [name for name in stored if name.endswith(DATA) and name.removesuffix(DATA) + ".weight" in stored]
    return stray + [scale for weight, scale in source.fp8_scales.items() if weight not in stored]


def _bad_scales(source: Source) -> list[str]:
    """Quantized data that isn't int8, and scales that aren't one floating number for each row of it."""
    tensors, bad = source.header.tensors, []
    for name in source.names.diffusers:
        scale = tensors.get(name.removesuffix(DATA) + SCALE) if name.endswith(DATA) else None
        if scale is None:
            continue
        data = tensors[name]
        if (
            not data.shape
            or data.dtype != "I8"
            or scale.dtype not in ("BF16", "F16", "F32")
            or scale.elements != data.shape[0]
        ):
            bad.append(f"{name}: {data.dtype} {list(data.shape)} with {scale.dtype} scales {list(scale.shape)}")
    for weight, name in source.fp8_scales.items():
        factor, scaled = tensors[name], tensors.get(weight)
        rows = scaled.shape[0] if scaled and scaled.shape else 1
        if factor.dtype not in ("BF16", "F16", "F32") or factor.elements not in (1, rows):
            bad.append(f"{name}: {factor.dtype} scales {list(factor.shape)} for {rows} rows")
    return bad


def _listed(what: str, names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{len(names)} {what} ({', '.join(names[:_SHOWN])}{more})" if names else ""


def _cause(sources: Sequence[Source], missing: list[str], unexpected: list[str], misshapen: list[str]) -> str:
    """The likely reason behind a mismatch."""
    everything = " ".join(unexpected)
    if missing and all(name.endswith((SCALE, *fp8.WEIGHT_SCALES)) for name in missing):
        return "Its weights are stored in units of these scales, and make noise without them: download it again."
    if any(part in everything for part in ("first_stage_model.", "vae.", "text_encoder", "cond_stage_model.")):
        return "It looks like an all-in-one file: extract its diffusion model first."
    if any(part in everything for part in ("lora_", ".lora.", ".diff")):
        return "It looks like a LoRA, or has one left in it."
    if len(sources) > 1 and unexpected and all(name.endswith("(a second time)") for name in unexpected):
        return "A module is given twice, or is part of the model already."
    if len(sources) > 1 and misshapen:
        return "The module was made for a model of another size."
    if missing and not unexpected:
        return "The file was cut or only partly converted."
    if len(missing) > sum(len(source.header.tensors) for source in sources) // 2:
        return "Its names follow a layout this program does not know."
    return "It may belong to another version of the model."
