"""A new video that begins where another one ends: its last frame becomes the start image."""

from __future__ import annotations

import io
from pathlib import Path

from reeltune.definitions.catalog import Summary
from reeltune.errors import MediaError, NotRunnable, ReeltuneError
from reeltune.families import ARCHITECTURES, Architecture
from reeltune.media.inputs import last_frame
from reeltune.media.origin import Origin, read_origin
from reeltune.service import drafts
from reeltune.service.studio import Studio
from reeltune.service.uploads import clean_name, store
from reeltune.web.markup import good

START = "image_start"
_OF_THE_BEGINNING = ("image_end", "video_source", "video_guide", "video_mask")  # belong to the video that is continued


def continued(studio: Studio, current: str, path: Path) -> drafts.Draft:
    """A draft with the settings of the video in `path`, its last frame as the start image.

    `current`: the model that is picked, used where the video's own takes no start image. Raises MediaError for a video
    that can't be read, or whose frame can't be stored, NotRunnable where no model here takes a start image.
    """
    image = _stored(studio, path)
    origin = read_origin(path)
    id = _model(studio, current, origin)
    settings = dict(origin.settings) if origin is not None else {}
    for key in _OF_THE_BEGINNING:
        settings.pop(key, None)
    draft = drafts.of_settings(studio, id, settings | {START: str(image)}, [])
    name = studio.catalog()[id].name
    return draft | {"message": good(f"{name} starts with the last frame of {path.name}. Describe what happens next.")}


def _stored(studio: Studio, path: Path) -> Path:
    content = io.BytesIO()
    last_frame(path).save(content, "PNG")
    try:
        return store(studio, content.getvalue(), clean_name(f"{path.stem}_last_frame.png"))
    except OSError as error:
        message = f"The last frame of {path.name} can't be stored: {error.strerror}."
        raise MediaError(message, hint="Check the free space.") from error


def _model(studio: Studio, current: str, origin: Origin | None) -> str:
    """The video's own model, the one that is picked, or else the likeliest of those that take a start image."""
    own = [origin.definition, origin.architecture] if origin is not None else []
    for id in [*own, current]:
        if _takes(studio, id):
            return id
    like = ARCHITECTURES.get(origin.architecture) if origin is not None else None
    others = [row for row in studio.catalog().summaries() if row.runnable and _takes(studio, row.id)]
    if not others:
        raise NotRunnable("No model here takes a start image.", hint="Add a model that starts from an image.")
    return min(others, key=lambda row: _rank(studio, row, like)).id


def _rank(studio: Studio, row: Summary, like: Architecture | None) -> tuple[bool, bool, bool, str]:
    """Lower is better: on disk, of the video's family, a base model."""
    standing = studio.standings().get(row.id)
    own = ARCHITECTURES.get(row.architecture)
    same = like is not None and own is not None and own.family is like.family
    return not (standing is not None and standing.ready), not same, row.kind != "base", row.name


def _takes(studio: Studio, id: str) -> bool:
    try:
        definition = studio.catalog()[id]
    except ReeltuneError:
        return False
    return definition.runnable and any(row.key == START for row in definition.architecture.inputs)
