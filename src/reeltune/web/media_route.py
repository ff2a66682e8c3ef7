"""Serves videos and pictures: asks for each request which folders those are now, and looks into each file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Route

from reeltune.errors import MediaError
from reeltune.service.media_types import head_of, mime_of
from reeltune.service.studio import Studio

PREFIX = "/gradio_api/file="  # Gradio's own components ask for files under it
_HEADERS = {
    "content-security-policy": "sandbox; default-src 'none'; img-src 'self'; media-src 'self'",
    "x-content-type-options": "nosniff",
    "cache-control": "private",
}


def media_route(studio: Studio) -> Route:
    """The route of all files. It stands before Gradio's own, which goes by names and by the folders at the start."""

    async def endpoint(request: Request) -> Response:
        requested = _requested_path(request.scope)
        return await run_in_threadpool(_answer, studio, requested)

    return Route(PREFIX + "{path:path}", endpoint, methods=["GET", "HEAD"])


def _requested_path(scope: Any) -> str:
    """The path in a request, whatever bytes the file's name is made of."""
    raw = unquote_to_bytes(scope["raw_path"]).removeprefix(PREFIX.encode("ascii"))
    return os.fsdecode(raw)


def _answer(studio: Studio, requested: str) -> Response:
    path = studio.confined(requested)
    try:
        mime = mime_of(head_of(path)) if path is not None else ""
    except MediaError:
        path = None
    if path is None:
        return PlainTextResponse("No such file.", 404)
    if mime:
        return FileResponse(path, media_type=mime, headers=_HEADERS, content_disposition_type="inline")
    if _uploaded(studio, path):
        return FileResponse(path, media_type="application/octet-stream", headers=_HEADERS, filename="upload")
    return PlainTextResponse("Only videos and pictures are served.", 403)


def _uploaded(studio: Studio, path: Path) -> bool:
    return path.is_relative_to(studio.uploads.resolve())
