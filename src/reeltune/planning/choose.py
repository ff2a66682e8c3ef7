"""Which version of each slot to use: a pure choice, with a reason for every version passed over.

Facts go in (names, headers, what is on disk, what the device computes), a `Selection` comes out, and that one
result feeds the command line, the page, the downloader and the loader.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from reeltune.checkpoints.formats import WeightFormat, format_of
from reeltune.checkpoints.names import format_objection, quantization_objection, read_name
from reeltune.definitions.model import Definition, Version
from reeltune.definitions.slots import TEXT_ENCODER, TRANSFORMER, Role, Slot, role_of
from reeltune.dtypes import DType, Quantization
from reeltune.errors import ChoiceError, DeviceError
from reeltune.families import Architecture, Component
from reeltune.planning.contradiction import component_of, contradiction, size_contradiction
from reeltune.planning.selection import Cause as Cause
from reeltune.planning.selection import Choice as Choice
from reeltune.planning.selection import Facts as Facts
from reeltune.planning.selection import Rejection as Rejection
from reeltune.planning.selection import Selection as Selection
from reeltune.preferences import Preferences


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
    """What is preferred for a slot: "int8", "fp8" or 16 bits, in which data type, among those that can be computed.

    `stores_fp8`: whether the device can hold fp8 weights. `follows`: the transformer has set the data type. `converts`:
    the scales of quantized weights are converted to the data type. `size`: of a component, as the transformer needs it.
    `compared`: headers were compared with the component before. `notices`: preferences that could not be met.
    """

    quantization: str
    dtype: DType
    computable: tuple[DType, ...]
    auto_quantize: bool
    stores_fp8: bool = True
    follows: bool = False
    converts: bool = False
    size: int | None = None
    compared: bool = False
    notices: list[str] = field(default_factory=list)

    @property
    def wants_8_bits(self) -> bool:
        return self.quantization != "bf16"

    @property
    def label(self) -> str:
        return {"int8": "int8", "fp8": "fp8"}.get(self.quantization, "16 bits")

    def keeps(self, weight_format: WeightFormat) -> bool:
        """Whether weights of a format stay in memory as they are stored."""
        if self.converts or not (self.wants_8_bits and weight_format.can_stay):
            return False
        return self.stores_fp8 or weight_format.stored_as_int8


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
    *,
    stores_fp8: bool = True,
) -> Selection:
    """Choose a version for every slot.

    `computable`: data types of the device, the better one first; `facts` by URL, missing ones unknown. `stores_fp8`:
    whether the device can hold fp8 weights.
    Modules and the second transformer follow the transformer's data type. Raises ChoiceError when a slot has no
    usable version, with every reason; DeviceError when architecture and device share no data type.
    """
    target = _target(definition, preferences, computable)
    target.stores_fp8 = stores_fp8
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
    components: dict[Slot, Choice] = {}
    notices = target.notices
    for slot, versions in definition.component_versions.items():
        candidates = [_candidate(order, version, facts) for order, version in enumerate(versions)]
        target = _component_target(component_of(definition.architecture, slot), preferences, choices[TRANSFORMER])
        components[slot], passed_over = _choose_slot(slot, Role.COMPONENT, candidates, definition.architecture, target)
        rejected += passed_over
        notices += target.notices
    return Selection(choices, tuple(rejected), tuple(dict.fromkeys(notices)), components)


def choose_component(
    component: Component,
    facts: Sequence[Facts],
    architecture: Architecture,
    preferences: Preferences,
    transformer: Choice,
) -> tuple[Choice, list[str]]:
    """Choose among places on disk that have the same component, by the rule for versions.

    `facts`: of each place, in the order of preference between equals. Returns the choice, and preferences that it
    doesn't meet. Raises ChoiceError if none can be used.
    """
    target = replace(_component_target(component, preferences, transformer), compared=True)
    candidates = []
    for order, known in enumerate(facts):
        if known.found is not None:
            version = Version(str(known.found.path))
            candidates.append(_candidate(order, version, {version.url: known}))
    choice, _ = _choose_slot(Slot(component.name), Role.COMPONENT, candidates, architecture, target)
    return choice, target.notices


def _component_target(component: Component, preferences: Preferences, transformer: Choice) -> _Target:
    """What is preferred for a component: it computes in the transformer's data type, from files of any data type."""
    quantization = preferences.text_encoder_quantization if component.name == TEXT_ENCODER else "bf16"
    identity = transformer.facts.identity
    size = (identity.config or {}).get(component.feeds) if identity else None
    return _Target(
        quantization,
        transformer.dtype,
        (DType.BF16, DType.FP16),
        auto_quantize=True,
        converts=True,
        size=size if type(size) is int else None,
    )


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
        objection = _objection(candidate, architecture, slot, role, target)
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
    candidate: _Candidate, architecture: Architecture, slot: Slot, role: Role, target: _Target
) -> tuple[Cause, str] | None:
    """Why a version can't be used at all; None if it can."""
    version, facts = candidate.version, candidate.facts
    if reason := format_objection(version.url) or quantization_objection(candidate.quantization):
        return Cause.FORMAT, reason
    if facts.identity and facts.identity.objection:
        return Cause.FORMAT, facts.identity.objection
    identity = None if target.compared else facts.identity
    if identity and (reason := contradiction(identity, architecture, role, slot)):
        return Cause.OTHER_MODEL, reason
    if facts.identity and role is Role.COMPONENT:
        component = component_of(architecture, slot)
        if reason := size_contradiction(facts.identity, component, target.size):
            return Cause.OTHER_MODEL, reason
    if facts.broken:
        return Cause.BROKEN, facts.broken.rstrip(".")
    if not version.remote and facts.found is None:
        return _absent(version, facts)
    if target.converts:
        return None
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


def _rank(candidate: _Candidate, target: _Target) -> _Rank:
    return _Rank(
        quantization=_distance(candidate.format, target),
        other_dtype=candidate.dtype != target.dtype and not (candidate.format.converted_on_load or target.converts),
        absent=candidate.facts.found is None,
        order=candidate.order,
    )


def _distance(weight_format: WeightFormat, target: _Target) -> int:
    """How far a format is from the preferred quantization: 0 is what is preferred.

    Of formats that aren't preferred, those come first that lose least: 16 bits, then int8 before fp8 and others, and
    nvfp4 last.
    """
    is_quanto, is_int8 = weight_format.stays_quantized, weight_format.stored_as_int8
    sixteen_bits = not is_quanto and not weight_format.converted_on_load
    is_fp8 = weight_format.can_stay and not is_int8
    four_bits = _has_four_bits(weight_format)
    order: tuple[bool, ...]
    if target.quantization == "int8":
        order = (is_quanto, is_int8, sixteen_bits, not four_bits, True)
    elif target.quantization == "fp8":
        order = (is_fp8, is_quanto, is_int8, sixteen_bits, not four_bits, True)
    else:
        order = (sixteen_bits, not is_int8 and not four_bits, is_int8, True)
    return order.index(True)


def _has_four_bits(weight_format: WeightFormat) -> bool:
    return weight_format.quantization is Quantization.NVFP4


def _why_worse(candidate: _Candidate, best: _Candidate, target: _Target) -> str:
    """Why a version that could be used is passed over: the first thing in which the best one is better."""
    rank, best_rank = _rank(candidate, target), _rank(best, target)
    if rank.quantization != best_rank.quantization:
        preferred = "quanto int8" if target.quantization == "int8" else target.label
        actual = best.format.label
        reason = f"{preferred} is preferred" + ("" if actual == preferred else f", and {actual} comes closer")
        less_exact = candidate.format.converted_on_load and not best.format.converted_on_load
        less_exact = less_exact or _has_four_bits(candidate.format)
        return reason + (f"; {candidate.format.label} is less exact" if less_exact else "")
    if rank.other_dtype != best_rank.other_dtype:
        return f"{target.dtype} is preferred"
    if rank.absent != best_rank.absent:
        return "another is on disk already"
    return "another is listed before it"


def _choice(slot: Slot, best: _Candidate, target: _Target) -> Choice:
    """The choice of a candidate, with its reason; adds notices about preferences that it doesn't meet."""
    is_quanto, is_converted = best.format.stays_quantized, best.format.converted_on_load
    dtype = best.dtype if is_quanto and not target.converts else target.dtype
    keep = target.keeps(best.format)
    on_load = target.wants_8_bits and not is_quanto and (target.auto_quantize or is_converted)
    if keep and not best.format.stored_as_int8:
        on_load = False
    reasons = [best.format.label]
    source = "on disk" if target.converts and best.facts.found else "listed"
    if target.wants_8_bits and not is_quanto:
        reasons += _reasons_for_8_bits(slot, best.format, source, keep, on_load, target)
    if not target.wants_8_bits and (is_quanto or is_converted):
        reasons.append(f"no usable 16-bit version is {source}")
        used = "int8" if is_quanto else f"{best.format.label}, converted to 16 bits while loading,"
        target.notices.append(f"16 bits are preferred, but {slot} has no usable 16-bit version: {used} is used.")
    converted = best.dtype != dtype and not is_converted and not (target.converts and best.facts.identity is None)
    reasons.append(f"runs in {dtype}" + (f", converted from {best.dtype}" if converted else ""))
    if is_quanto and dtype != target.dtype:
        target.notices.append(f"{target.dtype} was preferred, but the int8 version of {slot} computes in {dtype}.")
    reasons.append("on disk" if best.facts.found else "not downloaded")
    return Choice(slot, best.version, best.facts, best.quantization, dtype, on_load, ", ".join(reasons), keep)


def _reasons_for_8_bits(
    slot: Slot, weight_format: WeightFormat, source: str, keep: bool, on_load: bool, target: _Target
) -> Iterator[str]:
    """What becomes of a version that isn't quanto int8, where 8 bits are preferred; a notice where it stays in 16."""
    preferred = target.quantization
    if not (preferred == "fp8" and keep) and not weight_format.stored_as_int8:
        yield f"no usable {preferred} version is {source}" + (": quantized to int8 while loading" if on_load else "")
    if keep:
        yield "its weights stay in 8 bits"
    elif not on_load:
        target.notices.append(
            f"{preferred} is preferred, but {slot} has no usable {preferred} version and the definition does not set "
            "auto_quantize: it runs in 16 bits."
        )
