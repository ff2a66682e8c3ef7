"""LoRA files of every dialect, matched to the stored tensors that they change.

    blocks.0.self_attn.q.lora_A.weight / lora_B        PEFT and diffusers, original names or theirs
    blocks.0.self_attn.q.lora_down.weight / lora_up    with `.alpha`
    lora_unet_blocks_0_self_attn_q.lora_down.weight    kohya: dots became underscores
    blocks.0.norm3.diff, .diff_b, blocks.0.diff_m      differences of whole weights, biases, modulations

each behind `diffusion_model.`, `transformer.`, `base_model.model.` or nothing. A pair adds
weight * alpha / rank * up @ down. alpha is a tensor of the module, else what the metadata's `lora_adapter_metadata`
(diffusers, PEFT) says, else the rank.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
_OTHERS = re.compile(
    r"\.(dora_scale|lora_magnitude_vector.*|hada_.*|lokr_.*|oft_.*|lora_mid.*|scale_weight|weight_scale|_scale)$"
)
_ADAPTER = "lora_adapter_metadata"
_MOST_WEIGHT = 1000.0
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
    if not abs(weight) <= _MOST_WEIGHT:
        raise CheckpointError(f"{weight} is no weight of {path.name}.", hint="Give a number, such as 0.8.")
    file = TensorFile(path)
    edits: dict[str, list[Edit]] = {}
    left, modules, scaling = [], _modules(file), _Scaling(file.header.metadata)
    for name, parts in modules.items():
        reader = _Reader(file, name, parts, weight, scaling.of(name, file, parts))
        found = reader.pair(targets, source) + reader.differences(targets, source)
        left += reader.left
        for stored, edit in found:
            edits.setdefault(stored, []).append(edit)
    whole = len([name for name in modules if name not in left])
    applied = Applied(path.name, weight, whole, len(modules), tuple(left))
    if not edits:
        raise LoraMismatch(
            f"None of the {len(modules)} modules in {path.name} is one of this model's, such as {left[0]}."
            if modules else f"{path.name} holds no LoRA.",
            hint="It was made for another model, or is another kind of file.",
        )  # fmt: skip
    return edits, applied


def _modules(file: TensorFile) -> dict[str, dict[str, str]]:
    """What the file holds: by module, the key of each kind of part.

    Raises UnsupportedFormat for what can't be merged as a pair of matrices, CheckpointError for a part given twice.
    """
    found: dict[str, dict[str, str]] = {}
    for key in file:
        if _OTHERS.search(key):
            raise UnsupportedFormat(
                f"{file.path.name} is no plain LoRA: it holds {key}.", hint="DoRA, LoHa, LoKr and OFT can't be merged."
            )
        kind, module = next(((kind, key[: hit.start()]) for kind, row in _KINDS if (hit := row.search(key))), ("", key))
        parts = found.setdefault(_bare(module), {})
        if kind in parts:
            raise CheckpointError(f"{file.path.name} holds a part twice: {parts[kind]} and {key}.")
        parts[kind] = key
    return found


class _Scaling:
    """What a file's metadata says of the strength of its pairs (diffusers' words, which are PEFT's)."""

    def __init__(self, metadata: Mapping[str, str]) -> None:
        try:
            values = json.loads(metadata.get(_ADAPTER, "{}"))
        except (ValueError, RecursionError):
            values = {}
        rows = values.items() if isinstance(values, dict) else ()
        known = {key.removeprefix("transformer."): value for key, value in rows}
        self._alpha, self._patterns = known.get("lora_alpha"), known.get("alpha_pattern")
        self._root = known.get("use_rslora") is True

    def of(self, module: str, file: TensorFile, parts: Mapping[str, str]) -> float:
        """alpha / rank of a module's pair; 1 where nothing tells it. Raises CheckpointError."""
        rank = (file.header.tensors[parts["down"]].shape or (0,))[0] if "down" in parts else 0
        if "alpha" in parts and rank:
            values = file[parts["alpha"]].float().reshape(-1)
            alpha: Any = float(values[0]) if len(values) == 1 else math.nan
        else:
            patterns = self._patterns if isinstance(self._patterns, dict) else {}
            alpha = next((row for end, row in patterns.items() if module.endswith(end)), self._alpha)
        if alpha is None or not rank:
            return 1.0
        if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not math.isfinite(alpha):
            raise CheckpointError(f"{file.path.name}: the alpha of {module} is no number.", hint="Fetch it again.")
        return float(alpha) / (math.sqrt(rank) if self._root and "alpha" not in parts else rank)


def _bare(module: str) -> str:
    """A module's name without what trainers put before it."""
    for prefix in _KOHYA:
        module = module.removeprefix(prefix)
    while (prefix := next((row for row in _PREFIXES if module.startswith(row)), "")) and module != prefix:
        module = module.removeprefix(prefix)
    return module


class _Reader:
    """Turns one module's parts into edits. `left`: what of it is nothing of the model's."""

    def __init__(self, file: TensorFile, name: str, parts: Mapping[str, str], weight: float, scaling: float) -> None:
        self._file, self._name, self._parts, self._weight, self._scaling = file, name, parts, weight, scaling
        self.left = [name] if "" in parts or parts.keys() == {"alpha"} else list[str]()

    def pair(self, targets: Targets, source: Source) -> list[tuple[str, Edit]]:
        """The edits of its two matrices, if it has any."""
        halves = [kind for kind in ("up", "down") if kind in self._parts]
        if not halves:
            return []
        if len(halves) == 1:
            raise CheckpointError(f"{self._said} has only one half of its pair.", hint="Fetch it again.")
        up, down = self._matrix("up"), self._matrix("down")
        if up.shape[1] != down.shape[0]:
            raise CheckpointError(f"{self._said}: its matrices don't fit each other.", hint="Fetch it again.")
        found = self._found(targets, source, ".weight", (up.shape[0], down.shape[1]), self._name)
        return [(stored, LowRank(up, down, self._weight * self._scaling, segments)) for stored, segments in found]

    def differences(self, targets: Targets, source: Source) -> list[tuple[str, Edit]]:
        """The edits of whole tensors; alpha and rank are nothing to them."""
        edits: list[tuple[str, Edit]] = []
        for kind, ending in _ENDINGS.items():
            if kind in self._parts:
                values = self._matrix(kind)
                label = self._name if kind == "diff" else f"{self._name}.{kind}"
                found = self._found(targets, source, ending, tuple(values.shape), label)
                edits += [(stored, Difference(values, self._weight, segments)) for stored, segments in found]
        return edits

    @property
    def _said(self) -> str:
        return f"{self._file.path.name}: {self._name}"

    def _matrix(self, kind: str) -> torch.Tensor:
        """A part as [rows, all other dimensions together]: kernels flattened, vectors as columns."""
        values = self._file[self._parts[kind]]
        if not values.is_floating_point() or not values.numel():
            raise UnsupportedFormat(f"{self._said} is stored as {values.dtype} {list(values.shape)}.")
        if not bool(torch.isfinite(values.to(torch.float32)).all()):
            raise CheckpointError(f"{self._said} holds NaN or infinity: the LoRA is damaged.", hint="Fetch it again.")
        return values.reshape(_rows(tuple(values.shape)), -1)

    def _found(
        self, targets: Targets, source: Source, ending: str, shape: tuple[int, ...], label: str
    ) -> list[tuple[str, tuple[Segment, ...]]]:
        """Stored tensors that a part [rows, columns] changes. Raises LoraMismatch where the sizes differ."""
        found = targets.find(self._name + ending)
        if not found:
            self.left.append(label)
            return []
        rows = max(segment.theirs + segment.count for _, segments in found for segment in segments)
        stored = source.header.tensors[found[0][0]].shape
        wanted = rows, math.prod(stored) // max(1, _rows(stored))
        if shape != wanted:
            raise LoraMismatch(
                f"{self._file.path.name} was made for a model of another size: {self._name} is {list(shape)}, here "
                f"{list(wanted)}.",
                hint="Use the LoRA of this model.",
            )
        return found


def _rows(shape: tuple[int, ...]) -> int:
    return shape[0] if shape else 1


def _halves(rows: int) -> tuple[Segment, ...]:
    """The lower half of the rows before the upper one."""
    half = rows // 2
    return Segment(0, half, half), Segment(half, 0, rows - half)
