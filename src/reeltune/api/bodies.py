"""The bodies of requests: JSON objects and forms, limited in size and in time."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from fastapi import Request
from python_multipart.exceptions import FormParserError
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from reeltune.api.errors import ApiError
from reeltune.api.memory import BodyMemory, BodyShare
from reeltune.api.multipart import STATUSES, MultipartReceiver, StoredFile, boundary_of
from reeltune.errors import InvalidJSON
from reeltune.files import reason
from reeltune.service.uploads import MAX_BYTES, UploadLimit, UploadRefused
from reeltune.service.workspace import Workspace
from reeltune.untrusted import JsonObject, clean_text, parse_json

MAX_JSON_BYTES = 100_000_000  # data URLs may hold whole images
_MAX_MEMBERS = 200_000  # of all lists and objects in a JSON body; each takes many times its bytes in memory
_MEMORY = BodyMemory(200_000_000)  # parsing takes a few times as much
_MAX_TEXT_BYTES = 50_000_000  # of all texts in one form
_ENVELOPE_BYTES = 51_000_000  # of a form, besides its files
_STALL_SECONDS = 60.0  # without a byte
_FIRST_SECONDS = 60.0  # for any body, before its speed counts
_LEAST_SPEED = 10_000  # bytes per second; slower bodies only keep a connection busy
_MAX_LEVELS = 5  # of names such as settings[a][b]
_MAX_FIELDS = 1000
_LENGTH = re.compile(r"[0-9]{1,18}")
_URLENCODED = "application/x-www-form-urlencoded"
_CONTENT_TYPES = "application/json or multipart/form-data"


@dataclass(frozen=True)
class Body:
    """What a request sent: `values` by name, and `files` that were stored among the uploads."""

    values: JsonObject
    files: list[StoredFile] = field(default_factory=list)


@asynccontextmanager
async def read_body(request: Request, workspace: Workspace) -> AsyncIterator[Body]:
    """The body of a request, for the time of the block. Raises ApiError."""
    with _MEMORY.share() as share:
        with _refusals():
            body = await _body(request, workspace, share)
        yield body


@asynccontextmanager
async def read_json(request: Request) -> AsyncIterator[Any]:
    """The JSON value in the body of a request, for the time of the block. Raises ApiError."""
    with _MEMORY.share() as share:
        with _refusals():
            value = await run_in_threadpool(_parsed, await _read_whole(request, share))
        yield value


@contextmanager
def _refusals() -> Iterator[None]:
    """Raise ApiError for a body that doesn't arrive."""
    try:
        yield
    except ClientDisconnect:
        raise ApiError(400, "The request was interrupted.", code="incomplete") from None
    except TimeoutError:
        raise ApiError(408, "The request was too slow.", code="too_slow") from None


async def _body(request: Request, workspace: Workspace, share: BodyShare) -> Body:
    content_type = request.headers.get("content-type", "")
    boundary = boundary_of(content_type)
    if boundary is not None:
        return await _read_form(request, workspace, boundary, share)
    kind = content_type.partition(";")[0].strip().lower()
    if kind not in ("", "application/json", _URLENCODED):
        raise ApiError(415, f"Send {_CONTENT_TYPES}.", param="content-type", code="unsupported_media_type")
    content = await _read_whole(request, share)
    if kind == _URLENCODED and not content.lstrip().startswith(b"{"):  # curl -d sends JSON under this name
        return Body(await run_in_threadpool(_from_query, content))
    return Body(await run_in_threadpool(_from_json, content))


async def _read_whole(request: Request, share: BodyShare) -> bytes:
    content = bytearray()
    _check_size(announced_length(request))
    async for data in _pieces(request):
        _check_size(len(content) + len(data))
        share.grow_to(len(content) + len(data))
        content += data
    return bytes(content)


def _check_size(size: int) -> None:
    if size > MAX_JSON_BYTES:
        raise ApiError(413, f"A JSON body may have at most {MAX_JSON_BYTES:,} bytes.", code="too_large")


def announced_length(request: Request) -> int:
    """The length of the body in the header Content-Length; 0 without a valid one."""
    length = request.headers.get("content-length", "")
    return int(length) if _LENGTH.fullmatch(length) else 0


def _from_json(content: bytes) -> JsonObject:
    value = _parsed(content) if content else {}
    if not isinstance(value, dict):
        raise ApiError(400, "The body must be a JSON object.", code="invalid_json")
    return value


def _parsed(content: bytes) -> Any:
    members = sum(content.count(character) for character in b",[{")
    if members > _MAX_MEMBERS:
        raise ApiError(413, f"A JSON body may have at most {_MAX_MEMBERS:,} values.", code="too_large")
    try:
        return parse_json(content, "The body", max_bytes=MAX_JSON_BYTES)
    except InvalidJSON as error:
        raise ApiError(400, str(error), code="invalid_json") from error


def _from_query(content: bytes) -> JsonObject:
    try:
        pairs = parse_qsl(content.decode("utf-8"), keep_blank_values=True, max_num_fields=_MAX_FIELDS)
    except ValueError as error:
        raise ApiError(400, "The body is not a valid form.", code="invalid_form") from error
    return _nested([(clean_text(name), clean_text(text)) for name, text in pairs])


async def _read_form(request: Request, workspace: Workspace, boundary: bytes, share: BodyShare) -> Body:
    receiver: MultipartReceiver | None = None
    try:
        limit = UploadLimit(workspace.root, MAX_BYTES, envelope_bytes=_ENVELOPE_BYTES)
        limit.announce(announced_length(request))
        workspace.uploads.mkdir(parents=True, exist_ok=True)
        receiver = MultipartReceiver(
            workspace.uploads, boundary, limit, max_text_bytes=_MAX_TEXT_BYTES, media_only=True
        )
        await feed(request, receiver, share)
        return Body(_nested(receiver.texts), receiver.files)
    except UploadRefused as refusal:
        raise ApiError(STATUSES[refusal.reason], str(refusal), code="refused_file") from refusal
    except FormParserError as error:
        raise ApiError(400, "The body is not a valid multipart form.", code="invalid_form") from error
    except TimeoutError:  # it is an OSError
        raise
    except OSError as error:
        raise ApiError(507, f"The file can't be stored: {reason(error)}.", code="not_stored") from error
    finally:
        if receiver is not None:
            receiver.discard()


async def feed(request: Request, receiver: MultipartReceiver, share: BodyShare | None = None) -> None:
    """Pass the body of a request to a receiver, whose texts take a `share` of the memory.

    Raises TimeoutError for one that is too slow, ClientDisconnect, and what the receiver raises.
    """
    async for data in _pieces(request):
        await run_in_threadpool(receiver.write, data)
        if share is not None:
            share.grow_to(receiver.text_bytes)
    await run_in_threadpool(receiver.finish)


async def _pieces(request: Request) -> AsyncIterator[bytes]:
    """The pieces of a body. Raises TimeoutError where they come too slowly, ApiError for one that is compressed."""
    if request.headers.get("content-encoding", "").strip().lower() not in ("", "identity"):
        message = "The body must not be compressed."
        raise ApiError(415, message, param="content-encoding", code="unsupported_encoding")
    stream, began, received = request.stream(), time.monotonic(), 0
    while True:
        try:
            async with asyncio.timeout(_STALL_SECONDS):
                data = await anext(stream)
        except StopAsyncIteration:
            return
        received += len(data)
        if time.monotonic() - began > _FIRST_SECONDS + received / _LEAST_SPEED:
            raise TimeoutError
        if data:
            yield data


# --- names of fields --------------------------------------------------------------------------------------------


def _nested(texts: list[tuple[str, str]]) -> JsonObject:
    """The texts of a form by name. `settings[seed]` is a value of an object, `activated_loras[]` one of a list.

    Raises ApiError for names that contradict each other.
    """
    values: JsonObject = {}
    for name, text in texts:
        _put(values, _levels(name), text, name)
    return values


def _levels(name: str) -> list[str]:
    """The parts of a name: `a[b][]` has the parts "a", "b" and ""."""
    first, bracket, rest = name.partition("[")
    if not bracket or not rest.endswith("]") or not first:
        return [name]
    levels = [first, *rest[:-1].split("][")]
    if len(levels) > _MAX_LEVELS:
        raise ApiError(400, f"{name[:60]} is nested too deeply.", param=first, code="invalid_form")
    return levels


def _put(values: Any, levels: list[str], text: str, name: str) -> None:
    level, *others = levels
    inner: Any = text
    if others:
        inner = [] if others == [""] else {}
    if isinstance(values, list) and level == "":
        values.append(text)
        return
    if not isinstance(values, dict) or level == "":
        raise ApiError(400, f"{name[:60]} contradicts another field.", param=levels[0] or None, code="invalid_form")
    if not others:
        if level in values:
            raise ApiError(400, f"{name[:60]} was sent twice.", param=levels[0], code="invalid_form")
        values[level] = text
        return
    _put(values.setdefault(level, inner), others, text, name)


def file_of(body: Body, name: str) -> Path | None:
    """The file of a form's field; None where there is none."""
    return next((stored.path for stored in body.files if stored.field == name), None)
