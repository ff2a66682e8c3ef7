"""Serves videos and images. The folder and the content of each file are checked for every request."""

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
from reeltune.media.kinds import mime_of, read_head
from reeltune.service.workspace import Workspace

PREFIX = "/gradio_api/file="  # Gradio's components request files with this prefix
_HEADERS = {
    "content-security-policy": "sandbox; default-src 'none'; img-src 'self'; media-src 'self'",
    "x-content-type-options": "nosniff",
    "cache-control": "private",
}


def media_route(workspace: Workspace) -> Route:
    """The route of all files. It must precede Gradio's own, which decides by file names."""

    async def endpoint(request: Request) -> Response:
        return await run_in_threadpool(_response, workspace, _requested_path(request.scope))

    return Route(PREFIX + "{path:path}", endpoint, methods=["GET", "HEAD"])


def _requested_path(scope: Any) -> str:
    """The path in a request, which may be any bytes."""
    raw_path = unquote_to_bytes(scope["raw_path"]).removeprefix(PREFIX.encode("ascii"))
    return os.fsdecode(raw_path)


def _response(workspace: Workspace, requested_path: str) -> Response:
    path = workspace.confined(requested_path)
    if path is None:
        return PlainTextResponse("There is no such file.", 404)
    try:
        mime = mime_of(read_head(path))
    except MediaError:
        return PlainTextResponse("There is no such file.", 404)
    if mime:
        return FileResponse(path, media_type=mime, headers=_HEADERS, content_disposition_type="inline")
    if _is_upload(workspace, path):
        return FileResponse(path, media_type="application/octet-stream", headers=_HEADERS, filename="upload")
    return PlainTextResponse("Only videos and images are served.", 403)


def _is_upload(workspace: Workspace, path: Path) -> bool:
    return path.is_relative_to(workspace.uploads.resolve())
