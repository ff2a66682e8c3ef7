"""Whether the tensors of a checkpoint and its modules are those of a model: names and shapes alone, nothing is read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from reeltune.checkpoints.keys import Places
from reeltune.checkpoints.source import Shapes, WeightSource
from reeltune.errors import TensorMismatch

_SHOWN = 10
_SECOND_TIME = " (a second time)"
_OTHER_PARTS = ("first_stage_model.", "vae.", "text_encoder", "cond_stage_model.")  # of an all-in-one file
_LORA_PARTS = ("lora_", ".lora.", ".diff")


def stacked_shape(shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """Shape of parameters of these shapes, stored with their rows one below the other."""
    if len(shapes) == 1:
        return shapes[0]
    return (sum(shape[0] for shape in shapes), *shapes[0][1:])


def hold_the_same(stored: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    """Whether tensors of two shapes have the same values in the same order: the shapes differ in sides of 1 only."""
    return [side for side in stored if side != 1] == [side for side in wanted if side != 1]


@dataclass
class _Mismatch:
    """What doesn't fit, by name; `scales`: the scales among what is missing."""

    missing: list[str]
    unexpected: list[str]
    misshapen: list[str]
    scales: frozenset[str]

    def __bool__(self) -> bool:
        return bool(self.missing or self.unexpected or self.misshapen)


def _stored_wrongly(sources: Sequence[WeightSource]) -> _Mismatch:
    """What is wrong with files whatever the model is: names that are no family's, and scales."""
    mismatch = _Mismatch([], [], [], frozenset())
    for source in sources:
        faults = source.faults()
        mismatch.missing += faults.missing
        mismatch.unexpected += [*source.unknown(), *faults.unexpected]
        mismatch.misshapen += faults.misshapen
    mismatch.scales = frozenset(mismatch.missing)
    return mismatch


def check_names(sources: Sequence[WeightSource], expected: Shapes) -> None:
    """Compare files with a model's parameters. Raises TensorMismatch with the first ten and a likely cause."""
    mismatch = _stored_wrongly(sources)
    filled: set[str] = set()
    for source in sources:
        for stored in source.parameters():
            _compare(source, stored, expected, filled, mismatch)
    mismatch.missing = sorted(set(expected) - filled) + mismatch.missing
    if mismatch:
        raise _error(sources, mismatch)


def _compare(source: WeightSource, stored: str, expected: Shapes, filled: set[str], mismatch: _Mismatch) -> None:
    """Compare a stored tensor with the parameters it fills, which are added to those that are `filled`."""
    places: Places = source.names.diffusers[stored]
    targets = [source.format.weight_name(name) for name in places.names]
    if any(name not in expected for name in targets):
        mismatch.unexpected.append(stored)
        return
    mismatch.unexpected += [stored + _SECOND_TIME for name in targets if name in filled]
    filled.update(targets)
    shape = source.weight_shape(stored)
    wanted = stacked_shape([expected[name] for name in targets])
    if not hold_the_same(shape, wanted):
        mismatch.misshapen.append(f"{targets[0]}: {list(shape)} in the file, {list(wanted)} in the model")


def check_storage(source: WeightSource) -> None:
    """What can be told of a file that is no whole model: its own names, and its scales. Raises TensorMismatch."""
    mismatch = _stored_wrongly([source])
    if mismatch:
        raise _error([source], mismatch)


def _error(sources: Sequence[WeightSource], mismatch: _Mismatch) -> TensorMismatch:
    parts = [
        _listed("missing", mismatch.missing),
        _listed("not the model's", mismatch.unexpected),
        _listed("of another shape", mismatch.misshapen),
    ]
    differences = "; ".join(part for part in parts if part)
    files = " and ".join(str(source.header.file) for source in sources)
    hold = "does not hold" if len(sources) == 1 else "do not make"
    return TensorMismatch(
        f"{files} {hold} this model: {differences}. {_cause(sources, mismatch)}",
        missing=mismatch.missing,
        unexpected=mismatch.unexpected,
        misshapen=mismatch.misshapen,
    )


def _listed(what: str, names: Iterable[str]) -> str:
    names = list(names)
    if not names:
        return ""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{len(names)} {what} ({', '.join(names[:_SHOWN])}{more})"


def _cause(sources: Sequence[WeightSource], mismatch: _Mismatch) -> str:
    """The likely reason behind a mismatch."""
    missing, unexpected = mismatch.missing, mismatch.unexpected
    names = " ".join(unexpected)
    if missing and mismatch.scales.issuperset(missing):
        return "Its weights are stored in units of these scales, and make noise without them: download it again."
    if any(part in names for part in _OTHER_PARTS):
        return "It looks like an all-in-one file: extract its diffusion model first."
    if any(part in names for part in _LORA_PARTS):
        return "It looks like a LoRA, or has one left in it."
    if len(sources) > 1 and unexpected and all(name.endswith(_SECOND_TIME) for name in unexpected):
        return "A module is given twice, or is part of the model already."
    if len(sources) > 1 and mismatch.misshapen:
        return "The module was made for a model of another size."
    if missing and not unexpected:
        return "The file was cut or only partly converted."
    if len(missing) > sum(len(source.header.tensors) for source in sources) // 2:
        return "Its names follow a layout this program does not know."
    return "It may belong to another version of the model."
