"""Which modules of a LoRA file fit a model, by names and shapes: the same for merging, running and reporting."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from reeltune.checkpoints.contents import Header
from reeltune.checkpoints.loras.adapter import Adapter, read_adapter
from reeltune.checkpoints.loras.dialects import LORA_PARTS, Part, refused, replaces, take_apart
from reeltune.checkpoints.loras.names import Located, foreign, locate
from reeltune.checkpoints.loras.shapes import DOWNLOAD_AGAIN, DoesNotFit, ModuleShapes, check_shape, has_matrices
from reeltune.checkpoints.loras.targets import Place, Targets
from reeltune.errors import CheckpointError, LoraMismatch, UnsupportedFormat
from reeltune.families import FAMILIES, Family

_SHOWN = 5
_OTHER_SHAPE = ", here ["  # in the message of DoesNotFit
_PREFIXES = re.compile(
    r"^(?:base_model\.model\.|model\.diffusion_model\.|diffusion_model\.|transformer\.|lora_unet_|lora_transformer_)+"
)
_ADDED = ((Part.DIFF, ".weight"), (Part.DIFF_BIAS, ".bias"), (Part.UP_BIAS, ".bias"))
_REPLACED = ((Part.SET, ".weight"), (Part.SET_BIAS, ".bias"))


@dataclass(frozen=True)
class LoraReport:
    """What of a LoRA file is applied: `modules` of its `total`. `left`: what doesn't fit. `notes`: further remarks."""

    name: str
    modules: int
    total: int
    left: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        sized = [label for label in self.left if _is_sized(label)]
        missing = [label for label in self.left if not _is_sized(label)]
        parts = [
            *([f"the model has no {_first(missing)}"] if missing else []),
            *([f"of another size: {_first(sized)}"] if sized else []),
            *self.notes,
        ]
        return f"applied {self.modules} of {self.total} modules{''.join(f'; {part}' for part in parts)}."


def _is_sized(label: str) -> bool:
    """Whether a label names a part that the model has in another shape."""
    return _OTHER_SHAPE in label


def _first(labels: Sequence[str]) -> str:
    """The first few labels, and how many more there are."""
    more = f" and {len(labels) - _SHOWN} more" if len(labels) > _SHOWN else ""
    return f"{', '.join(labels[:_SHOWN])}{more}"


@dataclass(frozen=True)
class Change:
    """A parameter that a module changes.

    `part`: what changes it; Part.UP stands for the matrices of all kinds. `places`: where the parameter is stored, and
    `shape` its rows and columns.
    """

    part: Part
    places: tuple[Place, ...]
    shape: tuple[int, int]


@dataclass(frozen=True)
class FittingModule:
    """A module of a LoRA file that changes the model.

    `raw`: its name in the file. `name`: the family's name of it. `keys`: the key of each of its parts.
    """

    raw: str
    name: str
    keys: Mapping[Part, str]
    changes: tuple[Change, ...]


@dataclass(frozen=True)
class LoraFit:
    """The modules of a LoRA file that fit a model, and what the file says about its strength."""

    modules: tuple[FittingModule, ...]
    adapter: Adapter
    report: LoraReport


@dataclass(frozen=True)
class LoraModule:
    """A module in a LoRA file. `located`: the family's module; None if the family has no such module."""

    raw: str
    keys: Mapping[Part, str]
    located: Located | None


def fit_lora(path: Path, header: Header, targets: Targets, *, second: bool = False) -> LoraFit:
    """Compare the header of a LoRA file at `path` with a model.

    `second`: whether the model is the second of two transformers; some files contain modules for both. Raises
    LoraMismatch if nothing fits or the file is for another family, UnsupportedFormat for other kinds of files,
    CheckpointError for damaged ones.
    """
    modules, notes = _for_transformer(lora_modules(header, path.name, targets.family), second)
    adapter = read_adapter(path, header.metadata, _ranks(header, modules))
    others = foreign((module.located, module.keys) for module in modules if module.located)
    claims = _Claims(path.name)
    fitting = []
    left: list[str] = []
    for module in modules:
        located = module.located
        if located is None or located.prefix in others:
            left.append(_without_prefix(module.raw))
            continue
        claims.add(located, module.keys)
        changes, labels = _changes(module, located.name, header, targets, f"{path.name}: {located.name or module.raw}")
        left += labels
        if changes:
            fitting.append(FittingModule(module.raw, located.name, module.keys, changes))
    report = LoraReport(path.name, len(fitting), len(modules), tuple(left), (*notes, *_about(adapter)))
    if not fitting:
        raise _nothing_fits(report)
    _refuse_another_family(path.name, modules, targets.family)
    return LoraFit(tuple(fitting), adapter, report)


def _refuse_another_family(name: str, modules: Sequence[LoraModule], family: Family) -> None:
    """Raise LoraMismatch for a file with modules that this family doesn't have, if another family has all of them.

    Families may share most names and sizes, as LTX-2 and LTX Video do.
    """
    if all(module.located for module in modules):
        return
    for other in FAMILIES:
        if other is not family and all(locate(module.raw, other) for module in modules):
            message = f"{name} is a LoRA for {other.label}, and the model is {family.label}."
            raise LoraMismatch(message, hint="Use it with a model that it was made for.")


def lora_modules(header: Header, name: str, family: Family) -> list[LoraModule]:
    """The modules of a LoRA file with this name. Raises UnsupportedFormat for other kinds of files, CheckpointError."""
    keys_of: dict[str, dict[Part, str]] = {}
    is_lora = False
    for key in header.tensors:
        method = refused(key)
        if method:
            message = f"{name} is not a plain LoRA but {method}: it contains {key[:100]}."
            raise UnsupportedFormat(message, hint="It can't be used.")
        lora_key = take_apart(key)
        part = lora_key.part
        if part == Part.UNKNOWN and locate(lora_key.module, family):
            part = Part.SET  # a parameter that belongs to no module, such as blocks.0.modulation
        is_lora |= part in LORA_PARTS or replaces(key)
        parts = keys_of.setdefault(lora_key.module, {})
        if part in parts:
            raise CheckpointError(f"{name} contains a part twice: {parts[part]} and {key}.")
        parts[part] = key
    modules = [LoraModule(raw, keys, _located(raw, keys, family)) for raw, keys in keys_of.items()]
    if not is_lora and any(module.located for module in modules):
        raise UnsupportedFormat(
            f"{name} contains whole weights of a model, and is no LoRA.",
            hint="List it under URLs or modules of a definition instead.",
        )
    return modules


def changes_whole_weights(header: Header) -> bool:
    """Whether a LoRA replaces weights or rescales them (DoRA), so that it depends on LoRAs that were merged before."""
    parts = {take_apart(key).part for key in header.tensors}
    return not parts.isdisjoint({Part.MAGNITUDE, Part.SET, Part.SET_BIAS})


def _located(raw: str, keys: Mapping[Part, str], family: Family) -> Located | None:
    """The family's module; None for an unknown name, and for an alpha without anything that it scales."""
    if keys.keys() == {Part.ALPHA}:
        return None
    return locate(raw, family)


def _for_transformer(modules: list[LoraModule], second: bool) -> tuple[list[LoraModule], tuple[str, ...]]:
    """The modules for one of two transformers, and a note if the file contains modules for both."""
    firsts = [module for module in modules if module.located is None or not module.located.second]
    seconds = [module for module in modules if module.located is not None and module.located.second]
    if not seconds or not any(module.located for module in firsts):
        return modules, ()
    if second:
        return seconds, (f"these are for the second transformer, {len(firsts)} others for the first",)
    return firsts, (f"these are for the first transformer, {len(seconds)} others for the second",)


def _ranks(header: Header, modules: Sequence[LoraModule]) -> set[int]:
    """The ranks of the pairs of matrices."""
    shapes = [header.tensors[module.keys[Part.DOWN]].shape for module in modules if Part.DOWN in module.keys]
    return {shape[0] for shape in shapes if shape}


class _Claims:
    """Notices parts that a file contains twice under two prefixes."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._keys: dict[tuple[str, Part], str] = {}

    def add(self, located: Located, keys: Mapping[Part, str]) -> None:
        """Raise CheckpointError if one of the parts was added before."""
        for part, key in keys.items():
            before = self._keys.setdefault((located.name, part), key)
            if before != key:
                raise CheckpointError(f"{self._name} contains a part twice: {before} and {key}.")


def _changes(
    module: LoraModule, name: str, header: Header, targets: Targets, place: str
) -> tuple[tuple[Change, ...], list[str]]:
    """The parameters that a module changes, and labels of its parts that don't fit."""
    shapes = ModuleShapes({part: header.tensors[key].shape for part, key in module.keys.items()}, place)
    changes = []
    misfits: list[tuple[str, str]] = []  # the part, empty for the matrices, and its shape if that is wrong
    for part, ending in _planned(module.keys, place):
        label = "" if part is Part.UP else part.value
        found = targets.find(name + ending)
        if not found and part in (Part.DIFF, Part.SET):  # a parameter that belongs to no module
            found = targets.find(name)
        if not found:
            misfits.append((label, ""))
            continue
        shape = targets.shape(found)
        try:
            _check(part, module.keys, shapes, shape)
        except DoesNotFit as error:
            misfits.append((label, str(error)))
            continue
        changes.append(Change(part, tuple(found), shape))
    return tuple(changes), _labels(name, misfits, whole=not changes)


def _planned(keys: Mapping[Part, str], place: str) -> list[tuple[Part, str]]:
    """What changes a parameter in a module, each with the ending of the parameter's name."""
    planned = []
    if has_matrices(keys):
        planned.append((Part.UP, ".weight"))
    elif Part.MAGNITUDE in keys:
        raise CheckpointError(f"{place} has a DoRA magnitude without its matrices.", hint=DOWNLOAD_AGAIN)
    planned += [(part, ending) for part, ending in (*_ADDED, *_REPLACED) if part in keys]
    return planned


def _check(part: Part, keys: Mapping[Part, str], shapes: ModuleShapes, shape: tuple[int, int]) -> None:
    """Raise DoesNotFit if a part has another shape than the parameter."""
    if part is not Part.UP:
        check_shape(shapes.matrix(part), shape)
        return
    shapes.check(shape)
    if Part.MAGNITUDE in keys:
        shapes.check_magnitude(shape)


def _labels(name: str, misfits: Sequence[tuple[str, str]], *, whole: bool) -> list[str]:
    """How a report names what doesn't fit: the module if nothing of it does, else its parts."""
    if whole and misfits:
        detail = next((detail for _, detail in misfits if detail), "")
        return [f"{name} {detail}".strip()]
    return [f"{name}.{label} {detail}".strip() if label else f"{name} {detail}" for label, detail in misfits]


def _without_prefix(raw: str) -> str:
    """A module's name without the prefixes of most writers."""
    return _PREFIXES.sub("", raw)[:100] or raw[:100]


def _about(adapter: Adapter) -> tuple[str, ...]:
    notes = adapter.notes
    if adapter.source.startswith("adapter_config") and adapter.alpha is not None:
        notes = (*notes, f"alpha {adapter.alpha:g} is that of {adapter.source}")
    return notes


def _nothing_fits(report: LoraReport) -> LoraMismatch:
    if not report.total:
        return LoraMismatch(f"{report.name} contains no LoRA.", hint="It is another kind of file.")
    sized = next((text for text in report.left if _is_sized(text)), "")
    if sized:
        message = f"{report.name} was made for a model of another size: {sized}."
        return LoraMismatch(message, hint="Use the LoRA of this model.")
    hint = "It was made for another model, or is another kind of file."
    if report.total == 1:
        return LoraMismatch(
            f"The only module in {report.name} doesn't belong to this model: {report.left[0]}.", hint=hint
        )
    return LoraMismatch(
        f"None of the {report.total} modules in {report.name} belongs to this model, such as {report.left[0]}.",
        hint=hint,
    )
