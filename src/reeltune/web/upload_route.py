"""Receives uploads as multipart forms and reports their progress, as Gradio's components expect it."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import OrderedDict
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from python_multipart.exceptions import FormParserError
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from reeltune.api.bodies import announced_length, feed
from reeltune.api.multipart import STATUSES, MultipartReceiver, boundary_of
from reeltune.errors import ReeltuneError
from reeltune.service.uploads import MAX_BYTES, UploadLimit, UploadRefused
from reeltune.service.workspace import Workspace

_ENVELOPE_BYTES = 1_000_000  # of a form, besides its files
_MAX_TRACKED = 1000  # uploads whose progress is known
_MAX_ID_LENGTH = 100
_PROGRESS_SECONDS = 0.1
_PROGRESS_WAITS = 30  # for an upload whose progress is requested before it begins


class UploadError(Exception):
    """A request that can't be answered with an upload: its HTTP status and the message of the response."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class UploadTracker:
    """The receivers of uploads by the ids that browsers give them."""

    def __init__(self) -> None:
        self._receivers: OrderedDict[str, MultipartReceiver | None] = OrderedDict()
        self._lock = threading.Lock()

    def begin(self, id: str, receiver: MultipartReceiver) -> None:
        """Track an upload."""
        with self._lock:
            self._receivers[id] = receiver
            if len(self._receivers) > _MAX_TRACKED:
                self._receivers.popitem(last=False)

    def end(self, id: str) -> None:
        """Forget the receiver of an upload that has ended."""
        with self._lock:
            if id in self._receivers:
                self._receivers[id] = None

    def has_begun(self, id: str) -> bool:
        """Whether an upload was ever tracked."""
        with self._lock:
            return id in self._receivers

    def receiver(self, id: str) -> MultipartReceiver | None:
        """The receiver of an upload that is running."""
        with self._lock:
            return self._receivers.get(id)


def upload_routes(workspace: Workspace, max_bytes: int = MAX_BYTES) -> list[Route]:
    """The routes for uploads of at most `max_bytes` and for their progress. They must precede Gradio's own."""
    tracker = UploadTracker()

    async def upload(request: Request) -> Response:
        try:
            paths = await _receive(request, workspace, tracker, max_bytes)
        except UploadRefused as refusal:
            return PlainTextResponse(str(refusal), STATUSES[refusal.reason])
        except UploadError as error:
            return PlainTextResponse(str(error), error.status)
        return JSONResponse([str(path) for path in paths])

    async def progress(request: Request) -> Response:
        id = request.query_params.get("upload_id", "")
        return StreamingResponse(_progress_events(id, tracker), media_type="text/event-stream")

    return [
        Route("/gradio_api/upload", upload, methods=["POST"]),
        Route("/gradio_api/upload_progress", progress, methods=["GET"]),
    ]


async def _receive(request: Request, workspace: Workspace, tracker: UploadTracker, max_bytes: int) -> list[Path]:
    """The paths of uploaded files. Raises UploadRefused, UploadError."""
    boundary = boundary_of(request.headers.get("content-type", ""))
    if boundary is None:
        raise UploadError(400, "An upload must be a multipart form.")
    limit = UploadLimit(workspace.root, max_bytes, envelope_bytes=_ENVELOPE_BYTES)
    limit.announce(announced_length(request))
    id = request.query_params.get("upload_id", "")[:_MAX_ID_LENGTH]
    receiver: MultipartReceiver | None = None
    try:
        workspace.uploads.mkdir(parents=True, exist_ok=True)
        receiver = MultipartReceiver(workspace.uploads, boundary, limit)
        if id:
            tracker.begin(id, receiver)
        await feed(request, receiver)
        return [stored.path for stored in receiver.files]
    except UploadRefused:
        raise
    except ClientDisconnect:
        raise UploadError(400, "The upload was interrupted.") from None
    except TimeoutError:
        raise UploadError(408, "The upload stalled.") from None
    except FormParserError:
        raise UploadError(400, "The upload is not a valid multipart form.") from None
    except (OSError, ReeltuneError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UploadError(507, f"The upload can't be stored: {reason}.") from error
    finally:
        tracker.end(id)
        if receiver is not None:
            receiver.discard()


async def _progress_events(id: str, tracker: UploadTracker) -> AsyncIterator[str]:
    """Server-sent events about an upload, as Gradio's components read them."""
    for _ in range(_PROGRESS_WAITS):
        if tracker.has_begun(id):
            break
        await asyncio.sleep(_PROGRESS_SECONDS)
    reported = 0
    while (receiver := tracker.receiver(id)) is not None:
        received = receiver.received
        if received > reported:
            yield _event(msg="update", orig_name=receiver.current_name, chunk_size=received - reported)
            reported = received
        await asyncio.sleep(_PROGRESS_SECONDS)
    yield _event(msg="done")


def _event(**content: Any) -> str:
    return f"data: {json.dumps(content)}\n\n"
