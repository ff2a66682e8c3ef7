"""The cache folder of the Hugging Face Hub, which other programs fill: read, never written to.

A repository `owner/name` is in `models--owner--name`. Each of its `snapshots/<commit>` has the files of a commit by
their paths, as links to `blobs/<sha256>`. `refs/main` names the newest commit that was downloaded.
"""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath
from urllib.parse import quote, unquote

from reeltune.errors import FileError
from reeltune.files import expand, is_file, is_folder, read_bytes
from reeltune.net import HUB, file_key

PREFIX = "models--"
_SNAPSHOTS = "snapshots"
_MAX_COMMIT_BYTES = 200
_SHA256 = re.compile(r"[0-9a-f]{64}")
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")


def hub_cache_folder() -> Path:
    """Where huggingface_hub keeps its cache; it need not exist."""
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if os.environ.get(variable):
            return expand(os.environ[variable])
    if os.environ.get("HF_HOME"):
        return expand(os.environ["HF_HOME"]) / "hub"
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return expand(cache) / "huggingface" / "hub"


class HubCache:
    """The files in the cache by repository, URL and path."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def snapshots(self, repository: str) -> list[Path]:
        """The folders of a repository's commits, the newest first."""
        if not _REPOSITORY.fullmatch(repository):
            return []
        top = self.folder / (PREFIX + repository.replace("/", "--"))
        folder = top / _SNAPSHOTS
        try:
            commits = sorted(path for path in folder.iterdir() if is_folder(path))
        except OSError:
            return []
        newest = folder / _commit(top / "refs" / "main")
        return sorted(commits, key=lambda path: path != newest)

    def file_of_url(self, url: str) -> Path | None:
        """The file that a URL of the Hub leads to; None if it isn't in the cache."""
        parts = file_key(url).removeprefix(f"{HUB}/").split("/")
        if not file_key(url).startswith(f"{HUB}/") or len(parts) < 5 or parts[2] != "resolve":
            return None
        path = PurePosixPath(unquote("/".join(parts[4:])))
        if ".." in path.parts or path.is_absolute():
            return None
        for snapshot in self.snapshots("/".join(parts[:2])):
            if parts[3] not in ("main", snapshot.name):
                continue
            candidate = snapshot / path
            if is_file(candidate):
                return candidate
        return None

    def key_of(self, path: Path) -> str:
        """The key of the URL that a file in the cache was downloaded from; empty for other files."""
        if not path.is_relative_to(self.folder):
            return ""
        repository, *parts = path.relative_to(self.folder).parts
        if not repository.startswith(PREFIX) or len(parts) < 3 or parts[0] != _SNAPSHOTS:
            return ""
        name = repository.removeprefix(PREFIX).replace("--", "/", 1)
        return file_key(f"{HUB}/{name}/resolve/main/{quote('/'.join(parts[2:]))}")

    def sha256(self, path: Path) -> str:
        """The sha256 of a file in the cache, which names the file that its link leads to; empty if unknown."""
        if not path.is_relative_to(self.folder):
            return ""
        try:
            name = path.resolve().name
        except (OSError, RuntimeError):
            return ""
        return name if _SHA256.fullmatch(name) else ""


def _commit(path: Path) -> str:
    try:
        name = read_bytes(path, _MAX_COMMIT_BYTES).decode("ascii", "replace").strip()
    except FileError:
        return "none"
    return name if name.isalnum() else "none"
