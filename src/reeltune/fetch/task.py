"""One file to download, and the files that exist beside it during the download."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from reeltune.files import is_file
from reeltune.library.index import Index
from reeltune.library.journal import bytes_recorded
from reeltune.library.places import PARTIAL, unique_name


@dataclass(frozen=True)
class DownloadTask:
    """A file to download.

    Attributes:
        url: The URL to download from.
        target: The path of the complete file.
        weights: Whether it must be a checkpoint.
        sha256: The expected sha256, if known.
        size: Bytes, None while unknown.
        required_size: The size that a repository lists for the file, which the download must have.
        listed_url: The URL in the definition, if it leads to another `url`; otherwise empty.
        in_folder: Whether the file belongs to a folder and must be stored there. Any other file may be replaced by a
            file in `ckpts` with the same sha256.
        label: The name in messages; by default the file name.
        available: Whether its bytes are on disk, or are downloaded by another task of the same plan.
        renamed: Whether `target` has the unique name of its URL.
    """

    url: str
    target: Path
    weights: bool = False
    sha256: str | None = None
    size: int | None = None
    required_size: int | None = None
    listed_url: str = ""
    in_folder: bool = False
    label: str = ""
    available: bool = False
    renamed: bool = False

    @property
    def origin(self) -> str:
        """The URL under which the index records the file."""
        return self.listed_url or self.url

    @property
    def name(self) -> str:
        """The name of the file in messages."""
        return self.label or self.target.name

    @property
    def partial(self) -> Path:
        """The file that the bytes are written to until the download is complete."""
        return self.target.with_name(self.target.name + PARTIAL)

    @property
    def journal(self) -> Path:
        """The journal, which records the bytes that are present in `partial`."""
        return self.target.with_name(self.target.name + ".journal" + PARTIAL)

    @property
    def lock(self) -> Path:
        """The lock that a process holds while it downloads the file."""
        return self.target.with_name(self.target.name + ".lock" + PARTIAL)

    @property
    def bytes_present(self) -> int:
        """Bytes that needn't be downloaded: all if the file is available, else those of an interrupted download."""
        if self.available:
            return self.size or 0
        return bytes_recorded(self.journal)

    def with_unique_name(self) -> DownloadTask:
        """The same task with the unique name of its URL."""
        target = self.target.with_name(unique_name(self.target.name, self.origin))
        return replace(self, target=target, label="", renamed=True)


def is_complete(task: DownloadTask, index: Index | None) -> bool:
    """Whether the target exists with the required size and sha256. Files are verified before they get their name."""
    if not is_file(task.target):
        return False
    if task.required_size is not None and task.required_size != task.target.stat().st_size:
        return False
    return index is None or task.sha256 is None or index.sha256(task.target) == task.sha256.lower()
