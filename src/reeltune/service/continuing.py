"""Continues a video: its last frame becomes the start image of the next one."""

from __future__ import annotations

import io
from pathlib import Path

from reeltune.definitions.catalog import Summary
from reeltune.errors import MediaError, NotRunnable, ReeltuneError
from reeltune.families import ARCHITECTURES, Architecture
from reeltune.media.inputs import last_frame, read_image
from reeltune.media.kinds import IMAGE_SUFFIX
from reeltune.media.origin import Origin, read_origin
from reeltune.service.drafts import Message, VideoDraft, draft_with_settings
from reeltune.service.uploads import clean_name, store_upload
from reeltune.service.workspace import Workspace

_START_IMAGE = "image_start"
_INPUTS_OF_THE_FIRST_VIDEO = (
    "image_end", "video_source", "video_guide", "video_guide2", "custom_guide", "video_mask",
)  # fmt: skip


def continuation_draft(workspace: Workspace, current: str, path: Path) -> VideoDraft:
    """A draft with the settings of a video and its last frame as the start image.

    `current`: the selected model, used if the video's own model takes no start image. Raises MediaError when the video
    can't be read or its frame can't be stored, NotRunnable when no model takes a start image.
    """
    image_path = _store_last_frame(workspace, path)
    origin = read_origin(path)
    id = _model_for(workspace, current, origin)
    settings = dict(origin.settings) if origin is not None else {}
    for key in _INPUTS_OF_THE_FIRST_VIDEO:
        settings.pop(key, None)
    draft = draft_with_settings(workspace, id, settings | {_START_IMAGE: str(image_path)})
    name = workspace.catalog()[id].name
    start = path.name if path.suffix == IMAGE_SUFFIX else f"the last frame of {path.name}"
    text = f"{name} starts with {start}. Describe what happens next."
    return draft.with_changes(message=Message(text))


def _store_last_frame(workspace: Workspace, path: Path) -> Path:
    content = io.BytesIO()
    frame = read_image(path) if path.suffix == IMAGE_SUFFIX else last_frame(path)
    frame.save(content, "PNG")
    try:
        return store_upload(workspace, content.getvalue(), clean_name(f"{path.stem}_last_frame.png"))
    except OSError as error:
        message = f"The last frame of {path.name} can't be stored: {error.strerror}."
        raise MediaError(message, hint="Check the free space.") from error


def _model_for(workspace: Workspace, current: str, origin: Origin | None) -> str:
    """The first of these that takes a start image: the video's model, the selected one, the most similar model."""
    preferred = [origin.definition, origin.architecture, current] if origin is not None else [current]
    for id in preferred:
        if _takes_start_image(workspace, id):
            return id
    architecture = ARCHITECTURES.get(origin.architecture) if origin is not None else None
    summaries = workspace.catalog().summaries()
    candidates = [summary for summary in summaries if summary.runnable and _takes_start_image(workspace, summary.id)]
    if not candidates:
        raise NotRunnable("None of the models takes a start image.", hint="Add a model that starts from an image.")
    return min(candidates, key=lambda summary: _rank(workspace, summary, architecture)).id


def _rank(workspace: Workspace, summary: Summary, wanted: Architecture | None) -> tuple[bool, bool, bool, str]:
    """Lower is better: first models on disk, then those of the same family, then base models."""
    state = workspace.model_states().get(summary.id)
    ready = state is not None and state.ready
    architecture = ARCHITECTURES.get(summary.architecture)
    same_family = wanted is not None and architecture is not None and architecture.family is wanted.family
    return not ready, not same_family, summary.kind != "base", summary.name


def _takes_start_image(workspace: Workspace, id: str) -> bool:
    try:
        definition = workspace.catalog()[id]
    except ReeltuneError:
        return False
    inputs = definition.architecture.inputs
    return definition.runnable and any(model_input.key == _START_IMAGE for model_input in inputs)
