"""Which model a checkpoint is, from its header alone: family, architectures, layout, quantization.

Ambiguity is a value: several published models have identical headers, so `architectures` may hold several
ids, the likeliest first, and `evidence` says what they were told by.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from reeltune.checkpoints.fp8 import DTYPES as FP8_DTYPES
from reeltune.checkpoints.fp8 import EXTRAS as FP8_EXTRAS
from reeltune.checkpoints.header import Header
from reeltune.checkpoints.keys import Layout, NameMap, map_names, prefixes, translate, unwrapped
from reeltune.checkpoints.names import FP8_PLAIN, FP8_SCALED, QUANTO_INT8, SIXTEEN_BITS
from reeltune.checkpoints.quanto import ACTIVATION_SCALES, DATA, SCALE, config_if_any
from reeltune.families import ARCHITECTURES, FAMILIES, Architecture, Family

SHORT_DTYPE = {"BF16": "bf16", "F16": "fp16", "F32": "fp32", "F64": "fp64", "I8": "int8", "U8": "uint8"}
_MOST_PREFIXES = 8  # of models kept in one file; each costs a look at every name
_NAMES_SHOWN = 3


@dataclass(frozen=True)
class Identity:
    """What a header says.

    `architectures`: candidates by structure and size; `compatible`: those by structure alone (a finetune may
    have another size). `role`: "model", or "module" for weights that only extend a model. `quantization`:
    "none" | "quanto_int8" | "fp8" | ...; `dtype`: "bf16" | "fp16" | "fp32", what the weights compute in.
    `dtypes`: parameters by stored data type. `config`: as derived or stored, None for a module or unknown file.
    """

    family: str | None
    architectures: tuple[str, ...]
    compatible: tuple[str, ...]
    role: str
    layout: Layout | None
    prefix: str
    quantization: str
    dtype: str | None
    dtypes: Mapping[str, int]
    parameters: int
    bytes: int
    config: Mapping[str, Any] | None
    evidence: tuple[str, ...]

    def fits(self, architecture: str) -> bool:
        """Whether the file can be a model of this architecture: unknown files are not contradicted."""
        return self.family is None or architecture in self.compatible


def identify(header: Header) -> Identity:
    """Identify a checkpoint: what can't be told is None or empty.

    A config in the metadata that can't be read counts as none.
    """
    dtypes = _histogram(header)
    quantization = _quantization(header)
    match = _match_family(header)
    if match is None:
        return _identity(header, None, None, quantization, dtypes, (), (), None, _unknown(header))
    family, names = match
    shapes = original_shapes(header, names)
    role = "model" if any(name.startswith("head.") for name in shapes) or family.name != "wan" else "module"
    config = _config(header, family, shapes) if role == "model" else None
    rows = [row for row in ARCHITECTURES.values() if row.family is family]
    present = {*shapes, *(unwrapped(name.removeprefix(names.prefix)) for name in names.unknown)}
    fitting = [row for row in rows if _fits(row, present, config)]
    dim = _dim(shapes)
    sized = [row for row in fitting if row.signature.dim in (None, dim)] or fitting
    evidence = (
        *_evidence(family, names, config, dim),
        *(("several architectures fit",) if len(sized) > 1 else ()),
    )
    ids = tuple(row.id for row in sized), tuple(row.id for row in fitting)
    return _identity(header, family, names, quantization, dtypes, *ids, config, evidence, role)


def _identity(
    header: Header,
    family: Family | None,
    names: NameMap | None,
    quantization: str,
    dtypes: dict[str, int],
    architectures: tuple[str, ...],
    compatible: tuple[str, ...],
    config: dict[str, Any] | None,
    evidence: tuple[str, ...],
    role: str = "model",
) -> Identity:
    return Identity(
        family=family.name if family else None,
        architectures=architectures,
        compatible=compatible,
        role=role,
        layout=names.layout if names else None,
        prefix=names.prefix if names else "",
        quantization=quantization,
        dtype=_compute_dtype(header, quantization),
        dtypes=dtypes,
        parameters=_parameters(header),
        bytes=header.file_bytes,
        config=config,
        evidence=evidence,
    )


def _match_family(header: Header) -> tuple[Family, NameMap] | None:
    """The family, layout and prefix that explain most of the file's names, among those whose marker it holds."""
    found = []
    for family in FAMILIES:
        for layout, markers in _markers(family).items():
            for prefix in prefixes(header.tensors, markers)[:_MOST_PREFIXES]:
                names = map_names(header.tensors, family, layout, prefix)
                if not set(family.markers).isdisjoint(names.original.values()):
                    found.append((family, names))
    return min(found, key=lambda row: len(row[1].unknown), default=None)


def _markers(family: Family) -> dict[Layout, tuple[str, ...]]:
    """A family's markers as each layout names them."""
    translated = (translate(marker, family, "original") for marker in family.markers)
    return {"original": family.markers, "diffusers": tuple(name for name in translated if name)}


def original_shapes(header: Header, names: NameMap) -> dict[str, tuple[int, ...]]:
    """Shapes by original name; a quanto weight counts under the plain weight's name.

    What the original keeps stacked counts as one there, from a file where it is apart too.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for stored, original in names.original.items():
        if original.endswith((SCALE, *ACTIVATION_SCALES)):
            continue
        plain = original.removesuffix(DATA) + ".weight" if original.endswith(DATA) else original
        shape = header.tensors[stored].shape
        if shapes.get(plain) and shape:
            shape = (shape[0] + shapes[plain][0], *shape[1:])
        shapes[plain] = shape
    return shapes


def _config(header: Header, family: Family, shapes: dict[str, tuple[int, ...]]) -> dict[str, Any] | None:
    stored = config_if_any(header.metadata)
    try:
        return family.derive_config(shapes, stored)
    except (KeyError, ValueError, IndexError, ZeroDivisionError):  # not a whole model, or forged shapes
        return None


def _fits(row: Architecture, present: set[str], config: dict[str, Any] | None) -> bool:
    signature = row.signature
    if not signature.allows(config):
        return False
    return all(_holds(present, name) for name in signature.has) and not any(
        _holds(present, name) for name in signature.lacks
    )


def _holds(present: set[str], name: str) -> bool:
    return any(other.startswith(name) for other in present) if name.endswith(".") else name in present


def _dim(shapes: dict[str, tuple[int, ...]]) -> int | None:
    for name in ("patch_embedding.weight", "vace_patch_embedding.weight", "img_in.proj.weight"):
        if shapes.get(name):
            return shapes[name][0]
    bias = shapes.get("adaln_single.emb.timestep_embedder.linear_1.bias")
    return bias[0] if bias else None


def _evidence(family: Family, names: NameMap, config: dict[str, Any] | None, dim: int | None) -> tuple[str, ...]:
    found = [f"{family.label} names in the {names.layout} layout"]
    if names.prefix:
        found.append(f"prefix {names.prefix!r}")
    if dim:
        found.append(f"hidden size {dim}")
    if config and "in_channels" in config:
        found.append(f"{config['in_channels']} input channels")
    if names.unknown:
        found.append(f"{len(names.unknown)} tensors that are not the model's, such as {names.unknown[0]}")
    return tuple(found)


def _unknown(header: Header) -> tuple[str, ...]:
    """What is known of a file of no known family: how its tensors are called."""
    names = ", ".join(repr(name[:100]) for name in list(header.tensors)[:_NAMES_SHOWN])
    return "no known family's names", f"{len(header.tensors)} tensors, the first are {names}"


def _histogram(header: Header) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for tensor in header.tensors.values():
        counts[SHORT_DTYPE.get(tensor.dtype, tensor.dtype.lower())] += tensor.elements
    return dict(counts.most_common())


def _parameters(header: Header) -> int:
    extra = (SCALE, *ACTIVATION_SCALES, *FP8_EXTRAS)
    return sum(tensor.elements for name, tensor in header.tensors.items() if not name.endswith(extra))


def _quantization(header: Header) -> str:
    if any(name.endswith(DATA) for name in header.tensors):
        rows = [tensor for name, tensor in header.tensors.items() if name.endswith(DATA)]
        return QUANTO_INT8 if all(row.dtype == "I8" for row in rows) else "quanto (not int8)"
    stored = {tensor.dtype for tensor in header.tensors.values()}
    if any(name.endswith(".weight_scale_2") for name in header.tensors):
        return "nvfp4"  # two values a byte, with fp8 scales
    if stored & set(FP8_DTYPES):
        return FP8_SCALED if any(name.endswith(FP8_EXTRAS) for name in header.tensors) else FP8_PLAIN
    if "F4" in stored:
        return "nvfp4"
    if other := sorted(dtype for dtype in stored if dtype.startswith(("F8_", "F6_"))):
        return other[0].lower()
    weights = sum(tensor.elements for tensor in header.tensors.values() if tensor.dtype in ("I8", "U8"))
    return "int8 (not quanto)" if weights > _parameters(header) // 2 else SIXTEEN_BITS


def _compute_dtype(header: Header, quantization: str) -> str | None:
    """Data type of the scales of a quantized file; of most parameters otherwise."""
    counts: Counter[str] = Counter()
    for name, tensor in header.tensors.items():
        if tensor.dtype in ("BF16", "F16", "F32") and (quantization != QUANTO_INT8 or name.endswith(SCALE)):
            counts[SHORT_DTYPE[tensor.dtype]] += tensor.elements
    return counts.most_common(1)[0][0] if counts else None
