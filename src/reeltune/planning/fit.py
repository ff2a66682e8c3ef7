"""What of a plan's LoRAs fits its model, by the headers of the files on disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from reeltune.checkpoints.header import read_header
from reeltune.checkpoints.identify import identify
from reeltune.checkpoints.keys import map_names
from reeltune.checkpoints.loras import LoraReport, Targets, fit_lora
from reeltune.checkpoints.source import WeightSource
from reeltune.definitions.slots import TRANSFORMER_2, TRANSFORMERS, Slot
from reeltune.errors import CheckpointError
from reeltune.families import Family
from reeltune.planning.plan import Plan


def check_loras(plan: Plan) -> tuple[LoraReport, ...]:
    """What of each LoRA of a plan fits the model. All files must be on disk; only headers are read.

    Of two transformers, a LoRA may fit only one. Raises LoraMismatch if nothing of a LoRA fits, UnsupportedFormat for
    other kinds of files, CheckpointError for damaged ones.
    """
    if not plan.loras:
        return ()
    family = plan.definition.architecture.family
    targets = {slot: file_targets(plan.files(slot), family) for slot in _transformers(plan)}
    return tuple(_report(lora.item.path, targets) for lora in plan.loras)


def reports_on_disk(plan: Plan) -> tuple[LoraReport | None, ...]:
    """The same for plans whose files may be missing: None for each LoRA that can't be compared with the model."""
    slots = _transformers(plan)
    slot_files = [path for slot in slots for path in plan.files(slot)]
    missing = {item.path for item in plan.missing}
    if missing.intersection(slot_files):
        return tuple(None for _ in plan.loras)
    family = plan.definition.architecture.family
    targets = {slot: file_targets(plan.files(slot), family) for slot in slots}
    return tuple(None if lora.item.path in missing else _report(lora.item.path, targets) for lora in plan.loras)


def report_of(plan: Plan, slot: Slot, lora: Path) -> LoraReport:
    """What of a LoRA file fits the transformer of a slot. Raises as `check_loras`."""
    targets = file_targets(plan.files(slot), plan.definition.architecture.family)
    return fit_lora(lora, read_header(lora), targets, second=slot == TRANSFORMER_2).report


def _transformers(plan: Plan) -> list[Slot]:
    return [slot for slot in TRANSFORMERS if slot in plan.selection.choices]


def _report(lora: Path, targets: Mapping[Slot, Targets]) -> LoraReport:
    """What of a LoRA fits the first transformer that it fits."""
    header = read_header(lora)
    first_error: CheckpointError | None = None
    for slot, of_slot in targets.items():
        try:
            return fit_lora(lora, header, of_slot, second=slot == TRANSFORMER_2).report
        except CheckpointError as error:
            first_error = first_error or error
    assert first_error is not None
    raise first_error


def file_targets(files: Sequence[Path], family: Family) -> Targets:
    """The parameters that are stored in files, as the targets of LoRAs."""
    sources = []
    for file in files:
        header = read_header(file)
        identity = identify(header)
        names = map_names(header.tensors, family, identity.layout or "original", identity.prefix)
        sources.append(WeightSource(header, identity, names))
    return Targets(family, *sources)
