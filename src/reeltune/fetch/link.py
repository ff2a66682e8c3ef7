"""A file to download, and the files beside it while it comes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from reeltune.files import is_file
from reeltune.library.index import Index
from reeltune.library.journal import bytes_in
from reeltune.library.places import PARTIAL, own_name


@dataclass(frozen=True)
class Link:
    """A file to download: where from, where to, and what is known of it.

    `weights`: it must be a checkpoint. `size`: bytes, None while unknown; `listed`: the size it must have, as a
    repository lists it. `source`: the URL it is known by, where another one serves it (empty: `url`). `in_folder`: it
    is part of a folder and must be there; else a file of the same sha256 anywhere under ckpts serves as well. `here`:
    its bytes are on disk, or come with another file of the plan. `moved`: its name is one that only its URL's file has.
    """

    url: str
    target: Path
    weights: bool = False
    sha256: str | None = None
    size: int | None = None
    listed: int | None = None
    source: str = ""
    in_folder: bool = False
    label: str = ""
    here: bool = False
    moved: bool = False

    @property
    def origin(self) -> str:
        """The URL it is known by."""
        return self.source or self.url

    @property
    def name(self) -> str:
        """What to call it in messages."""
        return self.label or self.target.name

    @property
    def partial(self) -> Path:
        """Where its bytes gather."""
        return self.target.with_name(self.target.name + PARTIAL)

    @property
    def journal(self) -> Path:
        """What says which of them are there."""
        return self.target.with_name(self.target.name + ".journal" + PARTIAL)

    @property
    def lock(self) -> Path:
        """What a process holds while it downloads the file."""
        return self.target.with_name(self.target.name + ".lock" + PARTIAL)

    @property
    def kept(self) -> int:
        """Bytes that needn't be downloaded: those of an earlier, interrupted attempt, or all."""
        return (self.size or 0) if self.here else bytes_in(self.journal)

    def elsewhere(self) -> Link:
        """The same under the name that only the file of its URL has."""
        target = self.target.with_name(own_name(self.target.name, self.origin))
        return replace(self, target=target, label="", moved=True)


def is_whole(link: Link, index: Index | None) -> bool:
    """Whether a component's file of an interrupted attempt is there, and of the state that is listed now: each is
    verified before it gets its name.
    """
    if not is_file(link.target) or link.listed not in (None, link.target.stat().st_size):
        return False
    return index is None or link.sha256 is None or index.sha256(link.target) == link.sha256.lower()
