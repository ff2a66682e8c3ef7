"""Files on disk, as searches find them: usable ones with what their headers say, and others with the reason."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from reeltune.checkpoints.identify import Identity


@dataclass(frozen=True)
class FileOnDisk:
    """A usable file. `identity` is None for files that aren't checkpoints."""

    path: Path
    bytes: int
    identity: Identity | None
    notices: tuple[str, ...] = ()


@dataclass(frozen=True)
class UnusableFile:
    """A file with the name of a version that can't be used for it, and the reason.

    `foreign`: it is a sound file, but another one. `other_model`: its header contradicts the architecture. `named`: it
    is at the path that the definition lists.
    """

    path: Path
    reason: str
    foreign: bool = False
    other_model: bool = False
    named: bool = False

    @property
    def notice(self) -> str:
        """A notice that it is not used, and why."""
        return f"{self.path} is not used: {self.reason}"
