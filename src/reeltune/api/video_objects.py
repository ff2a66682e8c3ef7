"""Jobs as the videos of `/v1/videos`: adding, describing, listing, deleting and downloading them."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path

from fastapi import Response

from reeltune.api.bodies import Body
from reeltune.api.errors import ApiError
from reeltune.api.mapping import mapped, unused_fields
from reeltune.api.private import for_others, values_for_others
from reeltune.api.schema import VideoError, VideoList, VideoObject
from reeltune.api.video_file import VideoFile
from reeltune.errors import JobNotFound, JobStateError
from reeltune.families.values import Settings
from reeltune.jobs import Job, State
from reeltune.media.kinds import IMAGE_SUFFIX
from reeltune.media.stills import sprite_sheet, thumbnail
from reeltune.service.video_jobs import (
    Submitted,
    VideoStatus,
    failure_code,
    failure_text,
    finished_video,
    followed,
    has_sound,
    notices_of,
    percent,
    remix_source,
    shape_of,
    submit,
    video_status,
)
from reeltune.service.workspace import Workspace

_ID = re.compile(r"video_([1-9][0-9]{0,17})")
FILE_HEADERS = {
    "content-security-policy": "sandbox; default-src 'none'; media-src 'self'",
    "cache-control": "private",
}


class Variant(StrEnum):
    """What to download of a finished video: the file, its first frame as WebP, or up to 16 frames on a JPEG sheet."""

    VIDEO = "video"
    THUMBNAIL = "thumbnail"
    SPRITESHEET = "spritesheet"


def video_id(job: int) -> str:
    """The id of a job's video."""
    return f"video_{job}"


def content_path(job: int, number: int) -> str:
    """The path of the address of one of a job's videos."""
    return f"/v1/videos/{video_id(job)}/content?number={number}"


def job_of(workspace: Workspace, id: str) -> Job:
    """The job behind a video's id. Raises JobNotFound."""
    match = _ID.fullmatch(id)
    try:
        return workspace.queue.get(int(match[1]) if match else 0)
    except JobNotFound as error:
        raise JobNotFound(f"There is no video {id[:40]!r}.", hint="It may have been deleted.") from error


def as_video(workspace: Workspace, job: Job) -> VideoObject:
    """A job as the API describes it."""
    job, live = followed(workspace, job)
    status, shape, source = video_status(job), shape_of(workspace, job), remix_source(job)
    failed = status is VideoStatus.FAILED
    return VideoObject(
        id=video_id(job.id),
        model=job.definition,
        status=status.value,
        progress=percent(job, live),
        created_at=int(job.created),
        completed_at=int(job.finished) if status is VideoStatus.COMPLETED else None,
        expires_at=None,
        prompt=job.prompt or None,
        remixed_from_video_id=video_id(source) if source is not None else None,
        seconds=shape.seconds,
        size=shape.size,
        sound=has_sound(workspace, job),
        error=VideoError(code=failure_code(job), message=for_others(workspace, failure_text(job))) if failed else None,
        notices=values_for_others(workspace, notices_of(job, live)),
        outputs=len(job.outputs),
    )


def create(workspace: Workspace, body: Body) -> Submitted:
    """Add the job that a request asks for. Raises ApiError, and what `submit` raises."""
    _check_prompt(body)
    model = body.values.get("model")
    notices = unused_fields(body)
    if model in (None, ""):
        model = workspace.default_model()
        notices.append(f"No model was named: {model} is used.")
    if not isinstance(model, str):
        raise ApiError(400, "model: the id of a definition was expected.", param="model", code="invalid_value")
    definition = workspace.catalog()[model]
    found = mapped(workspace, definition, body)
    with found.checked():
        return submit(workspace, model, _as_one_prompt(found.settings), notices=notices)


def _check_prompt(body: Body) -> None:
    prompt = body.values.get("prompt")
    if not isinstance(prompt, str | list) or not prompt:
        raise ApiError(400, "prompt is missing: describe the video.", param="prompt", code="missing_value")


def _as_one_prompt(settings: Settings) -> Settings:
    """The settings for one video, even if its prompt has several lines, which WanGP would make a video of each."""
    prompt = settings.get("prompt")
    if isinstance(prompt, str) and "\n" in prompt and "multi_prompts_gen_type" not in settings:
        return {**settings, "multi_prompts_gen_type": "FG"}
    return settings


def remix(workspace: Workspace, body: Body, id: str) -> Submitted:
    """Add a job like that of a video, with another prompt and whatever else the request changes."""
    source = job_of(workspace, id)
    if source.state is not State.DONE:
        message = f"{id} is {video_status(source)}: only a completed video can be remixed."
        raise ApiError(409, message, param="video_id", code="wrong_state")
    _check_prompt(body)
    if body.values.get("model") not in (None, "", source.definition):
        message = f"model: a remix uses the model of its video, {source.definition}. Leave it out."
        raise ApiError(400, message, param="model", code="invalid_value")
    found = mapped(workspace, workspace.catalog()[source.definition], body)
    settings = _as_one_prompt({**source.settings, **found.settings})
    with found.checked():
        return submit(workspace, source.definition, settings, notices=unused_fields(body), remixed_from=source.id)


def delete(workspace: Workspace, id: str) -> None:
    """Cancel the job of a video that is being made; remove any other one from the queue. Its files stay."""
    job = job_of(workspace, id)
    if job.state is State.RUNNING:
        workspace.runner.cancel(job.id, job.attempts)
    else:
        workspace.queue.remove(job.id)


def page_of(workspace: Workspace, after: str | None, limit: int, order: str) -> VideoList:
    """One page of the videos, and whether there are more."""
    last = job_of(workspace, after).id if after else None
    jobs = workspace.queue.page(limit + 1, after=last, newest_first=order == "desc")
    videos = [as_video(workspace, job) for job in jobs[:limit]]
    first_id, last_id = (videos[0].id, videos[-1].id) if videos else (None, None)
    return VideoList(data=videos, first_id=first_id, last_id=last_id, has_more=len(jobs) > limit)


def content(workspace: Workspace, id: str, variant: Variant, number: int) -> Response:
    """The file of a finished video, or a picture of it. Raises ApiError where there is none."""
    path = finished(workspace, job_of(workspace, id), number)
    match variant:
        case Variant.THUMBNAIL:
            return Response(thumbnail(path), media_type="image/webp", headers=FILE_HEADERS)
        case Variant.SPRITESHEET:
            return Response(sprite_sheet(path), media_type="image/jpeg", headers=FILE_HEADERS)
        case Variant.VIDEO:
            return VideoFile(path, media_type=media_type(path), filename=path.name, headers=FILE_HEADERS)


def media_type(path: Path) -> str:
    """The media type of a finished video, or of the image that a definition with `image_outputs` makes."""
    return "image/png" if path.suffix == IMAGE_SUFFIX else "video/mp4"


def finished(workspace: Workspace, job: Job, number: int) -> Path:
    """The file of one of a job's videos. Raises ApiError where there is none."""
    try:
        return finished_video(workspace, job, number)
    except JobStateError as error:
        raise ApiError(404, str(error), param="video_id", code="video_not_ready") from error
