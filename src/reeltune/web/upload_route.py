"""Takes uploads: bounded, looked into, kept under the sha256 of their content; one that breaks off leaves nothing."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import secrets
import threading
from collections import OrderedDict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from reeltune.errors import MediaError, ReeltuneError
from reeltune.machine import free_disk
from reeltune.service.studio import Studio
from reeltune.service.uploads import MOST_BYTES, accepted_name
from reeltune.untrusted import clean_text

PARTIAL = ".partial"
_KEPT_FREE = 1_000_000_000  # bytes of the disk that uploads leave
_OVERHEAD = 1_000_000  # of the envelope around files
_MOST_FILES = 100  # of one request
_STALL_SECONDS = 60.0  # without a byte
_LOOK_BYTES = 64_000_000  # between two looks at the free disk
_MOST_FOLLOWED = 1000  # uploads whose progress is known
_TICK_SECONDS = 0.1
_PATIENCE_TICKS = 30  # for an upload whose progress is asked for before it begins


class UploadError(Exception):
    """Why an upload is refused, as the status and the words of the answer. Never leaves this module."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status = status


@dataclass
class _Part:
    """One part of a form as it comes in."""

    headers: dict[str, str] = field(default_factory=dict)
    name: str = ""
    path: Path | None = None
    file: BinaryIO | None = None
    sha256: Any = None


class Receiver:
    """Writes the files of a multipart body into a folder while it comes in."""

    def __init__(self, folder: Path, boundary: bytes, most: int) -> None:
        self.files: list[Path] = []  # where they are kept in the end
        self.received = 0
        self._folder, self._most, self._until_look = folder, most, 0
        self._part = _Part()
        self._field, self._value = b"", b""
        names = (
            "part_begin",
            "part_data",
            "part_end",
            "header_field",
            "header_value",
            "header_end",
            "headers_finished",
        )
        callbacks: Any = {f"on_{name}": getattr(self, f"_{name}") for name in names}
        self._parser = MultipartParser(boundary, callbacks)

    def write(self, data: bytes) -> None:
        """The next piece of the body. Raises UploadError, FormParserError, OSError."""
        self.received += len(data)
        if self.received > self._most + _OVERHEAD:
            raise UploadError(413, f"At most {self._most:,} bytes are taken.")
        self._until_look -= len(data)
        if self._until_look < 0:
            self._until_look = _LOOK_BYTES
            if free_disk(self._folder) < _KEPT_FREE:
                raise UploadError(507, "The disk is nearly full.")
        self._parser.write(data)

    def finish(self) -> None:
        """The body is complete. Raises UploadError where it ends within a file."""
        self._parser.finalize()
        if self._part.file is not None:
            raise UploadError(400, "The upload is incomplete.")

    def discard(self) -> None:
        """Delete what has come of a file that isn't complete."""
        part = self._part
        if part.file is not None:
            part.file.close()
        if part.path is not None:
            with contextlib.suppress(OSError):
                part.path.unlink(missing_ok=True)
        self._part = _Part()

    @property
    def current_name(self) -> str:
        """Name of the file that is coming in."""
        return self._part.name

    # --- the parser's callbacks -----------------------------------------------------------------------------

    def _part_begin(self) -> None:
        self._part = _Part()

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        self._part.headers[self._field.decode("latin-1").lower()] = self._value.decode("latin-1")
        self._field, self._value = b"", b""

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._part.headers.get("content-disposition", ""))
        if b"filename" not in options:
            return
        if len(self.files) >= _MOST_FILES:
            raise UploadError(413, f"At most {_MOST_FILES} files are taken at a time.")
        self._part.name = clean_text(options[b"filename"].decode("utf-8", "replace"))
        self._part.path = self._folder / f".{secrets.token_hex(8)}{PARTIAL}"
        self._part.file = self._part.path.open("xb")
        self._part.sha256 = hashlib.sha256()

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if self._part.file is not None:
            piece = data[start:end]
            self._part.file.write(piece)
            self._part.sha256.update(piece)

    def _part_end(self) -> None:
        part = self._part
        if part.file is None or part.path is None:
            return
        part.file.close()
        part.file = None
        try:
            name = accepted_name(part.path, part.name)
        except MediaError as error:
            raise UploadError(415, str(error)) from error
        self.files.append(_kept(part.path, self._folder / part.sha256.hexdigest(), name))
        self._part = _Part()


def _kept(path: Path, folder: Path, name: str) -> Path:
    """Where a complete file stays: equal content is one file, and its time is that of the last upload."""
    folder.mkdir(exist_ok=True)
    target = folder / name
    path.replace(target)
    os.utime(target)
    return target


class UploadTracker:
    """How far uploads are that a browser follows, by the id it gives them."""

    def __init__(self) -> None:
        self._uploads: OrderedDict[str, Receiver | None] = OrderedDict()
        self._guard = threading.Lock()

    def begin(self, id: str, receiver: Receiver) -> None:
        """An upload has begun."""
        with self._guard:
            self._uploads[id] = receiver
            if len(self._uploads) > _MOST_FOLLOWED:
                self._uploads.popitem(last=False)

    def end(self, id: str) -> None:
        """It is over, however it went."""
        with self._guard:
            if id in self._uploads:
                self._uploads[id] = None

    def get(self, id: str) -> tuple[bool, Receiver | None]:
        """Whether an upload was seen, and its receiver while it goes on."""
        with self._guard:
            return id in self._uploads, self._uploads.get(id)


def upload_routes(studio: Studio, most_bytes: int = MOST_BYTES) -> list[Route]:
    """The routes that take uploads of at most `most_bytes`, and report progress; they stand before Gradio's own."""
    tracker = UploadTracker()

    async def upload(request: Request) -> Response:
        try:
            return JSONResponse([str(path) for path in await _received(request, studio, tracker, most_bytes)])
        except UploadError as refusal:
            return PlainTextResponse(str(refusal), refusal.status)

    async def progress(request: Request) -> Response:
        id = request.query_params.get("upload_id", "")
        return StreamingResponse(_progress_events(id, tracker), media_type="text/event-stream")

    return [
        Route("/gradio_api/upload", upload, methods=["POST"]),
        Route("/gradio_api/upload_progress", progress, methods=["GET"]),
    ]


async def _received(request: Request, studio: Studio, tracker: UploadTracker, most: int) -> list[Path]:
    """The files of an upload. Raises UploadError."""
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    if kind != b"multipart/form-data" or not options.get(b"boundary"):
        raise UploadError(400, "An upload is a multipart form.")
    length = request.headers.get("content-length", "0")
    if length.isdigit() and int(length) > most + _OVERHEAD:
        raise UploadError(413, f"At most {most:,} bytes are taken.")
    if length.isdigit() and int(length) > free_disk(studio.root) - _KEPT_FREE:
        raise UploadError(507, "The disk is nearly full.")
    id = request.query_params.get("upload_id", "")[:100]
    receiver: Receiver | None = None
    try:
        studio.uploads.mkdir(parents=True, exist_ok=True)
        receiver = Receiver(studio.uploads, options[b"boundary"], most)
        if id:
            tracker.begin(id, receiver)
        await _fed(request, receiver)
        return receiver.files
    except ClientDisconnect:
        raise UploadError(400, "The upload broke off.") from None
    except TimeoutError:
        raise UploadError(408, "The upload stalled.") from None
    except FormParserError:
        raise UploadError(400, "The upload is not a multipart form.") from None
    except (OSError, ReeltuneError) as error:
        raise UploadError(507, f"The upload can't be stored: {getattr(error, 'strerror', None) or error}.") from error
    finally:
        tracker.end(id)
        if receiver is not None:
            receiver.discard()


async def _fed(request: Request, receiver: Receiver) -> None:
    stream = request.stream()
    while True:
        try:
            async with asyncio.timeout(_STALL_SECONDS):
                piece = await anext(stream)
        except StopAsyncIteration:
            break
        if piece:
            await run_in_threadpool(receiver.write, piece)
    await run_in_threadpool(receiver.finish)


async def _progress_events(id: str, tracker: UploadTracker) -> AsyncIterator[str]:
    """Server-sent events on an upload, as Gradio's components read them."""
    sent = 0
    for _ in range(_PATIENCE_TICKS):
        if tracker.get(id)[0]:
            break
        await asyncio.sleep(_TICK_SECONDS)
    while (receiver := tracker.get(id)[1]) is not None:
        if receiver.received > sent:
            yield _event(msg="update", orig_name=receiver.current_name, chunk_size=receiver.received - sent)
            sent = receiver.received
        await asyncio.sleep(_TICK_SECONDS)
    yield _event(msg="done")


def _event(**content: Any) -> str:
    return f"data: {json.dumps(content)}\n\n"
