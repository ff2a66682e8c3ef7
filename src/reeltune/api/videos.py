"""`/v1/videos`: make videos, follow them, and get their files. The shape is that of OpenAI's API for videos."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, Literal

from anyio import to_thread
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import FileResponse
from starlette.concurrency import run_in_threadpool

from reeltune.api.bodies import Body, read_body
from reeltune.api.dependencies import Here
from reeltune.api.errors import ApiError
from reeltune.api.examples import CREATE_VIDEO, REMIX_VIDEO, VIDEO_FILE, VIDEO_OR_PICTURE
from reeltune.api.schema import VideoDeleted, VideoId, VideoList, VideoObject
from reeltune.api.video_file import VideoFile
from reeltune.api.video_objects import (
    FILE_HEADERS,
    Variant,
    as_video,
    content,
    create,
    delete,
    finished,
    job_of,
    media_type,
    page_of,
    remix,
    video_id,
)
from reeltune.errors import JobStateError
from reeltune.jobs import Job, State
from reeltune.jobs.job import ENDED
from reeltune.service.video_jobs import (
    Submitted,
    VideoStatus,
    failure_code,
    failure_text,
)
from reeltune.service.workspace import Workspace

_POLL_MS = 1000  # between two questions for the state of a video that waits or is made
_POLL_HEADER = "openai-poll-after-ms"
_SYNC_SECONDS = 0.25  # between two looks at a job that a request waits for
_MAX_PAGE = 100
AskedVariant = Annotated[Variant, Query(description="The video, its first frame, or a sheet of frames.")]
Number = Annotated[
    int, Query(ge=0, le=10_000, description="Which video of a request that made several; 0 is the first.")
]

routes = APIRouter(prefix="/v1/videos", tags=["Videos"])


def _answer(workspace: Workspace, response: Response, job: Job) -> VideoObject:
    video = as_video(workspace, job)
    if video.status in (VideoStatus.QUEUED, VideoStatus.IN_PROGRESS):
        response.headers[_POLL_HEADER] = str(_POLL_MS)
    return video


async def _submitted(workspace: Workspace, request: Request, add: Callable[[Workspace, Body], Submitted]) -> Job:
    async with read_body(request, workspace) as body:
        return (await to_thread.run_sync(add, workspace, body, limiter=request.app.state.adding)).job


@routes.post("", summary="Make a video", openapi_extra=CREATE_VIDEO)
async def create_video(workspace: Here, request: Request, response: Response) -> VideoObject:
    """Check the settings and add a job to the queue.

    `model` is the id of a definition; without it, the first one is used that is on disk and needs only a prompt. Every
    setting of the model is accepted as a field of its own, or in the object `settings`. Images and videos are sent as
    files of a multipart form, as data URLs, or as the `file_id` of an upload.
    """
    job = await _submitted(workspace, request, create)
    return await run_in_threadpool(_answer, workspace, response, job)


@routes.post(
    "/sync",
    summary="Make a video and wait for it",
    openapi_extra=CREATE_VIDEO,
    response_class=FileResponse,
    responses=VIDEO_FILE,
)
async def create_and_wait(workspace: Here, request: Request) -> Response:
    """Like "Make a video", but the answer is the MP4, or the PNG of a model that makes images.

    A client that disconnects cancels the job.
    """
    job = await _submitted(workspace, request, create)
    ended = await _end_of(workspace, job, request)
    if ended.state is not State.DONE:
        status = 409 if ended.state is State.CANCELLED else 500
        raise ApiError(status, failure_text(ended), code=failure_code(ended))
    headers = {**FILE_HEADERS, "x-video-id": video_id(ended.id)}
    path = await run_in_threadpool(finished, workspace, ended, 0)
    return VideoFile(path, media_type=media_type(path), filename=path.name, headers=headers)


@routes.get("", summary="List videos")
def list_videos(
    workspace: Here,
    after: Annotated[str | None, Query(description="The id after which the page begins.")] = None,
    limit: Annotated[int, Query(ge=1, le=_MAX_PAGE, description="The most videos on the page.")] = 20,
    order: Annotated[Literal["asc", "desc"], Query(description="The oldest or the newest first.")] = "desc",
) -> VideoList:
    """Videos of all states, by the time at which they were asked for."""
    return page_of(workspace, after, limit, order)


@routes.get("/{video_id}", summary="The state of a video")
def retrieve_video(workspace: Here, video_id: VideoId, response: Response) -> VideoObject:
    """How far a video is. The header `openai-poll-after-ms` says when to ask again."""
    return _answer(workspace, response, job_of(workspace, video_id))


@routes.delete("/{video_id}", summary="Cancel or remove a video")
def delete_video(workspace: Here, video_id: VideoId) -> VideoDeleted:
    """Cancel a video that is being made, which then is `failed` with the code `cancelled`; remove any other one.

    The files of finished videos stay in the outputs folder.
    """
    delete(workspace, video_id)
    return VideoDeleted(id=video_id)


@routes.head("/{video_id}/content", include_in_schema=False)
@routes.get("/{video_id}/content", summary="Download a video", response_class=FileResponse, responses=VIDEO_OR_PICTURE)
def download_video(
    workspace: Here, video_id: VideoId, variant: AskedVariant = Variant.VIDEO, number: Number = 0
) -> Response:
    """The MP4, its first frame as WebP, or up to 16 of its frames as one JPEG; also in parts, by `Range`.

    A model that makes images has a PNG in place of the MP4.
    """
    return content(workspace, video_id, variant, number)


@routes.post("/{video_id}/remix", summary="Make a video again with another prompt", openapi_extra=REMIX_VIDEO)
async def remix_video(workspace: Here, video_id: VideoId, request: Request, response: Response) -> VideoObject:
    """Add a job with the model and the settings of a completed video. Other fields override its settings."""
    job = await _submitted(workspace, request, partial(remix, id=video_id))
    return await run_in_threadpool(_answer, workspace, response, job)


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
