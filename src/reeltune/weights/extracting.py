"""A finetune as a LoRA: the difference of its weights from the base model's, layer by layer, in low rank.

A few layers at a time are in memory. A linear layer becomes two matrices (`low_rank`). Biases, norms, modulations and
convolutions are small: their differences are stored whole.
"""

from __future__ import annotations

import json
import stat
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from reeltune._version import __version__
from reeltune.checkpoints.loras.writing import WEIGHT, difference_key, kind_of, pair_keys
from reeltune.dtypes import DType, Quantization
from reeltune.errors import CheckpointError, NotEnoughDisk, TensorMismatch
from reeltune.events import CancelToken, Listener, Notice, ignore
from reeltune.files import sync
from reeltune.machine import free_disk
from reeltune.weights.low_rank import low_rank
from reeltune.weights.merging.measuring import each_tensor
from reeltune.weights.merging.provenance import Hashes, hash_files, source_entry
from reeltune.weights.merging.rows import Operand, Readers, align
from reeltune.weights.model_file import ModelFile, read_model
from reeltune.weights.quantize import claimed, refuse_taken, sha256_of
from reeltune.weights.tensors import RUN_DTYPES, TensorFile

EXTRACT_KEY = "reeltune_extract"
MAX_RANK = 4096
_MOST_THREADS = 4  # each holds the difference of one parameter in fp32


@dataclass
class Energy:
    """The sum of the squared differences of some parameters, and of the squared errors that remain in the LoRA.

    `parameters`: how many there are.
    """

    total: float = 0.0
    lost: float = 0.0
    parameters: int = 0

    def add(self, other: Energy) -> None:
        """Add those of other parameters."""
        self.total += other.total
        self.lost += other.lost
        self.parameters += other.parameters

    @property
    def kept(self) -> float:
        """The share that the LoRA keeps, from 0 to 1."""
        return 1 - self.lost / self.total if self.total else 1.0


@dataclass(frozen=True)
class ExtractedLora:
    """A LoRA that was written and verified.

    `modules`: linear layers in low rank; `differences`: parameters that are stored whole; `left_out`: those that were
    left out; `unchanged`: parameters that both models have in common. `kinds`: the energy kept, by kind of parameter.
    """

    path: Path
    bytes: int
    sha256: str
    modules: int
    differences: int
    left_out: int
    unchanged: int
    kinds: Mapping[str, Energy]

    @property
    def energy(self) -> Energy:
        """The energy kept in total."""
        total = Energy()
        for energy in self.kinds.values():
            total.add(energy)
        return total


def extract_lora(
    tuned: Path,
    base: Path,
    output: Path,
    *,
    rank: int = 32,
    dtype: str = "bf16",
    whole_differences: bool = True,
    overwrite: bool = False,
    listener: Listener = ignore,
    cancel: CancelToken | None = None,
) -> ExtractedLora:
    """Write a LoRA that turns `base` into `tuned`, as nearly as its rank allows.

    `rank`: of each pair of matrices; `dtype`: "bf16" or "fp16"; `whole_differences`: also store the differences of
    parameters that aren't matrices, which diffusers doesn't read. Raises TensorMismatch if the models don't have the
    same tensors, CheckpointError if they don't differ, NotEnoughDisk, Cancelled; nothing is left behind then.
    """
    cancel = cancel or CancelToken()
    if dtype not in (DType.BF16, DType.FP16):
        raise CheckpointError(f"Invalid value {dtype!r} for dtype.", hint="Use bf16 or fp16.")
    if not 1 <= rank <= MAX_RANK:
        raise CheckpointError(f"Invalid rank {rank}.", hint=f"Use a number from 1 to {MAX_RANK:,}.")
    refuse_taken([tuned, base], output, overwrite)
    models = [read_model(tuned), read_model(base)]
    with closing(Readers()) as readers:
        align(models[0], models[1], readers)
        for message in _remarks(models[0]):
            listener(Notice(message))
        hashes = hash_files([tuned, base], listener, cancel)
        extraction = _Extraction(models[0], models[1], readers, rank, RUN_DTYPES[DType(dtype)], whole_differences)
        found = each_tensor(extraction.shapes, extraction.part, "extract", listener, cancel, threads=_MOST_THREADS)
    parts = [found[name] for name in extraction.shapes]
    tensors = {key: tensor for part in parts for key, tensor in part.tensors.items()}
    if not tensors:
        raise CheckpointError(f"{tuned} and {base} hold the same numbers: there is nothing to extract.")
    kinds = _by_kind(parts)
    with claimed(output) as partial:
        _write(partial, tensors, _metadata(models, hashes, rank, kinds))
        _verify(partial, tensors)
        sync(partial)
        digest = sha256_of(partial, cancel)
        refuse_taken([tuned, base], output, overwrite)
        partial.replace(output)
    counts = Counter(part.stored for part in parts)
    size = output.stat().st_size
    return ExtractedLora(
        output, size, digest, counts["pair"], counts["whole"], counts["left out"], counts["unchanged"], kinds
    )


def _by_kind(parts: Sequence[_LoraPart]) -> dict[str, Energy]:
    """The energy of the parameters that differ, by kind."""
    kinds: dict[str, Energy] = {}
    for part in parts:
        if part.stored != "unchanged":
            kinds.setdefault(part.kind, Energy()).add(part.energy)
    return kinds


def _remarks(tuned: ModelFile) -> list[str]:
    """What the user should know of the finetune."""
    if tuned.identity.quantization is Quantization.NONE:
        return []
    label = tuned.source.format.label
    message = f"{tuned.path.name} is stored as {label}, so its rounding errors are part of the difference."
    return [f"{message} A 16-bit version gives a better LoRA."]


@dataclass(frozen=True)
class _LoraPart:
    """What a parameter becomes: its tensors by key. `stored`: "pair", "whole", "left out" or "unchanged"."""

    kind: str
    stored: str
    tensors: Mapping[str, torch.Tensor]
    energy: Energy


class _Extraction:
    """The tensors of a LoRA, worked out for one parameter at a time. `shapes`: of all parameters, by original name."""

    def __init__(
        self, tuned: ModelFile, base: ModelFile, readers: Readers, rank: int, dtype: torch.dtype, whole: bool
    ) -> None:
        self._tuned, self._base, self._readers = tuned, base, readers
        self._rank, self._dtype, self._whole = rank, dtype, whole
        names = [tuned.source.names.original[stored] for stored in tuned.source.parameters()]
        weights = dict.fromkeys(tuned.source.format.weight_name(name) for name in names)
        self.shapes = {name: tuned.targets.shape(tuned.targets.find(name)) for name in weights}

    def part(self, name: str) -> _LoraPart:
        """What a parameter becomes. Raises CheckpointError."""
        difference = self._difference(name)
        total = _squares(difference)
        kind = kind_of(name, self._tuned.family)
        if not total:
            return _LoraPart(kind, "unchanged", {}, Energy())
        shape = self._tuned.source.weight_shape(self._tuned.targets.find(name)[0].stored)
        tensors: dict[str, torch.Tensor] = {}
        stored = "left out"
        if name.endswith(WEIGHT) and len(shape) == 2:
            stored = "pair"
            down_key, up_key = pair_keys(name, self._tuned.family)
            up, down = (self._rounded(matrix, name) for matrix in low_rank(difference, self._rank))
            tensors = {down_key: down, up_key: up}
            difference.addmm_(up.float(), down.float(), alpha=-1)  # what remains is lost
        elif self._whole:
            stored = "whole"
            rounded = self._rounded(difference, name)
            full_shape = (len(difference), *shape[1:]) if shape else ()
            tensors = {difference_key(name, self._tuned.family): rounded.reshape(full_shape)}
            difference -= rounded
        return _LoraPart(kind, stored, tensors, Energy(total, _squares(difference), 1))

    def _difference(self, name: str) -> torch.Tensor:
        """The difference of a parameter, by its original name: fp32 [rows, columns]. Raises CheckpointError for NaN."""
        places = self._tuned.targets.find(name)
        rows, columns = self._tuned.targets.shape(places)
        base_places = self._base.targets.find(name)
        if self._base.targets.shape(base_places) != (rows, columns):
            message = f"{name} is stored in another shape in {self._base.path}."
            raise TensorMismatch(message, missing=(), unexpected=(), misshapen=[name])
        difference = torch.empty(rows, columns)
        Operand(self._tuned, places, self._readers).copy(0, difference)
        for part, values in Operand(self._base, base_places, self._readers).blocks(0, rows):
            difference[part].sub_(values)
        if not bool(torch.isfinite(difference).all()):
            message = f"{name} holds NaN or infinity: one of the files is damaged."
            raise CheckpointError(message, hint="Download it again.")
        return difference

    def _rounded(self, values: torch.Tensor, name: str) -> torch.Tensor:
        """Numbers in the data type of the file. Raises CheckpointError where they don't fit."""
        rounded = values.to(self._dtype).contiguous()
        if not bool(torch.isfinite(rounded).all()):
            raise CheckpointError(f"The difference of {name} is too large for fp16.", hint="Use --dtype bf16.")
        return rounded


def _squares(values: torch.Tensor) -> float:
    """The sum of the squares of a matrix, row by row."""
    return float(torch.linalg.vector_norm(values, dim=1).double().square().sum())


def _metadata(models: list[ModelFile], hashes: Hashes, rank: int, kinds: Mapping[str, Energy]) -> dict[str, str]:
    total = Energy()
    for energy in kinds.values():
        total.add(energy)
    tuned, base = (source_entry(model, hashes) for model in models)
    provenance = {"tuned": tuned, "base": base, "rank": rank, "energy_kept": round(total.kept, 6)}
    metadata = {"format": "pt", "reeltune_version": __version__, EXTRACT_KEY: json.dumps(provenance)}
    license = tuned.get("license")
    return {**metadata, "license": str(license)} if license else metadata


def _write(path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> None:
    """Write a file. Raises NotEnoughDisk, CheckpointError."""
    needed = sum(tensor.nbytes for tensor in tensors.values())
    free = free_disk(path.parent)
    if free < needed:
        message = f"{path.parent} has {free:,} bytes free, and the LoRA takes {needed:,}."
        raise NotEnoughDisk(message, hint="Make room, or write it elsewhere.")
    path.touch()
    usual_mode = path.stat().st_mode
    try:
        save_file(dict(tensors), path, dict(metadata))
        path.chmod(stat.S_IMODE(usual_mode))  # safetensors makes files that nobody else may read
    except SafetensorError as error:
        raise CheckpointError(f"{path} can't be written: {error}.", hint="Check the disk.") from error


def _verify(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Read a file again and compare it with what was to be written. Raises CheckpointError."""
    file = TensorFile(path)
    same = file.header.tensors.keys() == tensors.keys()
    if not same or not all(torch.equal(file[name], tensor) for name, tensor in tensors.items()):
        raise CheckpointError(f"{path.name} was not written as it should be.", hint="Check the disk, and start again.")
