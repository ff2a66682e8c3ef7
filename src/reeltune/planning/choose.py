"""Which version of each slot to use: a pure choice, with a reason for every version passed over.

Facts go in (names, headers, what is on disk, what the device computes), a `Selection` comes out, and that one
result feeds the command line, the page, the downloader and the loader.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from reeltune.checkpoints.formats import format_of
from reeltune.checkpoints.identify import Identity
from reeltune.checkpoints.names import format_objection, quantization_objection, read_name
from reeltune.definitions.model import Definition, Version
from reeltune.dtypes import DType, Quantization
from reeltune.errors import ChoiceError, DeviceError
from reeltune.families import Architecture
from reeltune.library.inventory import Found, Unusable
from reeltune.preferences import Preferences


@dataclass(frozen=True)
class Facts:
    """What is known of one version besides its name: the file on disk, or its header read over the network."""

    found: Found | None = None
    remote: Identity | None = None
    unusable: tuple[Unusable, ...] = ()
    broken: str = ""  # why the file behind the link is no checkpoint that can be used

    @property
    def identity(self) -> Identity | None:
        """The header's word, where it is known."""
        return self.found.identity if self.found else self.remote

    @property
    def bytes(self) -> int | None:
        """Size of the file where it is known."""
        identity = self.identity
        return self.found.bytes if self.found else identity.bytes if identity else None


@dataclass(frozen=True)
class Choice:
    """The version chosen for a slot. `dtype` is the run's; `reason` says why it won."""

    slot: str
    version: Version
    facts: Facts
    quantization: Quantization
    dtype: DType
    quantize_on_load: bool
    reason: str

    @property
    def present(self) -> bool:
        """Whether the file is on disk."""
        return self.facts.found is not None


class Cause(Enum):
    """Why a version is passed over."""

    FORMAT = "format"  # it is never loaded, or its quantization can't be
    OTHER_MODEL = "other model"  # its header contradicts the architecture
    DATA_TYPE = "data type"  # it is quantized, and can't be computed in its data type
    BROKEN = "broken"  # what is behind its URL, or at its path, is no sound checkpoint
    ABSENT = "absent"  # it is a path, and nothing is there
    RANK = "rank"  # another one fits better


@dataclass(frozen=True)
class Rejection:
    """A version passed over, and why."""

    slot: str
    version: Version
    reason: str
    cause: Cause

    @property
    def unusable(self) -> bool:
        """Whether it could not have been used at all."""
        return self.cause is not Cause.RANK


@dataclass(frozen=True)
class Selection:
    """Everything chosen for a definition, every version passed over, and preferences that could not be met."""

    choices: Mapping[str, Choice]
    rejected: tuple[Rejection, ...]
    notices: tuple[str, ...]


@dataclass(frozen=True)
class _Candidate:
    order: int
    version: Version
    facts: Facts
    quantization: Quantization
    dtype: DType


@dataclass
class _Target:
    """What is preferred for a slot: "int8" or 16 bits, in which data type, among those that can be computed."""

    quantization: str
    dtype: DType
    computable: tuple[str, ...]
    auto_quantize: bool
    follows: bool = False  # the transformer has set the data type
    notices: list[str] = field(default_factory=list)


def choose(
    definition: Definition,
    preferences: Preferences,
    computable: Sequence[str],
    facts: Mapping[str, Facts],
) -> Selection:
    """Choose a version for every slot.

    `computable`: data types of the device, the better one first; `facts` by URL, missing ones unknown.
    Modules and the second transformer follow the transformer's data type. Raises ChoiceError when a slot has no
    usable version, with every reason; DeviceError when architecture and device share no data type.
    """
    target = _target(definition, preferences, computable)
    choices: dict[str, Choice] = {}
    rejected: list[Rejection] = []
    for slot, versions in definition.slots.items():
        role = role_of(slot, definition.slots)
        choice, passed = _choose_slot(slot, role, versions, definition.architecture, target, facts)
        choices[slot] = choice
        rejected += passed
        target.dtype = choice.dtype
        target.follows = True
        target.computable = (choice.dtype,)  # what follows must compute in the transformer's data type
    return Selection(choices, tuple(rejected), tuple(dict.fromkeys(target.notices)))


def _target(definition: Definition, preferences: Preferences, computable: Sequence[str]) -> _Target:
    architecture = definition.architecture
    shared = tuple(dtype for dtype in architecture.data_types if dtype in computable)
    if not shared:
        raise DeviceError(
            f"{architecture.family.label} computes in {', '.join(architecture.data_types)}, the device only in "
            f"{', '.join(computable)}.",
            hint="Choose another device (`--device cpu`).",
        )
    shared = tuple(dtype for dtype in computable if dtype in shared)
    wanted = shared[0] if preferences.dtype == "auto" else preferences.dtype
    notices = []
    if wanted not in shared:
        by = architecture.family.label if wanted not in architecture.data_types else "the device"
        notices.append(f"{wanted} is preferred, but {by} does not compute in it: {shared[0]} is used.")
        wanted = shared[0]
    return _Target(preferences.quantization, DType(wanted), shared, definition.auto_quantize, notices=notices)


def _choose_slot(
    slot: str,
    role: str,
    versions: Sequence[Version],
    architecture: Architecture,
    target: _Target,
    facts: Mapping[str, Facts],
) -> tuple[Choice, list[Rejection]]:
    candidates = [_candidate(order, row, facts.get(row.url, Facts())) for order, row in enumerate(versions)]
    usable: list[_Candidate] = []
    rejected: list[Rejection] = []
    lost: list[_Candidate] = []
    for row in candidates:
        objection = _unusable(row, architecture, role, target)
        if objection is None:
            usable.append(row)
            continue
        cause, reason = objection
        rejected.append(Rejection(slot, row.version, reason, cause))
        if cause is Cause.ABSENT or (cause is Cause.BROKEN and row.facts.broken):
            lost.append(row)
    if not usable:
        reasons = "; ".join(f"{row.version.file_name}: {row.reason}" for row in rejected)
        message = f"No version of {slot} can be used. {reasons}."
        raise ChoiceError(message, rejected=rejected, hint=_advice(rejected))
    best = min(usable, key=lambda row: _rank(row, target))
    better = [row.version for row in lost if _rank(row, target) < _rank(best, target)]
    target.notices += [
        f"{row.version.file_name} is passed over: {row.reason}." for row in rejected if row.version in better
    ]
    rejected += [
        Rejection(slot, row.version, _worse(row, best, target), Cause.RANK) for row in usable if row is not best
    ]
    return _choice(slot, best, target), rejected


def _advice(rejected: Sequence[Rejection]) -> str:
    """What to do where no version can be used."""
    causes = {row.cause for row in rejected}
    if Cause.ABSENT in causes:
        return "Put the file there, or correct its path in the definition."
    if Cause.OTHER_MODEL in causes:
        return "List a file of this architecture, or write the architecture that the file is of."
    if Cause.BROKEN in causes:
        return "Correct the URL or replace the file."
    return "Add a bf16 or fp16 version to the definition."


def _candidate(order: int, version: Version, facts: Facts) -> _Candidate:
    """The version with its header's facts where known, its name's otherwise; no token means bf16."""
    name, identity = read_name(version.url), facts.identity
    quantization = identity.quantization if identity else name.quantization
    dtype = identity.dtype if identity and identity.dtype in (DType.BF16, DType.FP16) else name.dtype
    return _Candidate(order, version, facts, quantization, dtype or DType.BF16)


def _unusable(row: _Candidate, architecture: Architecture, role: str, target: _Target) -> tuple[Cause, str] | None:
    """Why a version can't be used at all; None if it can."""
    if objection := format_objection(row.version.url) or quantization_objection(row.quantization):
        return Cause.FORMAT, objection
    if row.facts.identity and (objection := contradiction(row.facts.identity, architecture, role)):
        return Cause.OTHER_MODEL, objection
    if row.facts.broken:
        return Cause.BROKEN, row.facts.broken.rstrip(".")
    if not row.version.remote and row.facts.found is None:
        return _absent(row.version, row.facts)
    if format_of(row.quantization).stays_quantized and row.dtype not in target.computable:
        if target.follows:
            return Cause.DATA_TYPE, f"its int8 weights compute in {row.dtype}, the transformer in {target.dtype}"
        return Cause.DATA_TYPE, f"its int8 weights compute in {row.dtype}, which this model on this device does not"
    return None


def _absent(version: Version, facts: Facts) -> tuple[Cause, str]:
    """Why a path can't be used: nothing is there, or something else than what is needed."""
    own = next((row for row in facts.unusable if row.named), None)
    if own is not None:
        return (Cause.OTHER_MODEL if own.other_model else Cause.BROKEN), own.reason.rstrip(".")
    others = "".join(f"; {row.path} can't take its place: {row.reason.rstrip('.')}" for row in facts.unusable)
    return Cause.ABSENT, f"the file {version.url} is not there{others}"


def contradiction(identity: Identity, architecture: Architecture, role: str = "whole") -> str:
    """Why a header can't be that of a version of this architecture; empty if it can.

    `role`: "whole" model, "base" that modules are merged into, or "module".
    """
    if identity.family == architecture.family.name and _suits(identity, architecture, role):
        return ""
    if identity.family == architecture.family.name and role == "module":
        return "it is a whole model, not a module"
    fits = ", ".join(identity.compatible) or identity.family or "no known model"
    return f"its header is that of {fits} ({', '.join(identity.evidence)})"


def _suits(identity: Identity, architecture: Architecture, role: str) -> bool:
    if role == "module":
        return identity.role == "module"
    if role == "base":  # what the modules bring isn't in it
        return identity.role == "model" and architecture.signature.allows(identity.config)
    return identity.fits(architecture.id)


def role_of(slot: str, slots: Mapping[str, object]) -> str:
    """What a slot's files are: whole models, bases that modules are merged into, or modules."""
    if slot.startswith("modules"):
        return "module"
    return "base" if any(other.startswith("modules") for other in slots) else "whole"


def _rank(row: _Candidate, target: _Target) -> tuple[int, int, int, int]:
    """Lower is better: quantization, data type, on disk, order in the list."""
    return (
        _tier(row.quantization, target.quantization),
        int(row.dtype != target.dtype and not format_of(row.quantization).converted_on_load),
        int(row.facts.found is None),
        row.order,
    )


def _tier(quantization: Quantization, preferred: str) -> int:
    """How close a quantization comes to the preferred one ("int8" or 16 bits): 0 is what is preferred, 2 the least."""
    weight_format = format_of(quantization)
    sixteen_bits = not weight_format.stays_quantized and not weight_format.converted_on_load
    if preferred == "int8":
        order = (weight_format.stays_quantized, sixteen_bits, weight_format.converted_on_load)
    else:
        order = (sixteen_bits, weight_format.converted_on_load, weight_format.stays_quantized)
    return order.index(True)


def _worse(row: _Candidate, best: _Candidate, target: _Target) -> str:
    mine, winner = _rank(row, target), _rank(best, target)
    step = next(index for index in range(4) if mine[index] != winner[index])
    if step == 0:
        preferred = "quanto int8" if target.quantization == "int8" else "16 bits"
        best_kind = format_of(best.quantization).label
        return f"{preferred} is preferred" + ("" if best_kind == preferred else f", and {best_kind} comes closer")
    if step == 1:
        return f"{target.dtype} is preferred"
    return "another is on disk already" if step == 2 else "another is listed before it"


def _choice(slot: str, best: _Candidate, target: _Target) -> Choice:
    weight_format = format_of(best.quantization)
    quantized, converted = weight_format.stays_quantized, weight_format.converted_on_load
    dtype = best.dtype if quantized else target.dtype
    on_load = target.quantization == "int8" and not quantized and (target.auto_quantize or converted)
    parts = [weight_format.label]
    if target.quantization == "int8" and not quantized:
        parts.append("no usable int8 version is listed" + (": quantized while loading" if on_load else ""))
        if not on_load:
            target.notices.append(
                f"int8 is preferred, but {slot} has no usable int8 version and the definition does not set "
                "auto_quantize: it runs in 16 bits."
            )
    if target.quantization != "int8" and (quantized or converted):
        parts.append("no usable 16-bit version is listed")
        kind = "int8" if quantized else f"{weight_format.label}, converted to 16 bits while loading,"
        target.notices.append(f"16 bits are preferred, but {slot} has no usable 16-bit version: {kind} is used.")
    parts.append(f"runs in {dtype}" + ("" if best.dtype == dtype or converted else f", converted from {best.dtype}"))
    if quantized and dtype != target.dtype:
        target.notices.append(f"{target.dtype} was preferred, but the int8 version of {slot} computes in {dtype}.")
    parts.append("on disk" if best.facts.found else "not downloaded")
    return Choice(slot, best.version, best.facts, best.quantization, dtype, on_load, ", ".join(parts))
