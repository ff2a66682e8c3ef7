"""What a browser session shows of the gallery."""

from __future__ import annotations

from dataclasses import dataclass, field

from reeltune.service.gallery import GalleryQuery


@dataclass(frozen=True)
class GalleryState:
    """The query of a browser session, and the name of the video that is open; empty if none is."""

    query: GalleryQuery = field(default_factory=GalleryQuery)
    open_video: str = ""
