"""The transformers of an engine: loaded from the files that a plan names, kept, and filled anew."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from reeltune.definitions.slots import Slot
from reeltune.engine.placing import Placement, fits, release
from reeltune.engine.reporting import Reporter
from reeltune.engine.speed import speed_up
from reeltune.engine.stamps import FilesInUse, Stamps
from reeltune.events import CancelToken
from reeltune.planning.memory import MemoryProfile
from reeltune.planning.plan import Plan
from reeltune.weights.load import load_transformer, peek_config

_FileStamps = tuple[Stamps, ...]  # of a transformer's file, and of the modules merged into it


class Models:
    """Loaded transformers by slot. What the preferences ask of their speed is set up while loading."""

    def __init__(self, reporter: Reporter, files: FilesInUse) -> None:
        self._reporter, self._files = reporter, files
        self._loaded: dict[Slot, tuple[_FileStamps, nn.Module]] = {}
        self._configs: dict[_FileStamps, Any] = {}

    def __bool__(self) -> bool:
        return bool(self._loaded)

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

    def load(self, plan: Plan, slot: Slot, placement: Placement, cancel: CancelToken) -> nn.Module:
        """The transformer of a slot: as it is, where its files are those that were loaded, else filled with them."""
        stamps = self._stamps(plan, slot)
        loaded_stamps, old = self._loaded.get(slot, ((), None))
        if old is not None and loaded_stamps == stamps:
            return old
        self._loaded.pop(slot, None)
        self._report_changes(loaded_stamps, stamps)
        if old is not None:
            placement.forget(old, weights=False)
        self._make_room(plan, slot, placement)
        model = self._fill(plan, slot, old, cancel)
        speed_up(model, plan.preferences, placement.device, self._reporter)
        self._loaded[slot] = stamps, model
        if old is not None and old is not model:
            del old
            release()  # modules hold references to each other: only a garbage collection frees their weights
        return model

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
            self._reporter.notice(f"{', '.join(self._loaded)} makes room for {slot}: both don't fit.")
            self.drop(placement)

    def _fill(self, plan: Plan, slot: Slot, old: nn.Module | None, cancel: CancelToken) -> nn.Module:
        """Load a slot's files, into the model that was there where it is of the same shape."""
        choices = plan.selection.choices
        merged = [choice for other, choice in choices.items() if other == slot or other.is_module]
        path, *modules = plan.files(slot)
        return load_transformer(
            path,
            choices[slot].dtype,
            modules=modules,
            config=plan.definition.architecture.config,
            quantize=any(choice.quantize_on_load for choice in merged),
            into=old,
            listener=self._reporter.event,
            cancel=cancel,
        )

    def drop(self, placement: Placement | None) -> None:
        """Release all weights."""
        for _, model in self._loaded.values():
            if placement is not None:
                placement.forget(model, weights=False)
        self._loaded.clear()
        release()
