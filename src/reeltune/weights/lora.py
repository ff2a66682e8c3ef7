"""LoRA files of every dialect, matched to the stored tensors that they change.

    blocks.0.self_attn.q.lora_A.weight / lora_B        PEFT and diffusers, original names or theirs
    blocks.0.self_attn.q.lora_down.weight / lora_up    with `.alpha`
    lora_unet_blocks_0_self_attn_q.lora_down.weight    kohya: dots became underscores
    blocks.0.norm3.diff, .diff_b, blocks.0.diff_m      differences of whole weights, biases, modulations

each behind `diffusion_model.`, `transformer.`, `base_model.model.` or nothing. A pair adds
weight * alpha / rank * up @ down (alpha = rank where there is none).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from reeltune.checkpoints.keys import Places, places
from reeltune.errors import CheckpointError, LoraMismatch, UnsupportedFormat
from reeltune.families import Family
from reeltune.weights.edits import Difference, Edit, LowRank, Segment
from reeltune.weights.matching import Shapes, Source
from reeltune.weights.tensors import TensorFile

_PREFIXES = ("base_model.model.", "model.diffusion_model.", "diffusion_model.", "transformer.", "unet.")
_KOHYA = ("lora_unet_", "lora_transformer_")
_KINDS = (
    ("down", re.compile(r"[._]?lora(_A|_down|\.down)(\.default)?(\.weight)?$")),
    ("up", re.compile(r"[._]?lora(_B|_up|\.up)(\.default)?(\.weight)?$")),
    ("alpha", re.compile(r"\.alpha$")),
    ("diff", re.compile(r"\.diff$")),
    ("diff_b", re.compile(r"\.diff_b$")),
    ("diff_m", re.compile(r"\.diff_m$")),
)
_ENDINGS = {"diff": ".weight", "diff_b": ".bias", "diff_m": ".modulation"}
_OTHERS = re.compile(r"\.(dora_scale|lora_magnitude_vector.*|hada_.*|lokr_.*|oft_.*|lora_mid.*)$")
_SHOWN = 5


@dataclass(frozen=True)
class Applied:
    """A LoRA that was matched: `modules` of `total` in the file fit; `left` names those that don't."""

    name: str
    weight: float
    modules: int
    total: int
    left: tuple[str, ...]

    def __str__(self) -> str:
        more = ", …" if len(self.left) > _SHOWN else ""
        left = f"; not of this model: {', '.join(self.left[:_SHOWN])}{more}" if self.left else ""
        return f"{self.name} × {self.weight:g}: applied {self.modules} of {self.total} modules{left}."


@dataclass
class _Module:
    """What a file holds for one module."""

    parts: dict[str, str] = field(default_factory=dict)  # kind -> key


class Targets:
    """The stored tensors of a checkpoint under every name that a LoRA may call them by.

    `expected`: shapes of the model's parameters in diffusers' names, where they are known; rows that the original
    keeps stacked are told apart by them.
    """

    def __init__(self, source: Source, family: Family, expected: Shapes) -> None:
        self._source, self._family, self._expected = source, family, expected
        self._places: dict[str, list[tuple[str, tuple[Segment, ...]]]] = {}
        for stored in source.parameters():
            if source.names.layout == "original":
                self._add_original(stored)
            else:
                self._add_diffusers(stored)
        self._underscored = {name.replace(".", "_"): name for name in self._places}

    def find(self, name: str) -> list[tuple[str, tuple[Segment, ...]]]:
        """Stored tensors that a parameter's name stands for, with the rows of it that each takes."""
        return self._places.get(name) or self._places.get(self._underscored.get(name.replace(".", "_"), ""), [])

    def _add_original(self, stored: str) -> None:
        """A tensor of the original layout: its own name, and diffusers' for the rows it holds stacked."""
        rows, found = self._rows_of(stored), self._source.names.diffusers[stored]
        self._places[self._source.names.original[stored]] = [(stored, (Segment(0, 0, rows),))]
        offset = 0
        for name in found.names:
            count = rows if len(found.names) == 1 else _rows(self._expected.get(name, (0,)))
            part = _halves(rows) if found.swapped else (Segment(0, offset, count),)
            self._places.setdefault(name, [(stored, part)])
            offset += count

    def _add_diffusers(self, stored: str) -> None:
        """A tensor of diffusers' layout: its own name, and its rows of what the original stacks."""
        rows, names = self._rows_of(stored), self._source.names
        own, original = names.diffusers[stored].names[0], names.original[stored]
        stack = places(original, self._family, "original") or Places((own,))
        before = stack.names[: stack.names.index(own)]
        offset = sum(self._rows_of(names.prefix + name) for name in before)
        part = _halves(rows) if stack.swapped else (Segment(offset, 0, rows),)
        self._places.setdefault(original, []).append((stored, part))
        self._places[own] = [(stored, (Segment(0, 0, rows),))]

    def _rows_of(self, stored: str) -> int:
        return _rows(self._source.header.tensors[stored].shape)


def match(path: Path, weight: float, targets: Targets, source: Source) -> tuple[dict[str, list[Edit]], Applied]:
    """The edits a LoRA makes, by stored name. Raises LoraMismatch, UnsupportedFormat or CheckpointError."""
    if not math.isfinite(weight):
        raise CheckpointError(f"{weight} is no weight of {path.name}.", hint="Give a number, such as 0.8.")
    file = TensorFile(path)
    edits: dict[str, list[Edit]] = {}
    left, modules = [], _modules(file)
    for name, module in modules.items():
        found = list(_edits(file, name, module.parts, weight, targets, source))
        if not found:
            left.append(name)
        for stored, edit in found:
            edits.setdefault(stored, []).append(edit)
    applied = Applied(path.name, weight, len(modules) - len(left), len(modules), tuple(left))
    if not edits:
        raise LoraMismatch(
            f"None of the {len(modules)} modules in {path.name} is one of this model's, such as {left[0]}."
            if modules else f"{path.name} holds no LoRA.",
            hint="It was made for another model, or is another kind of file.",
        )  # fmt: skip
    return edits, applied


def _modules(file: TensorFile) -> dict[str, _Module]:
    """What the file holds, by module. Raises UnsupportedFormat for what can't be merged as a pair of matrices."""
    found: dict[str, _Module] = {}
    for key in file:
        if _OTHERS.search(key):
            raise UnsupportedFormat(
                f"{file.path.name} is no plain LoRA: it holds {key}.", hint="DoRA, LoHa, LoKr and OFT can't be merged."
            )
        kind, module = next(((kind, key[: hit.start()]) for kind, row in _KINDS if (hit := row.search(key))), ("", key))
        found.setdefault(_bare(module), _Module()).parts[kind] = key
    return found


def _bare(module: str) -> str:
    """A module's name without what trainers put before it."""
    for prefix in _KOHYA:
        module = module.removeprefix(prefix)
    while (prefix := next((row for row in _PREFIXES if module.startswith(row)), "")) and module != prefix:
        module = module.removeprefix(prefix)
    return module


def _edits(
    file: TensorFile, name: str, parts: Mapping[str, str], weight: float, targets: Targets, source: Source
) -> Iterator[tuple[str, Edit]]:
    pair = "up" in parts, "down" in parts
    if any(pair) and not all(pair):
        raise CheckpointError(f"{file.path.name}: {name} has only one half of its pair.", hint="Fetch it again.")
    if all(pair):
        up, down = (_matrix(file[parts[kind]]) for kind in ("up", "down"))
        rank = down.shape[0]
        scale = weight * (float(file[parts["alpha"]].float().reshape(-1)[0]) / rank if "alpha" in parts else 1.0)
        if up.shape[1] != rank or not math.isfinite(scale):
            raise CheckpointError(f"{file.path.name}: the matrices of {name} don't fit each other.")
        found = targets.find(f"{name}.weight")
        _check_size(file, name, (up.shape[0], down.shape[1]), found, source)
        for stored, segments in found:
            yield stored, LowRank(up, down, scale, segments)
    for kind, ending in _ENDINGS.items():
        found = targets.find(f"{name}{ending}") if kind in parts else []
        values = _matrix(file[parts[kind]]) if found else torch.empty(0)
        _check_size(file, name, tuple(values.shape), found, source)
        for stored, segments in found:
            yield stored, Difference(values, weight, segments)


def _check_size(
    file: TensorFile, name: str, shape: tuple[int, ...], found: list[tuple[str, tuple[Segment, ...]]], source: Source
) -> None:
    """Compare an edit [rows, columns] with what it is for. Raises LoraMismatch."""
    if not found:
        return
    rows = max(segment.theirs + segment.count for _, segments in found for segment in segments)
    stored = source.header.tensors[found[0][0]].shape
    wanted = rows, math.prod(stored) // max(1, _rows(stored))
    if shape != wanted:
        raise LoraMismatch(
            f"{file.path.name} was made for a model of another size: {name} is {list(shape)}, here {list(wanted)}.",
            hint="Use the LoRA of this model.",
        )


def _matrix(values: torch.Tensor) -> torch.Tensor:
    """[rows, all other dimensions together]: kernels of convolutions flattened, vectors as columns."""
    return values.reshape(_rows(tuple(values.shape)), -1)


def _rows(shape: tuple[int, ...]) -> int:
    return shape[0] if shape else 1


def _halves(rows: int) -> tuple[Segment, ...]:
    """The lower half of the rows before the upper one."""
    half = rows // 2
    return Segment(0, half, half), Segment(half, 0, rows - half)
