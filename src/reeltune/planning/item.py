"""The files of a plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from reeltune.planning.facts import listed_sha256


@dataclass(frozen=True)
class Item:
    """A file or a component that a plan needs.

    `subject`: the slot ("transformer", "preload"), the component ("vae") or the LoRA ("loras[0]"). `path`: the file, or
    the folder of a component. `bytes`: None while unknown; bytes of a file that an earlier item has too aren't counted.
    `weights`: whether it must be a checkpoint. `sha256_by_name`: the sha256 that the definition lists, by file name or
    URL (some URLs don't contain the name). `obstacle`: what is wrong with the file at `path`. `in_place`: whether it is
    a file of another program, or one that reeltune didn't download.

    Components only: `repository` on the Hub, and `patterns` of the needed files; both empty if the definition lists
    versions of it. `more`: other files that it is assembled from. `quantize`: its 16-bit weights become int8 while they
    are loaded. `memory`: bytes that its weights take in memory, if that isn't the size of the files.
    """

    subject: str
    url: str
    path: Path
    present: bool
    bytes: int | None
    weights: bool = False
    sha256_by_name: Mapping[str, str] = field(default_factory=dict)
    repository: str = ""
    patterns: tuple[str, ...] = ()
    obstacle: str = ""
    in_place: bool = False
    component: bool = False
    more: tuple[Path, ...] = ()
    quantize: bool = False
    memory: int | None = None

    @property
    def paths(self) -> tuple[Path, ...]:
        """Its file or folder, and the other files that it is assembled from."""
        return (self.path, *self.more)

    @property
    def memory_bytes(self) -> int | None:
        """Bytes that a component takes in memory."""
        return self.bytes if self.memory is None else self.memory

    def sha256(self, *names: str) -> str | None:
        """The sha256 that the definition lists for the URL, or for one of `names`."""
        return listed_sha256(self.sha256_by_name, self.url, *names)

    def counted_once(self, counted: set[Path]) -> Item:
        """The item of a file, with no bytes if its file is among those `counted`. Adds the file to them."""
        if self.path in counted:
            return replace(self, bytes=0, memory=self.memory_bytes)
        counted.add(self.path)
        return self
