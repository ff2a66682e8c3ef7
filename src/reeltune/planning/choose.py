"""Which version of each slot to use: a pure choice, with a reason for every version passed over.

Facts go in (names, headers, what is on disk, what the device computes), a `Selection` comes out, and that one
result feeds the command line, the page, the downloader and the loader.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from reeltune.checkpoints.formats import WeightFormat, format_of
from reeltune.checkpoints.identify import Identity
from reeltune.checkpoints.names import format_objection, quantization_objection, read_name
from reeltune.definitions.model import Definition, Version
from reeltune.definitions.slots import Role, Slot, role_of
from reeltune.dtypes import DType, Quantization
from reeltune.errors import ChoiceError, DeviceError
from reeltune.families import Architecture
from reeltune.library.inventory import FileOnDisk, UnusableFile
from reeltune.preferences import Preferences


@dataclass(frozen=True)
class Facts:
    """What is known of one version besides its name.

    `found`: the file on disk. `remote`: its header, read over the network. `unusable`: files of its name that can't be
    used. `broken`: why the file behind its URL is no checkpoint that can be used; empty where nothing says so.
    """

    found: FileOnDisk | None = None
    remote: Identity | None = None
    unusable: tuple[UnusableFile, ...] = ()
    broken: str = ""

    @property
    def identity(self) -> Identity | None:
        """What the header says, where it is known."""
        return self.found.identity if self.found else self.remote

    @property
    def bytes(self) -> int | None:
        """Size of the file, where it is known."""
        if self.found is not None:
            return self.found.bytes
        return self.remote.bytes if self.remote else None


@dataclass(frozen=True)
class Choice:
    """The version chosen for a slot.

    `dtype`: the data type it runs in. `quantize_on_load`: its 16-bit weights become int8 while they are loaded.
    `reason`: why it was chosen.
    """

    slot: Slot
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

    slot: Slot
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

    choices: Mapping[Slot, Choice]
    rejected: tuple[Rejection, ...]
    notices: tuple[str, ...]


@dataclass(frozen=True)
class _Candidate:
    """A version with the facts of its header where known, of its name otherwise. `order`: its place in the list."""

    order: int
    version: Version
    facts: Facts
    quantization: Quantization
    dtype: DType

    @property
    def format(self) -> WeightFormat:
        return format_of(self.quantization)


@dataclass
class _Target:
    """What is preferred for a slot: "int8" or 16 bits, in which data type, among those that can be computed.

    `follows`: the transformer has set the data type. `notices`: preferences that could not be met.
    """

    quantization: str
    dtype: DType
    computable: tuple[DType, ...]
    auto_quantize: bool
    follows: bool = False
    notices: list[str] = field(default_factory=list)

    @property
    def wants_int8(self) -> bool:
        return self.quantization == "int8"


class _Rank(NamedTuple):
    """How well a candidate fits: ranks compare like tuples, and the lowest is the best."""

    quantization: int
    other_dtype: bool
    absent: bool
    order: int


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
    choices: dict[Slot, Choice] = {}
    rejected: list[Rejection] = []
    for slot, versions in definition.slots.items():
        candidates = [_candidate(order, version, facts) for order, version in enumerate(versions)]
        role = role_of(slot, definition.slots)
        choice, passed_over = _choose_slot(slot, role, candidates, definition.architecture, target)
        choices[slot] = choice
        rejected += passed_over
        target.dtype = choice.dtype
        target.follows = True
        target.computable = (choice.dtype,)  # what follows must compute in the transformer's data type
    return Selection(choices, tuple(rejected), tuple(dict.fromkeys(target.notices)))


def _target(definition: Definition, preferences: Preferences, computable: Sequence[str]) -> _Target:
    architecture = definition.architecture
    shared = tuple(DType(dtype) for dtype in computable if dtype in architecture.data_types)
    if not shared:
        raise DeviceError(
            f"{architecture.family.label} computes in {', '.join(architecture.data_types)}, the device only in "
            f"{', '.join(computable)}.",
            hint="Choose another device (`--device cpu`).",
        )
    preferred = shared[0] if preferences.dtype == "auto" else DType(preferences.dtype)
    notices = []
    if preferred not in shared:
        culprit = "the device" if preferred in architecture.data_types else architecture.family.label
        notices.append(f"{preferred} is preferred, but {culprit} does not compute in it: {shared[0]} is used.")
        preferred = shared[0]
    return _Target(preferences.quantization, preferred, shared, definition.auto_quantize, notices=notices)


def _candidate(order: int, version: Version, facts: Mapping[str, Facts]) -> _Candidate:
    """The version with what is known of it. A name without a data type means bf16."""
    known = facts.get(version.url, Facts())
    name, identity = read_name(version.url), known.identity
    quantization = identity.quantization if identity else name.quantization
    dtype = name.dtype or DType.BF16
    if identity is not None and identity.dtype in (DType.BF16, DType.FP16):
        dtype = identity.dtype
    return _Candidate(order, version, known, quantization, dtype)


def _choose_slot(
    slot: Slot, role: Role, candidates: Sequence[_Candidate], architecture: Architecture, target: _Target
) -> tuple[Choice, list[Rejection]]:
    """The best candidate, and the others with the reason why they are passed over. Raises ChoiceError."""
    usable: list[_Candidate] = []
    missing: list[_Candidate] = []
    rejected: list[Rejection] = []
    for candidate in candidates:
        objection = _objection(candidate, architecture, role, target)
        if objection is None:
            usable.append(candidate)
            continue
        cause, reason = objection
        rejected.append(Rejection(slot, candidate.version, reason, cause))
        if cause is Cause.ABSENT or (cause is Cause.BROKEN and candidate.facts.broken):
            missing.append(candidate)
    if not usable:
        reasons = "; ".join(f"{rejection.version.file_name}: {rejection.reason}" for rejection in rejected)
        message = f"No version of {slot} can be used. {reasons}."
        raise ChoiceError(message, rejected=rejected, hint=_advice(rejected))
    best = min(usable, key=lambda candidate: _rank(candidate, target))
    better = [candidate.version for candidate in missing if _rank(candidate, target) < _rank(best, target)]
    for rejection in rejected:
        if rejection.version in better:
            target.notices.append(f"{rejection.version.file_name} is passed over: {rejection.reason}.")
    for candidate in usable:
        if candidate is not best:
            reason = _why_worse(candidate, best, target)
            rejected.append(Rejection(slot, candidate.version, reason, Cause.RANK))
    return _choice(slot, best, target), rejected


def _advice(rejected: Sequence[Rejection]) -> str:
    """What to do where no version can be used."""
    causes = {rejection.cause for rejection in rejected}
    if Cause.ABSENT in causes:
        return "Put the file there, or correct its path in the definition."
    if Cause.OTHER_MODEL in causes:
        return "List a file of this architecture, or write the architecture that the file is of."
    if Cause.BROKEN in causes:
        return "Correct the URL or replace the file."
    return "Add a bf16 or fp16 version to the definition."


def _objection(
    candidate: _Candidate, architecture: Architecture, role: Role, target: _Target
) -> tuple[Cause, str] | None:
    """Why a version can't be used at all; None if it can."""
    version, facts = candidate.version, candidate.facts
    if reason := format_objection(version.url) or quantization_objection(candidate.quantization):
        return Cause.FORMAT, reason
    if facts.identity and (reason := contradiction(facts.identity, architecture, role)):
        return Cause.OTHER_MODEL, reason
    if facts.broken:
        return Cause.BROKEN, facts.broken.rstrip(".")
    if not version.remote and facts.found is None:
        return _absent(version, facts)
    if candidate.format.stays_quantized and candidate.dtype not in target.computable:
        reason = f"its int8 weights compute in {candidate.dtype}, "
        reason += f"the transformer in {target.dtype}" if target.follows else "which this model on this device does not"
        return Cause.DATA_TYPE, reason
    return None


def _absent(version: Version, facts: Facts) -> tuple[Cause, str]:
    """Why a path can't be used: nothing is there, or something else than what is needed."""
    at_path = next((file for file in facts.unusable if file.named), None)
    if at_path is not None:
        cause = Cause.OTHER_MODEL if at_path.other_model else Cause.BROKEN
        return cause, at_path.reason.rstrip(".")
    others = "".join(f"; {file.path} can't take its place: {file.reason.rstrip('.')}" for file in facts.unusable)
    return Cause.ABSENT, f"the file {version.url} is not there{others}"


def contradiction(identity: Identity, architecture: Architecture, role: Role = Role.WHOLE) -> str:
    """Why a header can't be that of a version of this architecture; empty if it can."""
    same_family = identity.family == architecture.family.name
    if same_family and _suits(identity, architecture, role):
        return ""
    if same_family and role is Role.MODULE:
        return "it is a whole model, not a module"
    actual = ", ".join(identity.compatible) or identity.family or "no known model"
    return f"its header is that of {actual} ({', '.join(identity.evidence)})"


def _suits(identity: Identity, architecture: Architecture, role: Role) -> bool:
    if role is Role.MODULE:
        return identity.role == "module"
    if role is Role.BASE:  # what the modules bring isn't in it
        return identity.role == "model" and architecture.signature.allows(identity.config)
    return identity.fits(architecture.id)


def _rank(candidate: _Candidate, target: _Target) -> _Rank:
    return _Rank(
        quantization=_distance(candidate.format, target),
        other_dtype=candidate.dtype != target.dtype and not candidate.format.converted_on_load,
        absent=candidate.facts.found is None,
        order=candidate.order,
    )


def _distance(weight_format: WeightFormat, target: _Target) -> int:
    """How far a format is from the preferred quantization: 0 is what is preferred."""
    sixteen_bits = not weight_format.stays_quantized and not weight_format.converted_on_load
    if target.wants_int8:
        order = (weight_format.stays_quantized, sixteen_bits, weight_format.converted_on_load)
    else:
        order = (sixteen_bits, weight_format.converted_on_load, weight_format.stays_quantized)
    return order.index(True)


def _why_worse(candidate: _Candidate, best: _Candidate, target: _Target) -> str:
    """Why a version that could be used is passed over: the first thing in which the best one is better."""
    rank, best_rank = _rank(candidate, target), _rank(best, target)
    if rank.quantization != best_rank.quantization:
        preferred = "quanto int8" if target.wants_int8 else "16 bits"
        actual = best.format.label
        reason = f"{preferred} is preferred" + ("" if actual == preferred else f", and {actual} comes closer")
        less_exact = candidate.format.converted_on_load and not best.format.converted_on_load
        return reason + (f"; {candidate.format.label} is less exact" if less_exact else "")
    if rank.other_dtype != best_rank.other_dtype:
        return f"{target.dtype} is preferred"
    if rank.absent != best_rank.absent:
        return "another is on disk already"
    return "another is listed before it"


def _choice(slot: Slot, best: _Candidate, target: _Target) -> Choice:
    """The choice of a candidate, with its reason; adds notices about preferences that it doesn't meet."""
    is_int8, is_converted = best.format.stays_quantized, best.format.converted_on_load
    dtype = best.dtype if is_int8 else target.dtype
    on_load = target.wants_int8 and not is_int8 and (target.auto_quantize or is_converted)
    reasons = [best.format.label]
    if target.wants_int8 and not is_int8:
        reasons.append("no usable int8 version is listed" + (": quantized while loading" if on_load else ""))
        if not on_load:
            target.notices.append(
                f"int8 is preferred, but {slot} has no usable int8 version and the definition does not set "
                "auto_quantize: it runs in 16 bits."
            )
    if not target.wants_int8 and (is_int8 or is_converted):
        reasons.append("no usable 16-bit version is listed")
        used = "int8" if is_int8 else f"{best.format.label}, converted to 16 bits while loading,"
        target.notices.append(f"16 bits are preferred, but {slot} has no usable 16-bit version: {used} is used.")
    converted = best.dtype != dtype and not is_converted
    reasons.append(f"runs in {dtype}" + (f", converted from {best.dtype}" if converted else ""))
    if is_int8 and dtype != target.dtype:
        target.notices.append(f"{target.dtype} was preferred, but the int8 version of {slot} computes in {dtype}.")
    reasons.append("on disk" if best.facts.found else "not downloaded")
    return Choice(slot, best.version, best.facts, best.quantization, dtype, on_load, ", ".join(reasons))
