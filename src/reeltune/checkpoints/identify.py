"""Which model a checkpoint is, from its header alone: family, architectures, layout, quantization.

Ambiguity is a value: several published models have identical headers, so `architectures` may hold several
ids, the likeliest first, and `evidence` says what they were recognized by.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

from reeltune.checkpoints.components import ComponentMatch, component_matches
from reeltune.checkpoints.contents import Header
from reeltune.checkpoints.formats import WeightFormat, format_by_header
from reeltune.checkpoints.keys import Layout, NameMap, map_names, prefixes, translate, unwrapped
from reeltune.checkpoints.metadata import config_if_any
from reeltune.checkpoints.names import base_name
from reeltune.dtypes import DType, Quantization
from reeltune.families import ARCHITECTURES, FAMILIES, Architecture, Family
from reeltune.families.base import Config

SHORT_DTYPE = {"BF16": "bf16", "F16": "fp16", "F32": "fp32", "F64": "fp64", "I8": "int8", "U8": "uint8"}
_COMPUTED_IN = {"BF16": DType.BF16, "F16": DType.FP16, "F32": DType.FP32}
_MOST_PREFIXES = 8  # of models kept in one file; each costs a look at every name
_NAMES_SHOWN = 3


@dataclass(frozen=True)
class Identity:
    """What a header says.

    `architectures`: candidates by structure and size; `compatible`: those by structure alone (a finetune may have
    another size). `role`: "model", or "module" for weights that only extend a model. `dtype`: what the weights compute
    in. `dtypes`: parameters by stored data type. `config`: as derived or stored, None for a module or unknown file.
    `memory_bytes`: what the weights take in memory in a run of 16 bits. `objection`: why the weights can't be loaded
    although their format can; empty if they can. `components`: the components in it.
    """

    family: str | None
    architectures: tuple[str, ...]
    compatible: tuple[str, ...]
    role: str
    layout: Layout | None
    prefix: str
    quantization: Quantization
    dtype: DType | None
    dtypes: Mapping[str, int]
    parameters: int
    bytes: int
    config: Config | None
    evidence: tuple[str, ...]
    memory_bytes: int = 0
    others_bytes: int = 0  # of `memory_bytes`, those of components in the same file
    objection: str = ""
    components: tuple[ComponentMatch, ...] = ()

    def fits(self, architecture: str) -> bool:
        """Whether the file can be a model of this architecture: unknown files are not contradicted."""
        return self.family is None or architecture in self.compatible


def identify(header: Header) -> Identity:
    """Identify a checkpoint: what isn't known is None or empty.

    A config in the metadata that can't be read counts as none.
    """
    weight_format = format_by_header(header)
    unknown = Identity(
        family=None,
        architectures=(),
        compatible=(),
        role="model",
        layout=None,
        prefix="",
        quantization=weight_format.quantization,
        dtype=_compute_dtype(header, weight_format),
        dtypes=_histogram(header),
        parameters=_parameters(header, weight_format),
        bytes=header.file_bytes,
        config=None,
        evidence=_unknown(header),
        memory_bytes=sum(weight_format.bytes_in_memory(tensor, DType.BF16) for tensor in header.tensors.values()),
        objection=weight_format.objection(header),
        components=component_matches(header, weight_format),
    )
    match = _match_family(header)
    if match is None:
        if unknown.components:
            return replace(unknown, evidence=tuple(_component_evidence(match) for match in unknown.components))
        return unknown
    family, names = match
    return _of_family(unknown, header, family, names)


def _of_family(unknown: Identity, header: Header, family: Family, names: NameMap) -> Identity:
    """The identity of a file whose family, layout and prefix are known."""
    shapes = original_shapes(header, names, format_by_header(header))
    role = "model" if family.is_whole(shapes) else "module"
    config = _config(header, family, shapes) if role == "model" else None
    present = {*shapes, *(unwrapped(name.removeprefix(names.prefix)) for name in names.unknown)}
    of_family = [architecture for architecture in ARCHITECTURES.values() if architecture.family is family]
    fitting = [architecture for architecture in of_family if _fits(architecture, present, config)]
    hidden_size = family.hidden_size(shapes)
    sized = [architecture for architecture in fitting if architecture.signature.dim in (None, hidden_size)] or fitting
    sized = _told_by_name([architecture for architecture in sized if not architecture.transformer_of], header.file)
    evidence = _evidence(family, names, config, hidden_size)
    if len(sized) > 1:
        evidence = (*evidence, "several architectures fit")
    weight_format = format_by_header(header)
    others = [
        tensor
        for name, tensor in header.tensors.items()
        if unwrapped(name.removeprefix(names.prefix)).startswith(family.others)
    ]
    of_others = [tensor for tensor in others if not weight_format.is_part(tensor.name)]
    return replace(
        unknown,
        parameters=unknown.parameters - sum(math.prod(weight_format.weight_shape(tensor)) for tensor in of_others),
        others_bytes=sum(weight_format.bytes_in_memory(tensor, DType.BF16) for tensor in others),
        family=family.name,
        architectures=tuple(architecture.id for architecture in sized),
        compatible=tuple(architecture.id for architecture in fitting),
        role=role,
        layout=names.layout,
        prefix=names.prefix,
        config=config,
        evidence=evidence,
    )


def _match_family(header: Header) -> tuple[Family, NameMap] | None:
    """The family, layout and prefix that explain most of the file's names, among those whose marker it holds."""
    matches = []
    for family in FAMILIES:
        for layout, markers in _markers(family).items():
            for prefix in prefixes(header.tensors, markers)[:_MOST_PREFIXES]:
                names = map_names(header.tensors, family, layout, prefix)
                if not set(family.markers).isdisjoint(names.original.values()):
                    matches.append((family, names))
    return min(matches, key=lambda match: len(match[1].unknown), default=None)


def _markers(family: Family) -> dict[Layout, tuple[str, ...]]:
    """A family's markers as each layout names them."""
    translated = (translate(marker, family, "original") for marker in family.markers)
    return {"original": family.markers, "diffusers": tuple(name for name in translated if name)}


def original_shapes(header: Header, names: NameMap, weight_format: WeightFormat) -> dict[str, tuple[int, ...]]:
    """Shapes of the weights by original name, whichever tensors they are stored as.

    What the original keeps stacked counts as one there, from a file where it is apart too.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for stored, original in names.original.items():
        if weight_format.is_part(original):
            continue
        weight_name = weight_format.weight_name(original)
        shape = weight_format.weight_shape(header.tensors[stored])
        rows_before = shapes.get(weight_name)
        if rows_before and shape:
            shape = (shape[0] + rows_before[0], *shape[1:])
        shapes[weight_name] = shape
    return shapes


def _config(header: Header, family: Family, shapes: dict[str, tuple[int, ...]]) -> Config | None:
    stored = config_if_any(header.metadata)
    try:
        return family.derive_config(shapes, stored)
    except (KeyError, ValueError, IndexError, ZeroDivisionError):  # not a whole model, or forged shapes
        return None


def _fits(architecture: Architecture, present: set[str], config: Config | None) -> bool:
    signature = architecture.signature
    if not signature.allows(config):
        return False
    if any(_holds(present, name) for name in signature.lacks):
        return False
    return all(_holds(present, name) for name in signature.has)


def _told_by_name(fitting: list[Architecture], file: str) -> list[Architecture]:
    """Of architectures with equal headers, the one that the file's name tells; without one, those that need no name."""
    name = re.sub(r"[^a-z0-9]", "", base_name(file).lower())
    named = [architecture for architecture in fitting if any(part in name for part in architecture.signature.files)]
    return named or [architecture for architecture in fitting if not architecture.signature.files]


def _holds(present: set[str], name: str) -> bool:
    if name.endswith("."):
        return any(other.startswith(name) for other in present)
    return name in present


def _evidence(family: Family, names: NameMap, config: Config | None, hidden_size: int | None) -> tuple[str, ...]:
    evidence = [f"{family.label} names in the {names.layout} layout"]
    if names.prefix:
        evidence.append(f"prefix {names.prefix!r}")
    if hidden_size:
        evidence.append(f"hidden size {hidden_size}")
    if config and "in_channels" in config:
        evidence.append(f"{config['in_channels']} input channels")
    if names.unknown:
        evidence.append(f"{len(names.unknown)} tensors that are not the model's, such as {names.unknown[0]}")
    return tuple(evidence)


def _unknown(header: Header) -> tuple[str, ...]:
    """What is known of a file of no known family: how its tensors are called."""
    names = ", ".join(repr(name[:100]) for name in list(header.tensors)[:_NAMES_SHOWN])
    return "no known family's names", f"{len(header.tensors)} tensors, the first are {names}"


def _component_evidence(match: ComponentMatch) -> str:
    size = f", {match.size}" if match.size else ""
    return f"the {match.label} in the {match.layout} layout{size}"


def _histogram(header: Header) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for tensor in header.tensors.values():
        counts[SHORT_DTYPE.get(tensor.dtype, tensor.dtype.lower())] += tensor.elements
    return dict(counts.most_common())


def _parameters(header: Header, weight_format: WeightFormat) -> int:
    weights = [tensor for name, tensor in header.tensors.items() if not weight_format.is_part(name)]
    return sum(math.prod(weight_format.weight_shape(tensor)) for tensor in weights)


def _compute_dtype(header: Header, weight_format: WeightFormat) -> DType | None:
    """The data type of most values, among the tensors that tell it."""
    counts: Counter[DType] = Counter()
    for name, tensor in header.tensors.items():
        if tensor.dtype in _COMPUTED_IN and weight_format.tells_dtype(name):
            counts[_COMPUTED_IN[tensor.dtype]] += tensor.elements
    if not counts:
        return None
    return counts.most_common(1)[0][0]
