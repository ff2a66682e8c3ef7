"""The transformers of an engine: loaded from the files that a plan names, kept, and filled anew."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from reeltune.checkpoints.formats import format_of
from reeltune.checkpoints.header import read_header
from reeltune.checkpoints.loras.fitting import changes_whole_weights
from reeltune.definitions.slots import TRANSFORMER_2, Slot
from reeltune.engine.placing import Placement, fits, release
from reeltune.engine.reporting import Reporter
from reeltune.engine.speed import speed_up
from reeltune.engine.stamps import FilesInUse, Stamps
from reeltune.events import CancelToken
from reeltune.planning.fit import report_of
from reeltune.planning.memory import MemoryProfile
from reeltune.planning.plan import Plan
from reeltune.weights.load import MergedLora, load_transformer, peek_config
from reeltune.weights.lora.branches import AttachedLoras, attach_loras

_FileStamps = tuple[Stamps, ...]  # of a transformer's file, and of the modules merged into it; or of LoRAs


@dataclass(frozen=True)
class LoraFile:
    """A LoRA of a video: its file, its weight in each step, and the steps that its transformer makes."""

    path: Path
    weights: tuple[float, ...]
    steps: tuple[int, ...]

    @property
    def constant(self) -> float | None:
        """The weight in all of the transformer's steps; None if it changes."""
        weights = {self.weights[step] for step in self.steps}
        return weights.pop() if len(weights) == 1 else None


@dataclass
class LoadedTransformer:
    """A transformer in memory, and the LoRAs beside its layers.

    `stamps`, `lora_stamps`: the files that both were loaded from. `merged`: LoRAs that are part of its weights.
    `loras`: the LoRAs beside its layers, with the weights of this video.
    """

    stamps: _FileStamps
    merged: tuple[MergedLora, ...]
    model: nn.Module
    attached: AttachedLoras | None = None
    lora_stamps: _FileStamps = ()
    loras: tuple[LoraFile, ...] = ()

    def set_lora_weights(self, step: int, device: torch.device) -> None:
        """Use the LoRAs' weights of a step. `device`: where the model computes."""
        if self.attached is not None:
            self.attached.set_weights([lora.weights[step] for lora in self.loras], device)

    def attach_loras(self, plan: Plan, slot: Slot, files: Sequence[Path]) -> None:
        """Put LoRAs beside the layers of the model. Raises LoraMismatch, UnsupportedFormat, CheckpointError."""
        family = plan.definition.architecture.family
        self.attached = attach_loras(self.model, family, files, second=slot == TRANSFORMER_2)

    def remove_loras(self, placement: Placement) -> None:
        """Take the LoRAs off the model."""
        if self.attached is None:
            return
        placement.alter(self.model, self.attached.remove)
        self.attached, self.lora_stamps, self.loras = None, (), ()


class Models:
    """Loaded transformers by slot. What the preferences ask of their speed is set up while loading."""

    def __init__(self, reporter: Reporter, files: FilesInUse) -> None:
        self._reporter, self._files = reporter, files
        self._loaded: dict[Slot, LoadedTransformer] = {}
        self._configs: dict[_FileStamps, Any] = {}

    def __bool__(self) -> bool:
        return bool(self._loaded)

    def keep(self, plan: Plan, placement: Placement) -> None:
        """Release the transformers that a plan has no slot for."""
        for slot in [slot for slot in self._loaded if slot not in plan.selection.choices]:
            placement.forget(self._loaded.pop(slot).model, weights=False)
            release()

    def config(self, plan: Plan, slot: Slot) -> Any:
        """The config of a slot's transformer, which need not be loaded."""
        stamps = self._stamps(plan, slot)
        if stamps not in self._configs:
            path, *modules = plan.files(slot)
            self._configs[stamps] = peek_config(path, modules, plan.definition.architecture.config)
        return self._configs[stamps]

    def files(self, plan: Plan) -> list[Path]:
        """The files of the transformers that are loaded."""
        return list(dict.fromkeys(file for slot in self._loaded for file in plan.files(slot)))

    def _stamps(self, plan: Plan, slot: Slot) -> _FileStamps:
        return tuple(self._files.stamps_of(file) for file in plan.files(slot))

    def load(
        self, plan: Plan, slot: Slot, placement: Placement, loras: Sequence[LoraFile], cancel: CancelToken
    ) -> LoadedTransformer:
        """The transformer of a slot with LoRAs, loaded or filled anew only if its files have changed.

        Raises LoraMismatch, UnsupportedFormat and CheckpointError for LoRAs that can't be used.
        """
        merged = self._merged(plan, slot, loras)
        beside = () if merged else tuple(loras)
        stamps = self._stamps(plan, slot) + tuple(self._files.stamps_of(lora.path) for lora in merged)
        loaded = self._loaded.get(slot)
        if loaded is None or (loaded.stamps, loaded.merged) != (stamps, merged):
            loaded = self._load_anew(plan, slot, stamps, merged, placement, cancel)
        self._fit_loras(loaded, plan, slot, beside, placement)
        for lora in merged:
            report = report_of(plan, slot, lora.path)
            self._reporter.notice(f"{lora.path.name} × {lora.weight:g} is merged into the {slot}: {report}")
        return loaded

    def _merged(self, plan: Plan, slot: Slot, loras: Sequence[LoraFile]) -> tuple[MergedLora, ...]:
        """The LoRAs to merge into the weights: all, if that is preferred and possible; else none."""
        if not (loras and plan.preferences.merge_loras):
            return ()
        choices = [choice for other, choice in plan.selection.choices.items() if other == slot or other.is_module]
        if any(choice.keep or format_of(choice.quantization).stays_quantized for choice in choices):
            reason = "a file of the model is quantized"
        elif any(lora.constant is None for lora in loras):
            reason = "their weights change"
        elif len(loras) > 1 and any(changes_whole_weights(read_header(lora.path)) for lora in loras):
            reason = "one of several replaces or rescales whole weights"
        else:
            return tuple(MergedLora(lora.path, lora.constant or 0.0) for lora in loras)
        self._reporter.notice(f"LoRAs aren't merged into the {slot}, since {reason}: they are computed beside it.")
        return ()

    def _load_anew(
        self,
        plan: Plan,
        slot: Slot,
        stamps: _FileStamps,
        merged: tuple[MergedLora, ...],
        placement: Placement,
        cancel: CancelToken,
    ) -> LoadedTransformer:
        """Load a transformer, into the model that was there before if it is of the same shape."""
        before = self._loaded.pop(slot, None)
        old = None
        if before is not None:
            self._report_changes(before.stamps, stamps)
            before.remove_loras(placement)
            placement.forget(before.model, weights=False)
            old = before.model
            del before
        self._make_room(plan, slot, placement)
        model = self._fill(plan, slot, merged, old, cancel)
        speed_up(model, plan.preferences, placement.device, self._reporter)
        loaded = self._loaded[slot] = LoadedTransformer(stamps, merged, model)
        if old is not None and old is not model:
            del old
            release()  # modules hold references to each other: only a garbage collection frees their weights
        return loaded

    def _fit_loras(
        self, loaded: LoadedTransformer, plan: Plan, slot: Slot, loras: tuple[LoraFile, ...], placement: Placement
    ) -> None:
        """Put LoRAs beside the layers of a transformer, in place of those of the video before."""
        stamps = tuple(self._files.stamps_of(lora.path) for lora in loras)
        if loaded.lora_stamps != stamps:
            loaded.remove_loras(placement)
            if loras:
                attach = partial(loaded.attach_loras, plan, slot, [lora.path for lora in loras])
                placement.alter(loaded.model, attach)
            loaded.lora_stamps = stamps
        loaded.loras = loras
        if loaded.attached is not None:
            for lora, report in zip(loras, loaded.attached.reports, strict=True):
                self._reporter.notice(f"{lora.path.name} on {slot}: {report}")

    def _report_changes(self, before: _FileStamps, now: _FileStamps) -> None:
        """A notice for each file that isn't what it was when it was loaded."""
        for old, new in zip(before, now, strict=False):
            if old != new and old[0].path == new[0].path:
                self._reporter.notice(f"{new[0].path.name} changed on the disk: its weights are loaded again.")

    def _make_room(self, plan: Plan, slot: Slot, placement: Placement) -> None:
        """Drop the transformers that are loaded, where another one doesn't fit beside them."""
        resident = placement.profile is MemoryProfile.RESIDENT
        device = placement.device if resident else torch.device("cpu")
        size = sum(file.stat().st_size for file in plan.files(slot))
        if self._loaded and not fits(size, device):
            self._reporter.notice(f"{', '.join(self._loaded)} makes room for {slot}: they don't both fit.")
            self.drop(placement)

    def _fill(
        self, plan: Plan, slot: Slot, merged: Sequence[MergedLora], old: nn.Module | None, cancel: CancelToken
    ) -> nn.Module:
        """Load a slot's files, into the model that was there where it is of the same shape."""
        choices = plan.selection.choices
        parts = [choice for other, choice in choices.items() if other == slot or other.is_module]
        path, *modules = plan.files(slot)
        return load_transformer(
            path,
            choices[slot].dtype,
            modules=modules,
            config=plan.definition.architecture.config,
            quantize=any(choice.quantize_on_load for choice in parts),
            keep=any(choice.keep for choice in parts),
            loras=merged,
            second=slot == TRANSFORMER_2,
            into=old,
            listener=self._reporter.event,
            cancel=cancel,
        )

    def drop(self, placement: Placement | None) -> None:
        """Release all weights."""
        for loaded in self._loaded.values():
            if placement is not None:
                placement.forget(loaded.model, weights=False)
        self._loaded.clear()
        release()
