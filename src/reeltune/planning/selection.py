"""What a choice of versions is based on, and what comes out of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from reeltune.checkpoints.identify import Identity
from reeltune.definitions.model import Version
from reeltune.definitions.slots import Slot
from reeltune.dtypes import DType, Quantization
from reeltune.library.inventory import FileOnDisk, UnusableFile


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

    `dtype`: the data type it runs in. `quantize_on_load`: its weights become int8 while they are loaded. `keep`:
    weights that are stored in 8 bits stay so in memory. `reason`: why it was chosen.
    """

    slot: Slot
    version: Version
    facts: Facts
    quantization: Quantization
    dtype: DType
    quantize_on_load: bool
    reason: str
    keep: bool = False

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
    """Everything chosen for a definition, every version passed over, and preferences that could not be met.

    `components`: the choices for components of which the definition lists versions of its own.
    """

    choices: Mapping[Slot, Choice]
    rejected: tuple[Rejection, ...]
    notices: tuple[str, ...]
    components: Mapping[Slot, Choice] = field(default_factory=dict)
