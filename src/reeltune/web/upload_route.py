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
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from reeltune.errors import ReeltuneError
from reeltune.service.uploads import MAX_BYTES, IncomingFile, RefusalReason, UploadLimit, UploadRefused
from reeltune.service.workspace import Workspace
from reeltune.untrusted import clean_text

_ENVELOPE_BYTES = 1_000_000  # of a form, besides its files
_MAX_FILES = 100  # of one form
_STALL_SECONDS = 60.0  # without a byte
_MAX_TRACKED = 1000  # uploads whose progress is known
_MAX_ID_LENGTH = 100
_PROGRESS_SECONDS = 0.1
_PROGRESS_WAITS = 30  # for an upload whose progress is requested before it begins
_STATUS_CODES = {
    RefusalReason.INCOMPLETE: 400,
    RefusalReason.TOO_LARGE: 413,
    RefusalReason.UNSUPPORTED: 415,
    RefusalReason.NO_SPACE: 507,
}
_CALLBACKS = (
    "part_begin",
    "part_data",
    "part_end",
    "header_field",
    "header_value",
    "header_end",
    "headers_finished",
)


class MultipartError(Exception):
    """A request that can't be answered with an upload: its HTTP status and the message of the response."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class MultipartReceiver:
    """Stores the files of a multipart form while it is received."""

    def __init__(self, folder: Path, boundary: bytes, limit: UploadLimit) -> None:
        self.paths: list[Path] = []  # of the complete files
        self._folder, self._limit = folder, limit
        self._file: IncomingFile | None = None
        self._headers: dict[str, str] = {}
        self._header_name, self._header_text = b"", b""
        callbacks: Any = {f"on_{name}": getattr(self, f"_{name}") for name in _CALLBACKS}
        self._parser = MultipartParser(boundary, callbacks)

    @property
    def received(self) -> int:
        """Bytes received so far."""
        return self._limit.received

    @property
    def current_name(self) -> str:
        """Name of the file that is being received."""
        return self._file.name if self._file is not None else ""

    def write(self, data: bytes) -> None:
        """Process the next bytes of the form. Raises UploadRefused, MultipartError, FormParserError, OSError."""
        self._limit.count(data)
        self._parser.write(data)

    def finish(self) -> None:
        """Check that the form is complete. Raises UploadRefused, FormParserError."""
        self._parser.finalize()
        if self._file is not None:
            raise UploadRefused(RefusalReason.INCOMPLETE, "The upload is incomplete.")

    def discard(self) -> None:
        """Delete a file that is incomplete."""
        if self._file is not None:
            self._file.discard()
            self._file = None

    # --- callbacks of the parser ----------------------------------------------------------------------------

    def _part_begin(self) -> None:
        self._headers = {}

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_text += data[start:end]

    def _header_end(self) -> None:
        self._headers[self._header_name.decode("latin-1").lower()] = self._header_text.decode("latin-1")
        self._header_name, self._header_text = b"", b""

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._headers.get("content-disposition", ""))
        if b"filename" not in options:
            return
        if len(self.paths) >= _MAX_FILES:
            raise MultipartError(413, f"An upload may have at most {_MAX_FILES} files.")
        name = clean_text(options[b"filename"].decode("utf-8", "replace"))
        self._file = IncomingFile(self._folder, name)

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if self._file is not None:
            self._file.write(data[start:end])

    def _part_end(self) -> None:
        if self._file is not None:
            self.paths.append(self._file.finish())
            self._file = None


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
            return PlainTextResponse(str(refusal), _STATUS_CODES[refusal.reason])
        except MultipartError as error:
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
    """The paths of uploaded files. Raises UploadRefused, MultipartError."""
    content_type, options = parse_options_header(request.headers.get("content-type", ""))
    boundary = options.get(b"boundary")
    if content_type != b"multipart/form-data" or not boundary:
        raise MultipartError(400, "An upload must be a multipart form.")
    limit = UploadLimit(workspace.root, max_bytes, envelope_bytes=_ENVELOPE_BYTES)
    length = request.headers.get("content-length", "0")
    if length.isdigit():
        limit.announce(int(length))
    id = request.query_params.get("upload_id", "")[:_MAX_ID_LENGTH]
    receiver: MultipartReceiver | None = None
    try:
        workspace.uploads.mkdir(parents=True, exist_ok=True)
        receiver = MultipartReceiver(workspace.uploads, boundary, limit)
        if id:
            tracker.begin(id, receiver)
        await _feed(request, receiver)
        return receiver.paths
    except UploadRefused:
        raise
    except ClientDisconnect:
        raise MultipartError(400, "The upload was interrupted.") from None
    except TimeoutError:
        raise MultipartError(408, "The upload stalled.") from None
    except FormParserError:
        raise MultipartError(400, "The upload is not a valid multipart form.") from None
    except (OSError, ReeltuneError) as error:
        reason = getattr(error, "strerror", None) or error
        raise MultipartError(507, f"The upload can't be stored: {reason}.") from error
    finally:
        tracker.end(id)
        if receiver is not None:
            receiver.discard()


async def _feed(request: Request, receiver: MultipartReceiver) -> None:
    stream = request.stream()
    while True:
        try:
            async with asyncio.timeout(_STALL_SECONDS):
                data = await anext(stream)
        except StopAsyncIteration:
            break
        if data:
            await run_in_threadpool(receiver.write, data)
    await run_in_threadpool(receiver.finish)


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
