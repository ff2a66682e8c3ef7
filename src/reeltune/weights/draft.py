"""What quantizing or converting a checkpoint will come to, worked out from headers before a byte is written."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reeltune._version import __version__
from reeltune.checkpoints.identify import Identity, identify
from reeltune.checkpoints.keys import map_names
from reeltune.checkpoints.names import FP8, QUANTO_INT8, SIXTEEN_BITS
from reeltune.checkpoints.quanto import config_if_any, quantization_metadata
from reeltune.errors import CheckpointError, UnsupportedFormat
from reeltune.families import ARCHITECTURES, FAMILIES, Family
from reeltune.library.index import FILE_NAME, Index
from reeltune.weights.edits import Edit
from reeltune.weights.load import check_notes, empty_model, model_config, transformer_class
from reeltune.weights.lora import Applied, Targets, match, second_of_two
from reeltune.weights.matching import Shapes, Source, check_names, check_storage
from reeltune.weights.parts import Parts, name_of_all, read_parts
from reeltune.weights.recipe import Recipe, Wish, write_recipe

_TARGETS = ("int8", "bf16", "fp16")
_DTYPES = ("auto", "bf16", "fp16")
_STALE_KEYS = (  # of the source's metadata: they tell how it is stored, or its sum
    "quantization_format", "quantization_map", "quantization_map_base64", "config", "config_base64",
    "_quantization_metadata", "modelspec.hash_sha256", "reeltune_source_sha256",
)  # fmt: skip
_LORAS = "reeltune_loras"


@dataclass(frozen=True)
class Draft:
    """Everything that is known before the first byte is written."""

    recipe: Recipe
    dtype: str
    applied: tuple[Applied, ...]


def prepare(
    source: Path, *, to: str = "int8", dtype: str = "auto", loras: Sequence[tuple[str | Path, float]] = ()
) -> Draft:
    """Look at the source and the LoRAs, and work out the new file. Raises as `quantize`, before anything is written."""
    for name, value, values in (("to", to, _TARGETS), ("dtype", dtype, _DTYPES)):
        if value not in values:
            raise CheckpointError(f"Invalid value {value!r} for {name}.", hint=f"Use one of: {', '.join(values)}.")
    if to != "int8" and dtype not in ("auto", to):
        raise CheckpointError(f"A file can't be {to} and compute in {dtype}.", hint="Leave out dtype: it is for int8.")
    parts = read_parts(source)
    identity = identify(parts.header)
    family = _family(source, identity)
    dtype = _dtype(to, dtype, identity, family)
    for file in parts.files:
        check_notes(file, (name for name, home in parts.homes.items() if home == file))
    names = map_names(parts.header.tensors, family, identity.layout or "original", identity.prefix)
    known = Source(parts.header, identity, names)
    expected, fp32 = _model(family, known)
    edits, applied = _edits(Targets(known, family, expected, parts.homes), source, loras)
    metadata = _metadata(source, parts, applied)
    wish = Wish(to, dtype, fp32)
    recipe = write_recipe(parts, known, family, wish, edits, metadata)
    if to == "int8":
        if not recipe.modules:
            raise UnsupportedFormat(f"{source} has no layers that are quantized.")
        recipe = write_recipe(parts, known, family, wish, edits, metadata | quantization_metadata(recipe.modules))
    return Draft(recipe, dtype, applied)


def _family(source: Path, identity: Identity) -> Family:
    family = next((row for row in FAMILIES if row.name == identity.family), None)
    if identity.quantization == QUANTO_INT8:
        raise UnsupportedFormat(f"{source} is quantized already.", hint="Start from its bf16 or fp16 version.")
    if identity.quantization not in (SIXTEEN_BITS, *FP8):
        raise UnsupportedFormat(
            f"{source} holds {identity.quantization} weights, which can't be read.", hint="Start from a 16-bit version."
        )
    if family is None:
        raise UnsupportedFormat(
            f"{source} is of no known model family.", hint="`reeltune inspect` shows what its header tells."
        )
    return family


def _dtype(to: str, dtype: str, identity: Identity, family: Family) -> str:
    """Data type of the scales and of what isn't quantized. Raises UnsupportedFormat where nothing computes in it."""
    if to != "int8":
        return to
    able = {row for other in ARCHITECTURES.values() if other.family is family for row in other.data_types}
    if dtype == "auto":
        return identity.dtype if identity.dtype in able else "bf16"
    if dtype not in able:
        raise UnsupportedFormat(
            f"{family.label} does not compute in {dtype}: no one could use the file.", hint="Use bf16."
        )
    return dtype


def _model(family: Family, source: Source) -> tuple[Shapes, tuple[str, ...]]:
    """Shapes of the model's parameters ({} for a module) and what stays in fp32. Raises TensorMismatch."""
    if source.identity.role == "module":
        model_class = transformer_class(family.transformer_class)
        check_storage(source)
        return {}, tuple(getattr(model_class, "_keep_in_fp32_modules", None) or ())
    known = source.identity.architectures or source.identity.compatible
    config = ARCHITECTURES[known[0]].config if known else {}
    model = empty_model(family, model_config(family, [source], config))
    expected = {name: tuple(parameter.shape) for name, parameter in model.state_dict().items()}
    check_names([source], expected)
    return expected, tuple(getattr(model, "_keep_in_fp32_modules", None) or ())


def _edits(
    targets: Targets, path: Path, loras: Sequence[tuple[str | Path, float]]
) -> tuple[dict[str, list[Edit]], tuple[Applied, ...]]:
    edits: dict[str, list[Edit]] = {}
    applied = []
    for lora, weight in loras:
        found, report = match(Path(lora), weight, targets, second=second_of_two(path))
        applied.append(report)
        for stored, rows in found.items():
            edits.setdefault(stored, []).extend(rows)
    return edits, tuple(applied)


def _metadata(source: Path, parts: Parts, applied: Sequence[Applied]) -> dict[str, str]:
    """What the source's header says of itself, its config, and where the new file comes from."""
    old = parts.header.metadata
    found = {key: value for key, value in old.items() if key not in _STALE_KEYS} | {"format": "pt"}
    if config := config_if_any(old):
        found["config_base64"] = base64.b64encode(json.dumps(config).encode("utf-8")).decode("ascii")
    name = name_of_all(source).encode("utf-8", "replace").decode("utf-8")
    found |= {"reeltune_source": name, "reeltune_version": __version__}
    if len(parts.files) == 1 and (known := _known_sum(source)):
        found["reeltune_source_sha256"] = known
    if applied:
        found[_LORAS] = json.dumps([*_merged_before(old), *([row.name, row.weight] for row in applied)])
    return found


def _merged_before(metadata: Mapping[str, str]) -> list[Any]:
    """LoRAs that are in the source already."""
    try:
        rows = json.loads(metadata.get(_LORAS, "[]"))
    except (ValueError, RecursionError):
        return []
    return rows if isinstance(rows, list) else []


def _known_sum(path: Path) -> str | None:
    """The file's sum, where the index of a `ckpts` folder above it remembers it."""
    folder = next((row for row in path.absolute().parents if (row / FILE_NAME).is_file()), None)
    return Index(folder).sha256(path.absolute()) if folder else None
