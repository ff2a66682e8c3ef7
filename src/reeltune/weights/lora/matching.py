"""A whole LoRA file matched to a checkpoint: its edits, and what of it was applied."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from reeltune.errors import CheckpointError, LoraMismatch, UnsupportedFormat
from reeltune.weights.edits import Edit
from reeltune.weights.lora.adapter import Adapter, read_adapter
from reeltune.weights.lora.dialects import LORA_PARTS, Part, refused, replaces, take_apart
from reeltune.weights.lora.names import Located, foreign, locate
from reeltune.weights.lora.reading import ModuleParts, Reader, Unfit
from reeltune.weights.lora.targets import Targets
from reeltune.weights.tensors import TensorFile

_MOST_WEIGHT = 1000.0
_SHOWN = 5
_PREFIXES = re.compile(
    r"^(?:base_model\.model\.|model\.diffusion_model\.|diffusion_model\.|transformer\.|lora_unet_|lora_transformer_)+"
)
_LOW_NOISE = re.compile(r"(?<![a-z])low[_-]?noise|(?<=[_-])low(?=[_.-])", re.IGNORECASE)


@dataclass(frozen=True)
class Applied:
    """A LoRA that was matched: `modules` of `total` in the file fit; `left` names what doesn't, `notes` say more."""

    name: str
    weight: float
    modules: int
    total: int
    left: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        more = f" and {len(self.left) - _SHOWN} more" if len(self.left) > _SHOWN else ""
        left = f"; not of this model: {', '.join(self.left[:_SHOWN])}{more}" if self.left else ""
        notes = "".join(f"; {note}" for note in self.notes)
        return f"{self.name} × {self.weight:g}: applied {self.modules} of {self.total} modules{left}{notes}."


@dataclass(frozen=True)
class _Module:
    """A module of the file; `located` is None where the family has none of that name."""

    raw: str
    keys: Mapping[Part, str]
    located: Located | None


def second_of_two(path: Path) -> bool:
    """Whether a checkpoint's name says that it is the second of two transformers, the one for low noise."""
    return bool(_LOW_NOISE.search(path.name))


def match(
    path: Path, weight: float, targets: Targets, *, second: bool = False
) -> tuple[dict[str, list[Edit]], Applied]:
    """The edits a LoRA makes, by stored name.

    `second`: of a file for both transformers, the part for the second one counts. Raises LoraMismatch where nothing
    of it fits, UnsupportedFormat or CheckpointError.
    """
    if not abs(weight) <= _MOST_WEIGHT:
        raise CheckpointError(f"Invalid weight {weight} for {path.name}.", hint="Give a number, such as 0.8.")
    file = TensorFile(path)
    modules = _modules(file, targets)
    modules, notes = _half(modules, second)
    adapter = read_adapter(path, file.header.metadata, _ranks(file, modules))
    others = foreign((module.located, module.keys) for module in modules if module.located)
    edits: dict[str, list[Edit]] = {}
    left: list[str] = []
    names = _Names(path)
    applied = 0
    for module in modules:
        located = module.located
        if located is None or located.prefix in others:
            left.append(_bare(module.raw))
            continue
        names.claim(located, module.keys)
        parts = ModuleParts(module.raw, located.name, module.keys)
        edits_of_module, unfit = Reader(file, parts, weight, adapter).edits(targets)
        if edits_of_module:
            applied += 1
        left += _labels(located.name, unfit, whole=not edits_of_module)
        for stored, edit in edits_of_module:
            edits.setdefault(stored, []).append(edit)
    report = Applied(path.name, weight, applied, len(modules), tuple(left), (*notes, *_about(adapter)))
    if not edits:
        raise _nothing_fits(report)
    return edits, report


def _modules(file: TensorFile, targets: Targets) -> list[_Module]:
    """The file's modules. Raises UnsupportedFormat for other methods and for checkpoints, CheckpointError."""
    keys_of: dict[str, dict[Part, str]] = {}
    is_lora = False
    for key in file:
        if method := refused(key):
            raise UnsupportedFormat(
                f"{file.path.name} is not a plain LoRA but {method}: it holds {key[:100]}.", hint="It can't be merged."
            )
        name = take_apart(key)
        part = name.part
        if part == Part.UNKNOWN and locate(name.module, targets.family):
            part = Part.SET  # a parameter that is no module's, such as blocks.0.modulation
        is_lora |= part in LORA_PARTS or replaces(key)
        parts = keys_of.setdefault(name.module, {})
        if part in parts:
            raise CheckpointError(f"{file.path.name} holds a part twice: {parts[part]} and {key}.")
        parts[part] = key
    modules = [_Module(raw, keys, _located(raw, keys, targets)) for raw, keys in keys_of.items()]
    if not is_lora and any(module.located for module in modules):
        raise UnsupportedFormat(
            f"{file.path.name} holds whole weights of a model, and no LoRA.",
            hint="List it under URLs or modules of a definition instead.",
        )
    return modules


def _located(raw: str, keys: Mapping[Part, str], targets: Targets) -> Located | None:
    """Where a module belongs; None for one of no known name, and for an alpha without anything it counts for."""
    if keys.keys() == {Part.ALPHA}:
        return None
    return locate(raw, targets.family)


def _half(modules: list[_Module], second: bool) -> tuple[list[_Module], tuple[str, ...]]:
    """Of a file for both transformers, the modules for one."""
    firsts = [module for module in modules if module.located is None or not module.located.second]
    seconds = [module for module in modules if module.located is not None and module.located.second]
    if not seconds or not any(module.located for module in firsts):
        return modules, ()
    if second:
        return seconds, (f"these are for the second transformer, {len(firsts)} others for the first",)
    return firsts, (f"these are for the first transformer, {len(seconds)} others for the second",)


def _ranks(file: TensorFile, modules: Sequence[_Module]) -> set[int]:
    """Ranks of the pairs of matrices."""
    shapes = [file.header.tensors[module.keys[Part.DOWN]].shape for module in modules if Part.DOWN in module.keys]
    return {shape[0] for shape in shapes if shape}


class _Names:
    """Notices parts that are given twice under two prefixes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._keys: dict[tuple[str, Part], str] = {}

    def claim(self, located: Located, keys: Mapping[Part, str]) -> None:
        """Raise CheckpointError where the file has held one of the parts before."""
        for part, key in keys.items():
            before = self._keys.setdefault((located.name, part), key)
            if before != key:
                raise CheckpointError(f"{self._path.name} holds a part twice: {before} and {key}.")


def _labels(name: str, unfit: Sequence[Unfit], *, whole: bool) -> list[str]:
    """How a report names what doesn't fit: the module where nothing of it does, else its parts."""
    if whole and unfit:
        detail = next((part.detail for part in unfit if part.detail), "")
        return [f"{name} {detail}".strip()]
    return [f"{name}.{part.label} {part.detail}".strip() if part.label else f"{name} {part.detail}" for part in unfit]


def _bare(raw: str) -> str:
    """A module's name without what most writers put before it."""
    return _PREFIXES.sub("", raw)[:100] or raw[:100]


def _about(adapter: Adapter) -> tuple[str, ...]:
    notes = adapter.notes
    if adapter.source.startswith("adapter_config") and adapter.alpha is not None:
        notes = (*notes, f"alpha {adapter.alpha:g} is that of {adapter.source}")
    return notes


def _nothing_fits(report: Applied) -> LoraMismatch:
    if not report.total:
        return LoraMismatch(f"{report.name} holds no LoRA.", hint="It is another kind of file.")
    sized = next((text for text in report.left if ", here [" in text), "")
    if sized:
        message = f"{report.name} was made for a model of another size: {sized}."
        return LoraMismatch(message, hint="Use the LoRA of this model.")
    return LoraMismatch(
        f"None of the {report.total} modules in {report.name} is one of this model's, such as {report.left[0]}.",
        hint="It was made for another model, or is another kind of file.",
    )
