"""The record of how a video was made, and the names of output files."""

from __future__ import annotations

import time
from pathlib import Path

from reeltune._version import __version__
from reeltune.families.values import Settings
from reeltune.library.index import Index
from reeltune.media.mp4 import free_name
from reeltune.media.origin import Origin
from reeltune.media.video import Video
from reeltune.planning.plan import Plan


def origin(plan: Plan, settings: Settings) -> Origin:
    """How a video was made, with the sha256 of its files where they are known."""
    definition = plan.definition
    index = Index(definition.root / "ckpts")
    files = {
        item.subject: (item.path.name, index.sha256(item.path) or definition.sha256.get(item.path.name))
        for item in plan.items
        if not item.repository
    }
    return Origin(definition.id, definition.architecture.id, f"reeltune {__version__}", settings, files)


def free_path(folder: Path, video: Video) -> Path:
    """A fresh name for a video, from the time, the definition and the seed. Raises MediaError: the latents stay."""
    stamp = time.strftime("%Y-%m-%d %H%M%S")
    stem = f"{stamp} {video.origin.definition} seed {video.origin.settings['seed']}"
    try:
        return free_name(folder, stem, video.suffix)
    except BaseException:
        video.keep_latents()
        raise
