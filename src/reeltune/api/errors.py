"""Errors as clients of the API read them: an HTTP status and `{"error": {message, type, param, code}}`."""

from __future__ import annotations

import logging
import re
from http import HTTPStatus
from typing import NoReturn

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from reeltune.api.private import for_others
from reeltune.errors import (
    DefinitionError,
    DefinitionNotFound,
    FetchError,
    FileError,
    InvalidJSON,
    JobNotFound,
    JobStateError,
    MediaError,
    NotRunnable,
    PreferencesError,
    QueueError,
    QueueFull,
    ReeltuneError,
    SettingsError,
    WorkerNotFound,
)
from reeltune.families.vocabulary import KEYS
from reeltune.untrusted import JsonObject, clean_text

RETRY_SECONDS = 30  # after which a client may ask again, where the queue is full
_MAX_MESSAGE = 2000  # characters
_MAX_PARAM = 100
ERROR_CODES: tuple[tuple[int, str, str], ...] = (  # for the documentation: status, codes, meaning
    (400, "`invalid_value`, `missing_value`", "A field has a wrong value, or is missing. `param` names it."),
    (400, "`invalid_json`, `invalid_form`, `incomplete`", "The body can't be read."),
    (400, "`invalid_file`, `invalid_url`", "An image or a video can't be used."),
    (401, "`invalid_api_key`", "The key is missing or wrong."),
    (403, "`other_site`", "A page of another site sent the request from a browser."),
    (404, "`not_found`, `model_not_found`", "There is no such video, job, worker, file, model or address."),
    (404, "`video_not_ready`", "The video isn't finished, has failed, or its file was deleted."),
    (405, "`wrong_method`", "The address is for other methods."),
    (408, "`too_slow`", "The body arrived too slowly."),
    (409, "`wrong_state`", "The job is in a state in which this can't be done."),
    (409, "`cancelled`", "Only of `/v1/videos/sync`: the job was cancelled."),
    (413, "`too_large`, `refused_file`", "The body or a file is too large."),
    (415, "`unsupported_media_type`, `refused_file`", "The body is neither JSON nor a form, or a file isn't accepted."),
    (415, "`unsupported_encoding`", "The body is compressed."),
    (416, "`invalid_range`", "The header `range` names no bytes of the file; 400 if it can't be understood."),
    (421, "`wrong_host`", "The server is only for this machine, and another host name was used."),
    (422, "`not_runnable`, `invalid_definition`, `refused`", "The model can't run on this machine."),
    (429, "`queue_full`", "Too many jobs wait. The header `retry-after` says when to try again, in seconds."),
    (500, "`generation_failed`, `interrupted`", "Only of `/v1/videos/sync`: the video could not be made."),
    (500, "`unexpected`", "A bug. The terminal of the server shows details."),
    (501, "`not_installed`", "The server was installed without MCP."),
    (503, "`queue_unavailable`, `invalid_preferences`, `too_many_clients`", "The server can't answer at the moment."),
    (503, "`too_busy`", "Many large requests arrive at once. Try again after `retry-after` seconds."),
    (507, "`not_stored`", "The disk of the server is full, or can't be written."),
)
_CODES = {401: "invalid_api_key", 403: "other_site", 421: "wrong_host", 500: "unexpected"}  # of errors without another
_TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}
_STATUSES: tuple[tuple[type[ReeltuneError], int, str], ...] = (  # the first that matches
    (DefinitionNotFound, 404, "model_not_found"),
    (JobNotFound, 404, "not_found"),
    (WorkerNotFound, 404, "not_found"),
    (JobStateError, 409, "wrong_state"),
    (QueueFull, 429, "queue_full"),
    (QueueError, 503, "queue_unavailable"),
    (SettingsError, 400, "invalid_value"),
    (MediaError, 400, "invalid_file"),
    (FetchError, 400, "invalid_url"),
    (InvalidJSON, 400, "invalid_json"),
    (NotRunnable, 422, "not_runnable"),
    (DefinitionError, 422, "invalid_definition"),
    (FileError, 507, "not_stored"),
    (PreferencesError, 503, "invalid_preferences"),
)
# How the messages of `request` and `settings` begin that are about one setting.
_PARAM = re.compile(r"([a-z][a-z0-9_]{1,40})(?:\[[^\]]{0,20}\])?(?: is |:|=)")
_OPTION = re.compile(r"--([a-z][a-z-]{1,40})")
_log = logging.getLogger("reeltune.api")


class ApiError(Exception):
    """A request that is refused.

    `status`: of the HTTP answer. `param`: the field of the request that is wrong. `code`: the reason, for programs.
    """

    def __init__(self, status: int, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code


def error_body(status: int, message: str, *, param: str | None = None, code: str | None = None) -> JsonObject:
    """The body of an answer with an error."""
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    named = clean_text(param)[:_MAX_PARAM] if param is not None else None
    text, code = clean_text(message)[:_MAX_MESSAGE], code or _CODES.get(status)
    return {"error": {"message": text, "type": kind, "param": named, "code": code}}


def answer_to(error: ApiError) -> JSONResponse:
    """The answer for an error. Errors that no request can be blamed for have a status from 500."""
    headers = {"retry-after": str(RETRY_SECONDS)} if error.status in (429, 503) else None
    body = error_body(error.status, error.message, param=error.param, code=error.code)
    return JSONResponse(body, error.status, headers)


def _as_api_error(error: ReeltuneError) -> ApiError:
    status, code = next(
        ((status, code) for kind, status, code in _STATUSES if isinstance(error, kind)), (422, "refused")
    )
    return ApiError(status, _OPTION.sub(_field, str(error)), param=_param(error), code=code)


def _field(option: re.Match[str]) -> str:
    """The field that stands for an option of the command line in the advice of an error."""
    key = option[1].replace("-", "_")
    return key if key in KEYS else option[0]


def _param(error: ReeltuneError) -> str | None:
    if isinstance(error, DefinitionNotFound):
        return "model"
    if isinstance(error, SettingsError) and error.key:
        return error.key
    match = _PARAM.match(error.message) if isinstance(error, SettingsError | MediaError) else None
    return match[1] if match is not None and match[1] in KEYS else None


def nothing_here(method: str, path: str) -> NoReturn:
    """Raise ApiError for an address that the API doesn't have."""
    raise ApiError(404, f"There is nothing at {method} {path[:80]}. /docs lists what there is.", code="not_found")


def handle_errors(app: FastAPI) -> None:
    """Let an application answer every error in this form."""

    workspace = app.state.workspace

    @app.exception_handler(ApiError)
    async def refused(_: Request, error: ApiError) -> JSONResponse:
        return answer_to(
            ApiError(error.status, for_others(workspace, error.message), param=error.param, code=error.code)
        )

    @app.exception_handler(ReeltuneError)
    async def failed(request: Request, error: ReeltuneError) -> JSONResponse:
        return await refused(request, _as_api_error(error))

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        param = str(first["loc"][-1])[:40]
        return answer_to(ApiError(400, f"{param}: {first['msg']}.", param=param, code="invalid_value"))

    @app.exception_handler(HTTPException)
    async def by_framework(request: Request, error: HTTPException) -> JSONResponse:
        words = HTTPStatus(error.status_code).phrase
        message = f"{request.method} {request.url.path[:80]}: {words}."
        response = answer_to(ApiError(error.status_code, message))
        response.headers.update(error.headers or {})
        return response

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> JSONResponse:
        _log.error("A request failed: %s", request.url.path[:80], exc_info=error)
        return answer_to(ApiError(500, "An unexpected error occurred. The terminal of the server shows details."))
