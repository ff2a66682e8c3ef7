"""Small components that work on latents now and then: the latent upsampler, and what makes sound of latents."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from reeltune.engine.placing import Placement, Result, out_of_memory, release
from reeltune.engine.reporting import Reporter
from reeltune.engine.stages import find, load_component
from reeltune.engine.stamps import FilesInUse, Stamps
from reeltune.families import Architecture


class PartSlot:
    """A component of an engine, loaded on first use, and again if its files have changed. It computes in fp32."""

    def __init__(self, name: str, reporter: Reporter, files: FilesInUse) -> None:
        self._name, self._reporter, self._files = name, reporter, files
        self._loaded: tuple[Stamps, Any] | None = None

    def get(self, architecture: Architecture, path: Path) -> Any:
        """The component in a file or folder, on the CPU, fp32. Raises CheckpointError, GenerationError."""
        stamps = self._files.stamps_of(path)
        if self._loaded is None or self._loaded[0] != stamps:
            self._loaded = None
            model = load_component(find(architecture, self._name), path, torch.float32)
            self._loaded = stamps, model
        return self._loaded[1]

    def drop(self, placement: Placement | None) -> None:
        """Release it."""
        if self._loaded is not None and placement is not None:
            placement.forget(self._loaded[1], weights=False)
        self._loaded = None

    def run(self, work: Callable[[Any, torch.device], Result], model: Any, placement: Placement) -> Result:
        """What `work` returns for the model and the device it is on: the CPU, if the device runs out of memory."""
        try:
            with placement.visiting(model):
                return work(model, placement.device)
        except Exception as error:
            if not out_of_memory(error) or placement.device.type == "cpu":
                raise
        self._reporter.notice(f"Out of memory in the {self._name.replace('_', ' ')}: it computes on the CPU.")
        placement.forget(model)
        release()
        cpu = torch.device("cpu")
        return work(model.to(cpu), cpu)
