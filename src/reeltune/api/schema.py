"""What the API answers with, as pydantic models, from which its OpenAPI document is made."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import Path
from pydantic import BaseModel, Field

Status = Literal["queued", "in_progress", "completed", "failed"]
VideoId = Annotated[str, Path(description="The id of a video.", examples=["video_12"])]
FileId = Annotated[str, Path(description="The id of an upload.", examples=["file-9f86…"])]
DefinitionId = Annotated[str, Path(description="The id of a definition.", examples=["nano_t2v"])]
JobNumber = Annotated[int, Path(description="The number of a job: 12 for the video `video_12`.")]


class ErrorDetail(BaseModel):
    """An error."""

    message: str = Field(description="What is wrong, and what to do.")
    type: str = Field(description="The kind of error, by the status.", examples=["invalid_request_error"])
    param: str | None = Field(None, description="The field of the request that is wrong.")
    code: str | None = Field(None, description="The reason, for programs.", examples=["invalid_value"])


class ErrorAnswer(BaseModel):
    """The body of every answer with a status from 400."""

    error: ErrorDetail


class VideoError(BaseModel):
    """Why there is no video."""

    code: str = Field(description="`generation_failed`, `cancelled` or `interrupted`.")
    message: str = Field(description="The same in words, with the next step.")


class VideoObject(BaseModel):
    """A video that is made, was made, or waits to be made. Times are seconds since 1970."""

    id: str = Field(examples=["video_12"])
    object: Literal["video"] = "video"
    model: str = Field(description="The id of a definition.", examples=["nano_t2v"])
    status: Status = Field(description="Cancelled and interrupted videos are `failed`; `error` says which.")
    progress: int = Field(description="Percent, from 0 to 100.")
    created_at: int = Field(description="When it was asked for.")
    completed_at: int | None = Field(None, description="When it was finished.")
    expires_at: int | None = Field(None, description="Always null: videos stay until their owner deletes them.")
    prompt: str | None = None
    remixed_from_video_id: str | None = Field(None, description="The video whose settings it took over.")
    seconds: str = Field(description="The length of the video, after rounding; 0 for an image.", examples=["2.0625"])
    size: str = Field(description="Width and height in pixels, after rounding.", examples=["832x480"])
    sound: bool = Field(False, description="Whether the finished video has sound.")
    error: VideoError | None = Field(None, description="Why there is no video; only of a `failed` one.")
    notices: list[str] = Field(default_factory=list, description="What was rounded, replaced or is not used.")
    outputs: int = Field(0, description="The number of finished videos; a request may ask for several.")


class VideoList(BaseModel):
    """One page of videos."""

    object: Literal["list"] = "list"
    data: list[VideoObject]
    first_id: str | None = None
    last_id: str | None = Field(None, description="Send it as `after` to get the next page.")
    has_more: bool = Field(False, description="Whether there is a next page.")


class VideoDeleted(BaseModel):
    """The answer to a deletion."""

    id: str
    object: Literal["video.deleted"] = "video.deleted"
    deleted: bool = True


class Model(BaseModel):
    """A definition that videos can be made with."""

    id: str
    object: Literal["model"] = "model"
    created: int = Field(description="When its newest file was changed, in seconds since 1970.")
    owned_by: str = Field(description='"reeltune" for definitions that are built in, "user" for those of the root.')


class ModelList(BaseModel):
    """All definitions that videos can be made with."""

    object: Literal["list"] = "list"
    data: list[Model]


class UploadedFile(BaseModel):
    """An image or a video that was uploaded. It is deleted after a day, unless a job or a video uses it."""

    id: str = Field(description="Follows from the content: the same file has the same id.")
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    filename: str
    purpose: str = "user_data"


class JobObject(BaseModel):
    """A job of the queue. Times are seconds since 1970, null while they aren't known."""

    id: int
    video_id: str
    model: str
    state: Literal["queued", "running", "done", "failed", "cancelled", "interrupted"]
    place: int | None = Field(None, description="The place among the waiting jobs; 0 is next.")
    prompt: str
    percent: int = Field(description="From 0 to 100.")
    stage: str = Field("", description='What a running job does, such as "denoise".')
    done: int | None = Field(None, description="How much of the stage is done, in `unit`.")
    total: int | None = Field(None, description="The whole stage, in `unit`; null while it isn't known.")
    unit: str = Field("", description="What `done` and `total` count.", examples=["steps"])
    created_at: float
    started_at: float | None = None
    finished_at: float | None = None
    outputs: list[str] = Field(default_factory=list, description="Links to the finished videos.")
    error: str = Field("", description="Why it failed.")
    hint: str = Field("", description="What to do about it.")
    notices: list[str] = Field(default_factory=list, description="What was rounded, replaced or is not used.")
    resumable: bool = Field(False, description="Whether a retry continues it.")
    wait_reason: str = Field("", description="Why a waiting job waits.")
    worker: str = Field("", description="The worker that runs it, or ran it last.")


class WorkerObject(BaseModel):
    """A worker, which makes one video at a time."""

    name: str
    device: str = Field(description='Such as "cuda:0".')
    node: str = Field(description="The name of its machine.")
    state: Literal["busy", "free", "draining", "drained"]
    holds: str = Field(description="The model and the LoRAs whose weights it holds.")
    job: int | None = Field(None, description="The job that it runs.")
    used_bytes: int | None = Field(None, description="Memory of its process; null if unknown.")
    memory_bytes: int | None = Field(None, description="Memory of its device; null if unknown.")
    since: float = Field(description="When its job began, or the last one ended, in seconds since 1970.")
    problem: str = Field("", description="Why it ended by itself, the last time. It is started again when needed.")


class WorkerList(BaseModel):
    """All workers of the server."""

    workers: list[WorkerObject]


class QueueState(BaseModel):
    """The queue: its jobs by state, and whether it is paused."""

    paused: bool
    problem: str = Field("", description="Why no job is taken at the moment.")
    counts: dict[str, int] = Field(description="The number of jobs in each state.")
    jobs: list[JobObject] = Field(description="Those that run, those that wait, then the others, the latest first.")


class ModelSummary(BaseModel):
    """A definition in a list."""

    id: str
    name: str
    kind: str = Field(description="`base` or `finetune`.")
    architecture: str
    ready: bool = Field(description="Whether nothing has to be downloaded first.")
    runnable: bool = Field(description="Whether it can run here, once its files are downloaded.")
    reason: str = Field("", description="Why it can't run here.")
    missing_bytes: int | None = Field(None, description="What would be downloaded; null while that isn't known.")


class Health(BaseModel):
    """Whether the server works."""

    status: Literal["ok", "failing"]
    version: str
    problem: str = Field("", description="What fails.")
