"""`/v1/videos`: make videos, follow them, and get their files. The shape is that of OpenAI's API for videos."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import FileResponse
from starlette.concurrency import run_in_threadpool

from reeltune.api.bodies import Body, read_body
from reeltune.api.errors import ApiError
from reeltune.api.examples import CREATE_VIDEO, REMIX_VIDEO, VIDEO_FILE, VIDEO_OR_PICTURE
from reeltune.api.mapping import mapped
from reeltune.api.schema import Video, VideoDeleted, VideoError, VideoId, VideoList
from reeltune.errors import JobNotFound, JobStateError
from reeltune.families.values import Settings
from reeltune.jobs import Job, State
from reeltune.jobs.job import ENDED
from reeltune.media.stills import sprite_sheet, thumbnail
from reeltune.service.video_jobs import (
    Submitted,
    VideoStatus,
    failure_code,
    failure_text,
    finished_video,
    notices_of,
    percent,
    remix_source,
    shape_of,
    submit,
    video_status,
)
from reeltune.service.workspace import Workspace

_ID = re.compile(r"video_([1-9]\d{0,17})")
_POLL_MS = 1000  # between two questions for the state of a video that waits or is made
_POLL_HEADER = "openai-poll-after-ms"
_SYNC_SECONDS = 0.25  # between two looks at a job that a request waits for
_MAX_PAGE = 100
_FILE_HEADERS = {
    "content-security-policy": "sandbox; default-src 'none'; media-src 'self'",
    "cache-control": "private",
}


class Variant(StrEnum):
    """What to download of a finished video: the file, its first frame as WebP, or up to 16 frames on a JPEG sheet."""

    VIDEO = "video"
    THUMBNAIL = "thumbnail"
    SPRITESHEET = "spritesheet"


AskedVariant = Annotated[Variant, Query(description="The video, its first frame, or a sheet of frames.")]
Number = Annotated[
    int, Query(ge=0, le=10_000, description="Which video of a request that made several; 0 is the first.")
]


def video_id(job: int) -> str:
    """The id of a job's video."""
    return f"video_{job}"


def job_of(workspace: Workspace, id: str) -> Job:
    """The job behind a video's id. Raises JobNotFound."""
    match = _ID.fullmatch(id)
    try:
        return workspace.queue.get(int(match[1]) if match else 0)
    except JobNotFound as error:
        raise JobNotFound(f"There is no video {id[:40]!r}.", hint="It may have been deleted.") from error


def as_video(workspace: Workspace, job: Job) -> Video:
    """A job as the API describes it."""
    live = workspace.runner.live(job.id)
    status, shape, source = video_status(job), shape_of(workspace, job), remix_source(job)
    failed = status is VideoStatus.FAILED
    return Video(
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
        error=VideoError(code=failure_code(job), message=failure_text(job)) if failed else None,
        notices=notices_of(job, live),
        outputs=len(job.outputs),
    )


def create(workspace: Workspace, body: Body) -> Submitted:
    """Add the job that a request asks for. Raises ApiError, and what `submit` raises."""
    model, prompt = body.values.get("model"), body.values.get("prompt")
    if not isinstance(prompt, str | list) or not prompt:
        raise ApiError(400, "prompt is missing: describe the video.", param="prompt", code="missing_value")
    if model in (None, ""):
        model = workspace.first_model()
    if not isinstance(model, str):
        raise ApiError(400, "model: the id of a definition was expected.", param="model", code="invalid_value")
    definition = workspace.catalog()[model]
    found = mapped(workspace, definition, body)
    with found.checked():
        return submit(workspace, model, _as_one_prompt(found.settings))


def _as_one_prompt(settings: Settings) -> Settings:
    """The settings for one video, even if its prompt has several lines, which WanGP would make a video of each."""
    prompt = settings.get("prompt")
    if isinstance(prompt, str) and "\n" in prompt and "multi_prompts_gen_type" not in settings:
        return {**settings, "multi_prompts_gen_type": "FG"}
    return settings


def remix(workspace: Workspace, id: str, body: Body) -> Submitted:
    """Add a job like that of a video, with another prompt and whatever else the request changes."""
    source = job_of(workspace, id)
    if source.state is not State.DONE:
        message = f"{id} is {video_status(source)}: only a completed video can be remixed."
        raise ApiError(409, message, param="video_id", code="wrong_state")
    if not isinstance(body.values.get("prompt"), str) or not body.values["prompt"]:
        raise ApiError(400, "prompt is missing: describe the new video.", param="prompt", code="missing_value")
    found = mapped(workspace, workspace.catalog()[source.definition], body)
    settings = _as_one_prompt({**source.settings, **found.settings})
    with found.checked():
        return submit(workspace, source.definition, settings, remixed_from=source.id)


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
    path = _finished(workspace, job_of(workspace, id), number)
    match variant:
        case Variant.THUMBNAIL:
            return Response(thumbnail(path), media_type="image/webp", headers=_FILE_HEADERS)
        case Variant.SPRITESHEET:
            return Response(sprite_sheet(path), media_type="image/jpeg", headers=_FILE_HEADERS)
        case Variant.VIDEO:
            return FileResponse(path, media_type="video/mp4", filename=path.name, headers=_FILE_HEADERS)


def _finished(workspace: Workspace, job: Job, number: int) -> Path:
    try:
        return finished_video(workspace, job, number)
    except JobStateError as error:
        raise ApiError(404, str(error), param="video_id", code="video_not_ready") from error


def video_routes(workspace: Workspace) -> APIRouter:
    """The routes below `/v1/videos`."""
    routes = APIRouter(prefix="/v1/videos", tags=["Videos"])

    def answered(response: Response, job: Job) -> Video:
        video = as_video(workspace, job)
        if video.status in (VideoStatus.QUEUED, VideoStatus.IN_PROGRESS):
            response.headers[_POLL_HEADER] = str(_POLL_MS)
        return video

    async def submitted(request: Request, add: Callable[[Body], Submitted]) -> Job:
        body = await read_body(request, workspace)
        return (await run_in_threadpool(add, body)).job

    @routes.post("", summary="Make a video", openapi_extra=CREATE_VIDEO)
    async def create_video(request: Request, response: Response) -> Video:
        """Check the settings and add a job to the queue.

        `model` is the id of a definition; without it, the model of the latest job is used. Every setting of the model
        is accepted as a field of its own, or in the object `settings`. Images and videos are sent as files of a
        multipart form, as data URLs, or as the `file_id` of an upload.
        """
        job = await submitted(request, lambda body: create(workspace, body))
        return await run_in_threadpool(answered, response, job)

    @routes.post(
        "/sync",
        summary="Make a video and wait for it",
        openapi_extra=CREATE_VIDEO,
        response_class=FileResponse,
        responses=VIDEO_FILE,
    )
    async def create_and_wait(request: Request) -> Response:
        """Like "Make a video", but the answer is the MP4. A client that disconnects cancels the job."""
        job = await submitted(request, lambda body: create(workspace, body))
        ended = await _end_of(workspace, job, request)
        if ended.state is not State.DONE:
            status = 409 if ended.state is State.CANCELLED else 500
            raise ApiError(status, failure_text(ended), code=failure_code(ended))
        headers = {**_FILE_HEADERS, "x-video-id": video_id(ended.id)}
        path = await run_in_threadpool(_finished, workspace, ended, 0)
        return FileResponse(path, media_type="video/mp4", filename=path.name, headers=headers)

    @routes.get("", summary="List videos")
    def list_videos(
        after: Annotated[str | None, Query(description="The id after which the page begins.")] = None,
        limit: Annotated[int, Query(ge=1, le=_MAX_PAGE, description="The most videos on the page.")] = 20,
        order: Annotated[Literal["asc", "desc"], Query(description="The oldest or the newest first.")] = "desc",
    ) -> VideoList:
        """Videos of all states, by the time at which they were asked for."""
        return page_of(workspace, after, limit, order)

    @routes.get("/{video_id}", summary="The state of a video")
    def retrieve_video(video_id: VideoId, response: Response) -> Video:
        """How far a video is. The header `openai-poll-after-ms` says when to ask again."""
        return answered(response, job_of(workspace, video_id))

    @routes.delete("/{video_id}", summary="Cancel or remove a video")
    def delete_video(video_id: VideoId) -> VideoDeleted:
        """Cancel a video that is being made, which then is `failed` with the code `cancelled`; remove any other one.

        The files of finished videos stay in the outputs folder.
        """
        delete(workspace, video_id)
        return VideoDeleted(id=video_id)

    @routes.get(
        "/{video_id}/content", summary="Download a video", response_class=FileResponse, responses=VIDEO_OR_PICTURE
    )
    def download_video(video_id: VideoId, variant: AskedVariant = Variant.VIDEO, number: Number = 0) -> Response:
        """The MP4, its first frame as WebP, or up to 16 of its frames as one JPEG; also in parts, by `Range`."""
        return content(workspace, video_id, variant, number)

    @routes.post("/{video_id}/remix", summary="Make a video again with another prompt", openapi_extra=REMIX_VIDEO)
    async def remix_video(video_id: VideoId, request: Request, response: Response) -> Video:
        """Add a job with the model and the settings of a completed video. Other fields override its settings."""
        job = await submitted(request, lambda body: remix(workspace, video_id, body))
        return await run_in_threadpool(answered, response, job)

    return routes


async def _end_of(workspace: Workspace, job: Job, request: Request) -> Job:
    """The job when it has ended. It is cancelled if the client disconnects."""
    while True:
        current: Job = await run_in_threadpool(workspace.queue.get, job.id)
        if current.state in ENDED:
            return current
        if await request.is_disconnected():
            await run_in_threadpool(_cancel, workspace, job.id)
            raise ApiError(400, "The client disconnected; the job was cancelled.", code="cancelled")
        await asyncio.sleep(_SYNC_SECONDS)


def _cancel(workspace: Workspace, id: int) -> Any:
    try:
        workspace.runner.cancel(id)
    except JobStateError:  # it has just ended
        return
