"""A file that fills a model, or part of it: its header with all names sorted out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from reeltune.checkpoints.contents import Header
from reeltune.checkpoints.formats import Faults, StoredWeight, WeightFormat, format_of
from reeltune.checkpoints.identify import Identity
from reeltune.checkpoints.keys import NameMap
from reeltune.checkpoints.names import base_name

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class WeightSource:
    """A file that fills a model, or part of it: its header, what it is, and its names sorted out."""

    header: Header
    identity: Identity
    names: NameMap

    @property
    def format(self) -> WeightFormat:
        """How its weights are stored."""
        return format_of(self.identity.quantization)

    def parameters(self) -> list[str]:
        """Stored names that become parameters (scales go with their data)."""
        weight_format = self.format
        return [name for name in self.names.diffusers if not weight_format.is_part(name)]

    def unknown(self) -> list[str]:
        """Stored names that are nothing of the model's, nor marks of how it is stored."""
        weight_format = self.format
        return [name for name in self.names.unknown if not weight_format.is_mark(name)]

    def stored_weight(self, stored: str) -> StoredWeight:
        """The tensors that make the weight whose values are stored under a name."""
        return self.format.stored_weight(stored, self.names.diffusers)

    def weight_shape(self, stored: str) -> tuple[int, ...]:
        """The shape of the weight whose values are stored under a name."""
        return self.format.weight_shape(self.header.tensors[stored])

    def faults(self) -> Faults:
        """What is wrong with the way in which its weights are stored."""
        file_name = base_name(self.header.file).lower()
        return self.format.faults(file_name, self.header.tensors, self.names.diffusers)
