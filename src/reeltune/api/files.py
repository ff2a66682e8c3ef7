"""`/v1/files`: images and videos that are uploaded once and then used by their ids."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter, Request

from reeltune.api.bodies import file_of, read_body
from reeltune.api.dependencies import Here
from reeltune.api.errors import ApiError
from reeltune.api.examples import UPLOAD_FILE
from reeltune.api.schema import FileId, UploadedFile
from reeltune.errors import MediaError
from reeltune.service.input_files import file_id, uploaded

routes = APIRouter(prefix="/v1/files", tags=["Files"])


@routes.post("", summary="Upload an image or a video", openapi_extra=UPLOAD_FILE)
async def upload_file(workspace: Here, request: Request) -> UploadedFile:
    """Store the field `file` of a multipart form. Its content decides what it is, not its name."""
    async with read_body(request, workspace) as body:
        path = file_of(body, "file")
    if path is None:
        raise ApiError(400, "file is missing: send a multipart form with a file.", param="file", code="missing_value")
    return _described(path)


@routes.get("/{file_id}", summary="An uploaded file")
def retrieve_file(workspace: Here, file_id: FileId) -> UploadedFile:
    """What is known about an upload."""
    try:
        return _described(uploaded(workspace, file_id))
    except MediaError as error:
        raise ApiError(404, str(error), param="file_id", code="not_found") from error


def _described(path: Path) -> UploadedFile:
    facts = path.stat()
    return UploadedFile(id=file_id(path), bytes=facts.st_size, created_at=int(facts.st_mtime), filename=path.name)
