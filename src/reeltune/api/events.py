"""`/api/events`: changes of the queue as Server-Sent Events.

A new connection first gets the queue and every job as they are, so a client that connects again after a restart of the
server has missed nothing.
"""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool
from starlette.types import Receive, Scope, Send

from reeltune.api.dependencies import Here
from reeltune.api.errors import ApiError
from reeltune.api.examples import EVENT_STREAM
from reeltune.api.jobs import LARGEST_ID, job_view
from reeltune.api.private import for_others
from reeltune.errors import JobNotFound, QueueError
from reeltune.service.changes import ChangeKind, QueueChange, Watcher
from reeltune.service.workspace import Workspace
from reeltune.untrusted import JsonObject

_LOOK_SECONDS = 0.25  # between two looks at the queue
_BEAT_SECONDS = 15.0  # between comments that keep a connection open
_RETRY_MS = 2000  # after which a browser connects again
_MOST_CLIENTS = 100
_HEADERS = {"cache-control": "no-store", "x-accel-buffering": "no"}  # proxies must not hold events back


routes = APIRouter(prefix="/api", tags=["Queue"])


@routes.get("/events", summary="Follow the queue", response_class=StreamingResponse, responses=EVENT_STREAM)
async def follow_queue(
    workspace: Here,
    request: Request,
    job: Annotated[int | None, Query(ge=1, le=LARGEST_ID, description="Follow only this job.")] = None,
    previews: Annotated[bool, Query(description="Also send previews, as WebP images in data URLs.")] = False,
) -> StreamingResponse:
    """A stream of events named `queue`, `job`, `progress`, `notice` and `preview`, each with a JSON object.

    `job` is sent for every job at first, then for each one that is added or changes its state, and with
    `"removed": true` for one that is gone. `place` is null in events, as it changes with every job that begins.
    """
    open_streams: set[_Stream] = request.app.state.event_streams
    if len(open_streams) >= _MOST_CLIENTS:
        raise ApiError(503, f"{_MOST_CLIENTS} clients follow the queue already.", code="too_many_clients")
    return _Stream(
        _events(workspace, Watcher(request.app.state.queue_looks, job), request, previews=previews), open_streams
    )


class _Stream(StreamingResponse):
    """A stream of events, which is among the open ones until it ends."""

    def __init__(self, events: AsyncIterator[str], open_streams: set[_Stream]) -> None:
        super().__init__(events, media_type="text/event-stream", headers=_HEADERS)
        self._open_streams = open_streams
        open_streams.add(self)  # before another request is counted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send events until the client disconnects."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._open_streams.discard(self)


async def _events(workspace: Workspace, watcher: Watcher, request: Request, *, previews: bool) -> AsyncIterator[str]:
    yield f"retry: {_RETRY_MS}\n\n"
    beat = time.monotonic()
    while not await request.is_disconnected():
        for text in await run_in_threadpool(_texts, workspace, watcher, previews=previews):
            yield text
        if time.monotonic() - beat > _BEAT_SECONDS:
            beat = time.monotonic()
            yield ": still here\n\n"
        await asyncio.sleep(_LOOK_SECONDS)


def _texts(workspace: Workspace, watcher: Watcher, *, previews: bool) -> list[str]:
    try:
        changes = watcher.changes()
        wanted = [change for change in changes if previews or change.kind is not ChangeKind.PREVIEW]
        texts = [_event(workspace, change) for change in wanted]
    except QueueError:  # its file is locked for a moment; the next look reports the same changes
        return []
    watcher.accept()
    return texts


def _event(workspace: Workspace, change: QueueChange) -> str:
    content = json.dumps(_content(workspace, change), ensure_ascii=False)
    return f"event: {change.kind}\ndata: {content}\n\n"


def _content(workspace: Workspace, change: QueueChange) -> JsonObject:
    match change.kind:
        case ChangeKind.QUEUE:
            trouble = workspace.runner.trouble
            return {"paused": workspace.runner.paused, "problem": for_others(workspace, str(trouble or ""))}
        case ChangeKind.NOTICE:
            return {"id": change.job, "message": for_others(workspace, change.text)}
        case ChangeKind.PREVIEW if change.preview is not None:
            image = base64.b64encode(change.preview.image).decode("ascii")
            return {"id": change.job, "image": f"data:image/webp;base64,{image}"}
    try:
        job = workspace.queue.get(change.job or 0)
        reason = workspace.runner.waits().get(job.id, "") if job.waiting else ""
        return job_view(workspace, job, wait_reason=reason).model_dump()
    except JobNotFound:
        return {"id": change.job, "removed": True}
