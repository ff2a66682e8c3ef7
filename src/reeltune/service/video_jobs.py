"""Videos that programs ask for: jobs made from settings, and how far they are, as the HTTP API and MCP report it.

submitted = submit(workspace, "nano_t2v", {"prompt": "a red circle", "image_start": "data:image/png;base64,…"})
video_status(submitted.job)
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from reeltune.definitions import Definition
from reeltune.errors import JobNotFound, JobStateError, NotRunnable, ReeltuneError, SettingsError
from reeltune.families.values import Settings, seconds_of
from reeltune.files import is_file
from reeltune.jobs import Job, Live, State
from reeltune.jobs.confine import Confinement
from reeltune.jobs.job import CHECKED
from reeltune.request.values import Request
from reeltune.service.drafts import check_settings
from reeltune.service.gallery import sound_of
from reeltune.service.input_files import stored_input
from reeltune.service.workspace import Workspace
from reeltune.settings import check_call, frame_count, frame_rate, layer, read_settings
from reeltune.untrusted import JsonObject

_REMIXED_FROM = "remixed_from"  # key of a job's `extra`
_REMOTE = ("http://", "https://")
_MAX_SHOWN = 60  # characters of a name in a message
_BEFORE_STEPS, _AFTER_STEPS = 5, 90  # percent of a video that are done before its first step, and after its last one


class VideoStatus(StrEnum):
    """The states of a video in the API."""

    QUEUED = "queued"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"


_STATUSES = {
    State.QUEUED: VideoStatus.QUEUED,
    State.RUNNING: VideoStatus.IN_PROGRESS,
    State.DONE: VideoStatus.COMPLETED,
    State.FAILED: VideoStatus.FAILED,
    State.CANCELLED: VideoStatus.FAILED,
    State.INTERRUPTED: VideoStatus.FAILED,
}


@dataclass(frozen=True)
class Submitted:
    """A job that was added to the queue. `notices`: what was rounded or is not used."""

    job: Job
    notices: tuple[str, ...]


def submit(
    workspace: Workspace,
    model: str,
    values: Settings,
    *,
    notices: Sequence[str] = (),
    remixed_from: int | None = None,
) -> Submitted:
    """Check settings and add a job for them. `notices`: what the caller has to tell about the request.

    Images and videos are named by the id of an uploaded file, by a data URL, by the path of an earlier output, or,
    where the preference `input_urls` allows it, by URL. Raises DefinitionNotFound, NotRunnable, SettingsError,
    MediaError, QueueFull, and FetchError for a URL that can't be downloaded.
    """
    definition = workspace.catalog()[model]
    blocked = workspace.blocked(model)
    if blocked:
        raise NotRunnable(f"{definition.name} can't run here: {blocked}", hint="Choose another model.")
    named = check_call(values)
    _check_loras(workspace, named.get("activated_loras") or ())
    complete = _with_letters(definition, _stored(workspace, definition, named))
    checked = check_settings(workspace, definition, complete)
    first = checked.first
    image = definition.architecture.image_outputs
    told = (*notices, *([] if image else _length_notices(values, first)), *checked.notices)
    found = {
        "notices": list(told),
        "size": f"{first.width}x{first.height}",
        "seconds": "0" if image else f"{first.frames / first.fps:g}",
    }
    extra: JsonObject = {CHECKED: found}
    if remixed_from is not None:
        extra[_REMIXED_FROM] = remixed_from
    limit = workspace.preferences().queue_limit
    job = workspace.queue.add(definition.id, checked.settings, extra=extra, confined=True, most_jobs=limit)
    workspace.runner.wake()
    return Submitted(job, told)


def _length_notices(values: Settings, first: Request) -> list[str]:
    """A notice if a length in seconds had to be rounded to what the model can make."""
    length = values.get("video_length")
    asked = seconds_of(length) if isinstance(length, str) else None
    made = first.frames / first.fps
    if asked is None or asked == made:
        return []
    return [f"{asked:g} seconds become {made:g}: {first.frames} frames at {first.fps} per second."]


def _stored(workspace: Workspace, definition: Definition, values: Settings) -> Settings:
    """The settings with paths in place of the files, data URLs and URLs that were sent."""
    settings = dict(values)
    for model_input in definition.architecture.inputs:
        value = values.get(model_input.key)
        if value in (None, "", []):
            settings.pop(model_input.key, None)
        elif isinstance(value, list):
            settings[model_input.key] = [stored_input(workspace, model_input.key, item) for item in value]
        else:
            settings[model_input.key] = stored_input(workspace, model_input.key, value)
    return settings


def _with_letters(definition: Definition, settings: Settings) -> Settings:
    """The settings with the letters that select the given inputs, unless the caller has chosen them."""
    complete = dict(settings)
    inputs = definition.architecture.inputs
    for letters_key in dict.fromkeys(model_input.letters_key for model_input in inputs):
        letters = "".join(item.letter for item in inputs if item.letters_key == letters_key and item.key in settings)
        if letters and not settings.get(letters_key):
            complete[letters_key] = letters
    return complete


def _check_loras(workspace: Workspace, sources: Sequence[str]) -> None:
    """Raise SettingsError for a LoRA outside the folders, before it is read, and for one that has to be downloaded."""
    confinement = Confinement.of(workspace.root, workspace.preferences())
    for source in sources:
        if source.strip().lower().startswith(_REMOTE):
            message = "activated_loras: a LoRA can't be named by URL in the API."
            hint = "Download it with `reeltune pull`, or name a file in loras/."
            raise SettingsError(message, hint=hint, key="activated_loras")
        if not confinement.allows_lora(source):
            message = f"activated_loras: {source[:_MAX_SHOWN]!r} lies outside the folders that may be used."
            raise SettingsError(message, hint="Name a file in loras/.", key="activated_loras")


# --- jobs as videos ---------------------------------------------------------------------------------------------


def video_status(job: Job) -> VideoStatus:
    """The state of a job as the API names it."""
    return _STATUSES[job.state]


def failure_code(job: Job) -> str:
    """Why a job has no video: "cancelled", "interrupted" or "generation_failed"."""
    return "generation_failed" if job.state is State.FAILED else str(job.state)


def failure_text(job: Job) -> str:
    """The error of a job in words, with the next step."""
    if job.state is State.CANCELLED:
        return "The job was cancelled."
    return f"{job.error} {job.hint}".strip() or "No reason is known."


def notices_of(job: Job, live: Live | None = None) -> list[str]:
    """What the user should know about a job: about its settings, then of its run."""
    stored = _found(job).get("notices")
    first = [notice for notice in stored if isinstance(notice, str)] if isinstance(stored, list) else []
    return list(dict.fromkeys([*first, *job.notices, *(live.notices if live is not None else ())]))


def _found(job: Job) -> JsonObject:
    """What `submit` found out about the settings of a job."""
    found = job.extra.get(CHECKED)
    return found if isinstance(found, dict) else {}


def remix_source(job: Job) -> int | None:
    """The job that this one is a remix of."""
    id = job.extra.get(_REMIXED_FROM)
    return id if isinstance(id, int) else None


def followed(workspace: Workspace, job: Job) -> tuple[Job, Live | None]:
    """A job and what it does now, if it runs. A job that has ended since it was read is read again."""
    live = workspace.runner.live(job.id)
    if live is None and job.state is State.RUNNING:
        with suppress(JobNotFound):
            job = workspace.queue.get(job.id)
    return job, live


def percent(job: Job, live: Live | None) -> int:
    """How much of a job is done, from 0 to 100. Steps of denoising count most, as they take the longest."""
    if job.state is State.DONE:
        return 100
    if live is None:
        return 0
    number, total = (live.batch.number, live.batch.total) if live.batch is not None else (1, 1)
    return round(((number - 1) * 100 + _percent_of_video(live)) / max(1, total))


def _percent_of_video(live: Live) -> float:
    if live.progress is not None and live.progress.stage in ("decode", "write"):
        return _AFTER_STEPS
    steps = live.denoised  # other stages come in between, where the second transformer is loaded
    if steps is None:
        return 0
    share = min(1.0, steps.done / steps.total) if steps.total else 0.0
    return _BEFORE_STEPS + (_AFTER_STEPS - _BEFORE_STEPS) * share


@dataclass(frozen=True)
class VideoShape:
    """The size of a video, as "WIDTHxHEIGHT" in pixels, and its length in seconds."""

    size: str
    seconds: str


def shape_of(workspace: Workspace, job: Job) -> VideoShape:
    """The size and length that a job asks for; empty where its model is gone or can't be read."""
    found = _found(job)
    size, seconds = found.get("size"), found.get("seconds")
    if isinstance(size, str) and isinstance(seconds, str):
        return VideoShape(size, seconds)
    try:  # the page added it
        definition = workspace.catalog()[job.definition]
        stored = read_settings(job.settings).settings  # the row may hold anything
        settings = layer(definition.architecture, definition.settings, call=stored)
        frames, rate = frame_count(settings, definition.architecture), frame_rate(settings, definition.architecture)
        seconds = 0 if definition.architecture.image_outputs else frames / rate
        return VideoShape(str(settings["resolution"]), f"{seconds:g}")
    except ReeltuneError:
        return VideoShape("", "")


def finished_video(workspace: Workspace, job: Job, number: int = 0) -> Path:
    """One of the videos that a job has made, counted from 0.

    Raises JobStateError while there is none, and where the file was deleted or lies outside the folder of videos.
    """
    if not 0 <= number < len(job.outputs):
        if job.state in (State.QUEUED, State.RUNNING):
            raise JobStateError("The video isn't finished yet.", hint="Ask for its status first.")
        if not job.outputs:
            raise JobStateError(f"There is no video: {failure_text(job)}", hint="Make it again.")
        message = f"There is no video {number}: the job has made {len(job.outputs)}, counted from 0."
        raise JobStateError(message, hint="Choose another `number`.")
    path = workspace.confined(job.outputs[number])
    if path is None:
        message = "The file of the video lies outside the folder of videos."
        raise JobStateError(message, hint="Open it on the machine that made it.")
    if not is_file(path):
        raise JobStateError("The file of the video was deleted.", hint="Make it again.")
    return path


def has_sound(workspace: Workspace, job: Job) -> bool:
    """Whether the first video that a job has made has sound; False while there is none, or where its file is gone."""
    try:
        return sound_of(finished_video(workspace, job)) is not None
    except JobStateError:
        return False
