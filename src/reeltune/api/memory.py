"""The memory that the bodies of requests take, which is limited for all of them together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from reeltune.api.errors import ApiError


class BodyMemory:
    """At most `most_bytes` of bodies that are read or used at the same time. For one event loop."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self.taken = 0

    @contextmanager
    def share(self) -> Iterator[BodyShare]:
        """The share of one body. It is free again at the end of the block."""
        share = BodyShare(self)
        try:
            yield share
        finally:
            self.taken -= share.taken

    def take(self, size: int) -> None:
        """Take bytes. Raises ApiError where too many are taken."""
        if self.taken + size > self._most_bytes:
            message = "The server is busy with large requests. Send this one again later."
            raise ApiError(503, message, code="too_busy")
        self.taken += size


class BodyShare:
    """What one body takes of a memory."""

    def __init__(self, memory: BodyMemory) -> None:
        self._memory = memory
        self.taken = 0

    def grow_to(self, size: int) -> None:
        """Take as many bytes as the body has now. Raises ApiError where all bodies together have too many."""
        if size > self.taken:
            self._memory.take(size - self.taken)
            self.taken = size
