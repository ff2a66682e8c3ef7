"""What a server reports about a file before it is downloaded: size, validator, sha256, and whether it is a file.

The Hub reports the sha256 of large files in `X-Linked-Etag`, before it redirects to its storage
(huggingface.co/docs/hub); for other files it is known only from the definition or CivitAI's API.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from email.message import Message
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from reeltune.errors import BadDownload
from reeltune.net import Session, chunks, header_number, is_civitai, is_compressed, shown

if TYPE_CHECKING:
    import httpx

_START_BYTES = 4096
_PAGE_TYPES = ("text/html", "application/json", "application/xhtml+xml")
_TEXT_NAMES = (".json", ".html", ".txt", ".model", ".jinja", ".md")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_STRONG_AFTER_SECONDS = 60  # a date this old can't belong to two states of a file


@dataclass(frozen=True)
class RemoteFile:
    """A file on a server.

    `size`: bytes, None while unknown. `validator`: a strong ETag or Last-Modified for If-Range; may be empty. `ranges`:
    ranges of bytes can be requested, without mixing several states of the file. `name`: from Content-Disposition.
    """

    url: str
    size: int | None
    validator: str
    sha256: str | None
    ranges: bool
    name: str | None


def query_file(session: Session, url: str, file_name: str, *, sha256: str | None = None) -> RemoteFile:
    """Request the first few bytes of a file.

    `sha256`: the expected one, if known; then ranges can be used without a validator, because the file is verified.
    Raises FetchError; BadDownload if the server answers with a web page.
    """
    with session.get(url, first=0, last=_START_BYTES - 1) as response:
        refuse_page(response, url, file_name)
        if not is_compressed(response):  # a range of a compressed answer can't be read
            _refuse_markup(_read_start(response), url, file_name)
        size = total_size(response)
        file_validator = validator(response)
        linked_sha256 = _linked_sha256(response)
        can_be_checked = bool(file_validator or linked_sha256 or sha256)
        return RemoteFile(
            url=url,
            size=size,
            validator=file_validator,
            sha256=linked_sha256,
            ranges=response.status_code == 206 and size is not None and can_be_checked,
            name=_file_name(response.headers.get("Content-Disposition", "")),
        )


def _read_start(response: httpx.Response) -> bytes:
    start = b""
    for chunk in chunks(response):
        start += chunk
        if len(start) >= _START_BYTES:
            break
    return start


def total_size(response: httpx.Response) -> int | None:
    """Size of the whole file in bytes, from the response to a range request or to a plain one; None if unknown."""
    if is_compressed(response):
        return None
    if response.status_code == 206:
        total = response.headers.get("Content-Range", "").rpartition("/")[2]
    else:
        total = response.headers.get("Content-Length", "")
    return header_number(total)


def validator(response: httpx.Response) -> str:
    """The strong ETag, otherwise a strong Last-Modified, otherwise empty, as needed by If-Range (RFC 9110, 8.8.2.2)."""
    etag = str(response.headers.get("ETag", ""))
    if etag and not etag.startswith("W/"):
        return etag
    changed = str(response.headers.get("Last-Modified", ""))
    try:
        age = parsedate_to_datetime(response.headers.get("Date", "")) - parsedate_to_datetime(changed)
    except (TypeError, ValueError, OverflowError):
        return ""
    return changed if age.total_seconds() >= _STRONG_AFTER_SECONDS else ""


def refuse_page(response: httpx.Response, url: str, file_name: str) -> None:
    """Raise BadDownload if the response is a web page or a message of an API."""
    media_type = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if media_type in _PAGE_TYPES and not file_name.lower().endswith(_TEXT_NAMES):
        raise _page_error(url, f"a page ({media_type})", file_name)


def _refuse_markup(start: bytes, url: str, file_name: str) -> None:
    opening = start.lstrip()[:15].lower()
    if opening.startswith((b"<!doctype", b"<html", b"<?xml")) and not file_name.lower().endswith(_TEXT_NAMES):
        raise _page_error(url, "a web page", file_name)


def _page_error(url: str, content: str, file_name: str) -> BadDownload:
    token = "CIVITAI_TOKEN" if is_civitai(url) else "HF_TOKEN"
    return BadDownload(
        f"{shown(url)} serves {content}, not {file_name}.",
        hint=f"The URL probably needs a login ({token}), is gated, or is that of a page instead of the file.",
    )


def _linked_sha256(response: httpx.Response) -> str | None:
    """The sha256 in the `X-Linked-Etag` of a response or of the redirects to it."""
    for step in (*response.history, response):
        etag = step.headers.get("X-Linked-Etag", "").removeprefix("W/").strip('"').lower()
        if _SHA256.fullmatch(etag):
            return str(etag)
    return None


def _file_name(header: str) -> str | None:
    """The file name in a Content-Disposition header (RFC 6266), plain or encoded."""
    if not header:
        return None
    message = Message()
    try:
        message["Content-Disposition"] = header
        name = message.get_filename()
    except (ValueError, LookupError, UnicodeError):  # an unknown encoding, or control characters
        return None
    return str(name) if name else None
