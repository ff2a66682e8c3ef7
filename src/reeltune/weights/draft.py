"""What quantizing or converting a checkpoint will come to, worked out from headers before a byte is written."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from reeltune._version import __version__
from reeltune.checkpoints.formats.quanto_int8 import quantization_metadata
from reeltune.checkpoints.identify import Identity
from reeltune.checkpoints.metadata import config_if_any
from reeltune.dtypes import DType, Quantization
from reeltune.errors import CheckpointError, UnsupportedFormat
from reeltune.families import ARCHITECTURES, Family
from reeltune.library.index import FILE_NAME, Index
from reeltune.weights.edits import RowEdit
from reeltune.weights.lora import Applied, FileValues, Values, read_edits, second_of_two
from reeltune.weights.model_file import ModelFile, read_model
from reeltune.weights.parts import Parts, name_of_all
from reeltune.weights.recipe import FP8, INT8, Recipe, Target, write_recipe

_RUN_DTYPES = (DType.BF16, DType.FP16)
_TARGETS = (INT8, FP8, *_RUN_DTYPES)
_SCALES = ("tensor", "row", "none")
_DTYPES = ("auto", *_RUN_DTYPES)
_STALE_KEYS = (  # of the source's metadata: they tell how it is stored, or its sum
    "quantization_format", "quantization_map", "quantization_map_base64", "config", "config_base64",
    "_quantization_metadata", "quantization_config", "general.file_type", "general.quantization_version",
    "general.alignment", "modelspec.hash_sha256", "reeltune_source_sha256",
)  # fmt: skip
_LORAS = "reeltune_loras"


@dataclass(frozen=True)
class Draft:
    """Everything that is known before the first byte is written.

    `left_out`: bytes of components in the source, which the new file won't contain.
    """

    recipe: Recipe
    dtype: DType
    applied: tuple[Applied, ...]
    left_out: int = 0


class Mixing(Protocol):
    """Other models that are mixed into the source on the way into the new file, before the LoRAs."""

    def edits(self, model: ModelFile) -> Mapping[str, RowEdit]:
        """What mixes the other models into each stored tensor of the source. Raises TensorMismatch."""

    def values(self, model: ModelFile) -> Values:
        """The numbers of the mixed model's parameters."""

    def metadata(self, model: ModelFile, applied: Sequence[Applied]) -> dict[str, str]:
        """What the new file says of where it comes from. `applied`: the LoRAs."""


def prepare(
    source: Path,
    *,
    to: str = "int8",
    dtype: str = "auto",
    scales: str = "tensor",
    loras: Sequence[tuple[str | Path, float]] = (),
    mixing: Mixing | None = None,
) -> Draft:
    """Look at the source and the LoRAs, and work out the new file. Raises as `quantize`, before anything is written.

    `mixing`: other models that are mixed into the source.
    """
    for name, value, values in (("to", to, _TARGETS), ("dtype", dtype, _DTYPES), ("scales", scales, _SCALES)):
        if value not in values:
            raise CheckpointError(f"Invalid value {value!r} for {name}.", hint=f"Use one of: {', '.join(values)}.")
    if to not in (INT8, FP8) and dtype not in ("auto", to):
        raise CheckpointError(f"A file can't be {to} and compute in {dtype}.", hint="Leave out dtype: it is for int8.")
    model = read_model(source)
    if model.identity.quantization is Quantization.QUANTO_INT8 and mixing is None:
        raise UnsupportedFormat(f"{source} is quantized already.", hint="Start from its bf16 or fp16 version.")
    run_dtype = _dtype(to, dtype, model.identity, model.family)
    numbers: Values = FileValues((model.source, model.parts.homes))
    edits: dict[str, list[RowEdit]] = {}
    if mixing is not None:
        edits = {stored: [edit] for stored, edit in mixing.edits(model).items()}
        numbers = mixing.values(model)
    applied = _add_loras(edits, model, numbers, loras)
    metadata = _metadata(source, model.parts, applied) if mixing is None else mixing.metadata(model, applied)
    target = Target(to, run_dtype, model.fp32, scales)
    recipe = write_recipe(model.parts, model.source, model.family, target, edits, metadata)
    if to in (INT8, FP8) and not recipe.modules:
        raise UnsupportedFormat(f"{source} has no layers that are quantized.")
    if to == INT8:
        metadata |= quantization_metadata(recipe.modules)
        recipe = write_recipe(model.parts, model.source, model.family, target, edits, metadata)
    return Draft(recipe, run_dtype, applied, model.identity.others_bytes)


def _dtype(to: str, dtype: str, identity: Identity, family: Family) -> DType:
    """Data type of the scales and of what isn't quantized. Raises UnsupportedFormat where nothing computes in it."""
    if to not in (INT8, FP8):
        return DType(to)
    of_family = [architecture for architecture in ARCHITECTURES.values() if architecture.family is family]
    able = {dtype for architecture in of_family for dtype in architecture.data_types}
    if dtype == "auto":
        return identity.dtype if identity.dtype and identity.dtype in able else DType.BF16
    if dtype not in able:
        raise UnsupportedFormat(
            f"{family.label} does not compute in {dtype}: no one could use the file.", hint="Use bf16."
        )
    return DType(dtype)


def _add_loras(
    edits: dict[str, list[RowEdit]], model: ModelFile, values: Values, loras: Sequence[tuple[str | Path, float]]
) -> tuple[Applied, ...]:
    """Add the edits of LoRAs to those of each stored tensor; returns what of the LoRAs is applied."""
    applied = []
    for lora, weight in loras:
        second = second_of_two(model.path)
        edits_of_lora, report = read_edits(Path(lora), weight, model.targets, values, second=second)
        applied.append(Applied(weight, report))
        for stored, edits_of_tensor in edits_of_lora.items():
            edits.setdefault(stored, []).extend(edits_of_tensor)
    return tuple(applied)


def _metadata(source: Path, parts: Parts, applied: Sequence[Applied]) -> dict[str, str]:
    """What the source's header says of itself, its config, and where the new file comes from."""
    old = parts.header.metadata
    new = {key: value for key, value in old.items() if key not in _STALE_KEYS} | {"format": "pt"}
    config = config_if_any(old)
    if config:
        new["config_base64"] = base64.b64encode(json.dumps(config).encode("utf-8")).decode("ascii")
    name = name_of_all(source).encode("utf-8", "replace").decode("utf-8")
    new |= {"reeltune_source": name, "reeltune_version": __version__}
    sha256 = known_sha256(source)
    if sha256 and len(parts.files) == 1:
        new["reeltune_source_sha256"] = sha256
    if applied:
        merged_now = [[lora.name, lora.weight] for lora in applied]
        new[_LORAS] = json.dumps([*_merged_before(old), *merged_now])
    return new


def _merged_before(metadata: Mapping[str, str]) -> list[Any]:
    """LoRAs that are in the source already."""
    try:
        loras = json.loads(metadata.get(_LORAS, "[]"))
    except (ValueError, RecursionError):
        return []
    return loras if isinstance(loras, list) else []


def known_sha256(path: Path) -> str | None:
    """The file's sha256, where the index of a `ckpts` folder above it remembers it."""
    for folder in path.absolute().parents:
        if (folder / FILE_NAME).is_file():
            return Index(folder).sha256(path.absolute())
    return None
