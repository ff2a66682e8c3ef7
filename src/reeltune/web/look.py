"""What a session sees of the gallery, as a value."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Look:
    """What a session sees of the gallery: a page, counted from 0, of the videos with these words, in this order.

    `chosen`: the name of the video that is shown large.
    """

    page: int = 0
    words: str = ""
    order: str = "new"
    chosen: str = ""
