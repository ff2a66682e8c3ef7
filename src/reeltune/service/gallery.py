"""The videos and images in the outputs folder: listed, searched, sorted, a page at a time, with how each was made.

page = gallery_page(workspace, GalleryQuery(words="red fox", order=SortOrder.OLDEST))
for video in page.videos:
    print(video.path, origin_of(video))
"""

from __future__ import annotations

import functools
import os
import stat
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from reeltune.errors import MediaError, ReeltuneError
from reeltune.files import is_file
from reeltune.media.kinds import OUTPUT_SUFFIXES
from reeltune.media.origin import Origin, read_origin
from reeltune.media.soundtrack import SoundTrack, sound_track
from reeltune.service.labels import loras_in_words, printable
from reeltune.service.workspace import Workspace

PAGE_SIZE = 24
_MAX_SEARCHED = 20_000  # videos whose searchable text stays in memory
_MAX_ORIGINS = 20 * PAGE_SIZE  # videos whose origin stays in memory


class SortOrder(StrEnum):
    """How the gallery is sorted."""

    NEWEST = "new"
    OLDEST = "old"
    NAME = "name"
    LARGEST = "size"


@dataclass(frozen=True)
class GalleryVideo:
    """A video file. `modified`: seconds since 1970. `bytes`: size of the file."""

    path: Path
    modified: float
    bytes: int = 0


@dataclass(frozen=True)
class GalleryQuery:
    """The videos with all of `words` in their name, prompt, model or LoRAs, in an order. `page` is counted from 0."""

    words: str = ""
    order: str = SortOrder.NEWEST
    page: int = 0


@dataclass(frozen=True)
class GalleryPage:
    """One page of the videos that match a query. `page` is counted from 0. `total`: videos without any query."""

    videos: tuple[GalleryVideo, ...]
    page: int
    page_count: int
    matches: int
    total: int


def gallery_page(workspace: Workspace, query: GalleryQuery) -> GalleryPage:
    """The videos that match a query; the last page where `query.page` is too high."""
    videos = list_videos(workspace)
    matches = select_videos(videos, query)
    page_count = max(1, -(-len(matches) // PAGE_SIZE))
    page = min(max(0, query.page), page_count - 1)
    selected = matches[page * PAGE_SIZE : (page + 1) * PAGE_SIZE]
    return GalleryPage(tuple(selected), page, page_count, len(matches), len(videos))


def list_videos(workspace: Workspace) -> list[GalleryVideo]:
    """All videos in the outputs folder, the newest first; none where the folder can't be read."""
    try:
        with os.scandir(workspace.outputs) as entries:
            videos = [video for entry in entries if (video := _video_of(entry)) is not None]
    except (OSError, ReeltuneError):  # no video was made yet, or the preferences are invalid
        return []
    return sorted(videos, key=lambda video: (-video.modified, video.path.name))


def _video_of(entry: os.DirEntry[str]) -> GalleryVideo | None:
    """The video of a folder entry; None for everything else."""
    if not entry.name.endswith(OUTPUT_SUFFIXES) or entry.name.startswith("."):
        return None
    try:
        facts = entry.stat()
    except OSError:  # deleted meanwhile, or a broken link
        return None
    if not stat.S_ISREG(facts.st_mode) or not facts.st_size:  # a file is empty while its video is being written
        return None
    return GalleryVideo(Path(entry.path), facts.st_mtime, facts.st_size)


def select_videos(videos: list[GalleryVideo], query: GalleryQuery) -> list[GalleryVideo]:
    """The videos that match a query, in its order. `videos` must be sorted by age, the newest first."""
    words = query.words.lower().split()
    matches = [video for video in videos if all(word in _searchable_text(video) for word in words)]
    match query.order:
        case SortOrder.OLDEST:
            return sorted(matches, key=lambda video: (video.modified, video.path.name))
        case SortOrder.NAME:
            return sorted(matches, key=lambda video: video.path.name.lower())
        case SortOrder.LARGEST:
            return sorted(matches, key=lambda video: (-video.bytes, video.path.name))
    return matches


@functools.lru_cache(maxsize=_MAX_SEARCHED)
def _searchable_text(video: GalleryVideo) -> str:
    """Name, model, LoRAs and prompt in lower case; read again when the file has changed."""
    origin = origin_of(video)
    if origin is None:
        return video.path.name.lower()
    prompt = str(origin.settings.get("prompt", ""))
    return f"{video.path.name}\n{origin.definition}\n{loras_in_words(origin.settings)}\n{prompt}".lower()


@functools.lru_cache(maxsize=_MAX_ORIGINS)
def origin_of(video: GalleryVideo) -> Origin | None:
    """How a video was made, if the file tells; read again when the file has changed."""
    try:
        return read_origin(video.path)
    except MediaError:
        return None


def sound_of(path: Path) -> SoundTrack | None:
    """The sound of a video; None if it is silent, or can't be read. It is read again when the file has changed."""
    try:
        facts = path.stat()
    except OSError:
        return None
    return _sound_of(path, facts.st_mtime_ns, facts.st_size)


@functools.lru_cache(maxsize=_MAX_SEARCHED)
def _sound_of(path: Path, modified: int, bytes: int) -> SoundTrack | None:
    try:
        return sound_track(path)
    except MediaError:
        return None


def find_video(workspace: Workspace, name: str) -> Path | None:
    """The path of a video in the outputs by its file name; None if there is none.

    A name with characters that can't be displayed is also found by its displayed form.
    """
    if not name.endswith(OUTPUT_SUFFIXES) or Path(name).name != name:
        return None
    path = workspace.confined(workspace.outputs / name)
    if path is not None and is_file(path):
        return path
    paths = [video.path for video in list_videos(workspace) if printable(video.path.name) == name]
    path = workspace.confined(paths[0]) if len(paths) == 1 else None
    return path if path is not None and is_file(path) else None
