"""What is known of a checkpoint without its data: what readers of headers make, and weight formats look at."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol


class Source(Protocol):
    """Bytes that can be read anywhere: a file, or a URL that answers Range requests."""

    @property
    def name(self) -> str:
        """What to call it in messages."""

    def size(self) -> int:
        """Length in bytes."""

    def read_at(self, offset: int, length: int) -> bytes:
        """Exactly `length` bytes from `offset`, or fewer at the end."""


@dataclass(frozen=True)
class Tensor:
    """What the header says of one tensor; `begin` and `end` count from the start of the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def elements(self) -> int:
        """Number of values."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Header:
    """Names, dtypes, shapes and metadata of a checkpoint, without its data.

    `trailing` counts bytes after the data, which some writers leave and no reader needs. `notes`: small tensors that
    say how a layer is stored, by name; over the network, only some are read where they lie apart. `container`: the kind
    of file.
    """

    file: str
    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str]
    file_bytes: int
    data_start: int
    trailing: int = 0
    notices: tuple[str, ...] = field(default=())
    notes: Mapping[str, bytes] = field(default_factory=dict)
    container: str = "safetensors"
