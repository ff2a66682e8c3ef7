"""What the API answers with, as pydantic models, from which its OpenAPI document is made."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

Status = Literal["queued", "in_progress", "completed", "failed"]


class ErrorDetail(BaseModel):
    """An error. `code` is meant for programs, `param` names the field that is wrong."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorAnswer(BaseModel):
    """The body of every answer with a status from 400."""

    error: ErrorDetail


class VideoError(BaseModel):
    """Why there is no video: "generation_failed", "cancelled" or "interrupted", and the same in words."""

    code: str
    message: str


class VideoObject(BaseModel):
    """A video that is made, was made, or waits to be made. Times are seconds since 1970."""

    id: str = Field(examples=["video_12"])
    object: Literal["video"] = "video"
    model: str = Field(description="The id of a definition.", examples=["nano_t2v"])
    status: Status
    progress: int = Field(description="Percent, from 0 to 100.")
    created_at: int
    completed_at: int | None = None
    expires_at: int | None = Field(None, description="Always null: videos stay until their owner deletes them.")
    prompt: str | None = None
    remixed_from_video_id: str | None = None
    seconds: str = Field(description="The length of the video, after rounding.", examples=["2.0625"])
    size: str = Field(description="Width and height in pixels, after rounding.", examples=["832x480"])
    error: VideoError | None = None
    notices: list[str] = Field(default_factory=list, description="What was rounded, replaced or is not used.")
    outputs: int = Field(0, description="The number of finished videos; a request may ask for several.")


class VideoList(BaseModel):
    """One page of videos."""

    object: Literal["list"] = "list"
    data: list[VideoObject]
    first_id: str | None = None
    last_id: str | None = None
    has_more: bool = False


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
    percent: int
    stage: str = Field("", description='What a running job does, such as "denoise".')
    done: int | None = Field(None, description="How much of the stage is done, in `unit`.")
    total: int | None = None
    unit: str = ""
    created_at: float
    started_at: float | None = None
    finished_at: float | None = None
    outputs: list[str] = Field(default_factory=list, description="Links to the finished videos.")
    error: str = ""
    hint: str = ""
    notices: list[str] = Field(default_factory=list)
    resumable: bool = False


class QueueState(BaseModel):
    """The queue: its jobs by state, and whether it is paused."""

    paused: bool
    problem: str = Field("", description="Why no job is taken at the moment.")
    counts: dict[str, int]
    jobs: list[JobObject]


class ModelSummary(BaseModel):
    """A definition in a list. `missing_bytes`: what would be downloaded, null while that isn't known."""

    id: str
    name: str
    kind: Literal["base", "finetune"] | str
    architecture: str
    ready: bool
    runnable: bool
    reason: str = ""
    missing_bytes: int | None = None


class Health(BaseModel):
    """Whether the server works."""

    status: Literal["ok", "failing"]
    version: str
    problem: str = ""
