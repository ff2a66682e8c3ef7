"""A finetune as a LoRA: the difference of its weights from the base model's, layer by layer, in low rank.

One layer at a time is in memory. A linear layer becomes two matrices (`low_rank`). Biases, norms, modulations and
convolutions are small: their differences are stored whole.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from reeltune._version import __version__
from reeltune.checkpoints.loras.writing import WEIGHT, difference_key, kind_of, pair_keys
from reeltune.dtypes import DType, Quantization
from reeltune.errors import CheckpointError, NotEnoughDisk, TensorMismatch
from reeltune.events import CancelToken, Listener, Notice, Progress, ignore
from reeltune.machine import free_disk
from reeltune.weights.low_rank import low_rank
from reeltune.weights.merging.provenance import Hashes, hash_files, source_entry
from reeltune.weights.merging.rows import Operand, Readers, align
from reeltune.weights.model_file import ModelFile, read_model
from reeltune.weights.quantize import claimed, refuse_taken, sha256_of, sync
from reeltune.weights.tensors import RUN_DTYPES, TensorFile

EXTRACT_KEY = "reeltune_extract"
MAX_RANK = 4096
_LARGE = 1_000_000  # values of a matrix


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
        with _threads_for(models[0]):
            for done, total in extraction.run():
                listener(Progress("extract", done, total, "tensors", output.name))
                cancel.check()
    if not extraction.tensors:
        raise CheckpointError(f"{tuned} and {base} hold the same numbers: there is nothing to extract.")
    metadata = _metadata(models, hashes, rank, extraction.kinds)
    with claimed(output) as partial:
        _write(partial, extraction.tensors, metadata)
        _verify(partial, extraction.tensors)
        sync(partial)
        digest = sha256_of(partial, cancel)
        refuse_taken([tuned, base], output, overwrite)
        partial.replace(output)
    return ExtractedLora(
        output,
        output.stat().st_size,
        digest,
        extraction.pairs,
        extraction.differences,
        extraction.left_out,
        extraction.unchanged,
        extraction.kinds,
    )


def _remarks(tuned: ModelFile) -> list[str]:
    """What the user should know of the finetune."""
    if tuned.identity.quantization is Quantization.NONE:
        return []
    label = tuned.source.format.label
    message = f"{tuned.path.name} is stored as {label}, so its rounding errors are part of the difference."
    return [f"{message} A 16-bit version gives a better LoRA."]


@contextmanager
def _threads_for(model: ModelFile) -> Iterator[None]:
    """One thread for a model with small layers, in which several threads would mostly wait for each other."""
    threads = torch.get_num_threads()
    if max(math.prod(task.matrix) for task in model.tasks.values()) < _LARGE:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class _Extraction:
    """The tensors of a LoRA, one parameter after the other."""

    def __init__(
        self, tuned: ModelFile, base: ModelFile, readers: Readers, rank: int, dtype: torch.dtype, whole: bool
    ) -> None:
        self._tuned, self._base, self._readers = tuned, base, readers
        self._rank, self._dtype, self._whole = rank, dtype, whole
        self.tensors: dict[str, torch.Tensor] = {}
        self.kinds: dict[str, Energy] = {}
        self.pairs = self.differences = self.left_out = self.unchanged = 0

    def run(self) -> Iterator[tuple[int, int]]:
        """Work through all parameters; yields how many are done, and how many there are."""
        source = self._tuned.source
        names = dict.fromkeys(
            source.format.weight_name(source.names.original[stored]) for stored in source.parameters()
        )
        for number, name in enumerate(names, start=1):
            self._add(name)
            yield number, len(names)

    def _add(self, name: str) -> None:
        difference = self._difference(name)
        total = _squares(difference)
        if not total:
            self.unchanged += 1
            return
        places = self._tuned.targets.find(name)
        stored_shape = self._tuned.source.weight_shape(places[0].stored)
        if name.endswith(WEIGHT) and len(stored_shape) == 2:
            self._add_pair(name, difference)
        elif self._whole:
            rows = (len(difference), *stored_shape[1:]) if stored_shape else ()
            self.tensors[difference_key(name, self._tuned.family)] = self._rounded(difference, name).reshape(rows)
            difference -= self._rounded(difference, name)
            self.differences += 1
        else:
            self.left_out += 1
        kind = self.kinds.setdefault(kind_of(name, self._tuned.family), Energy())
        kind.add(Energy(total, _squares(difference), 1))

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

    def _add_pair(self, name: str, difference: torch.Tensor) -> None:
        """Add the two matrices of a linear layer, and leave what they don't hold in `difference`."""
        up, down = (self._rounded(part, name) for part in low_rank(difference, self._rank))
        down_key, up_key = pair_keys(name, self._tuned.family)
        self.tensors[down_key], self.tensors[up_key] = down, up
        difference.addmm_(up.float(), down.float(), alpha=-1)
        self.pairs += 1

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
    try:
        save_file(dict(tensors), path, dict(metadata))
    except SafetensorError as error:
        raise CheckpointError(f"{path} can't be written: {error}.", hint="Check the disk.") from error


def _verify(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Read a file again and compare it with what was to be written. Raises CheckpointError."""
    file = TensorFile(path)
    same = file.header.tensors.keys() == tensors.keys()
    if not same or not all(torch.equal(file[name], tensor) for name, tensor in tensors.items()):
        raise CheckpointError(f"{path.name} was not written as it should be.", hint="Check the disk, and start again.")
