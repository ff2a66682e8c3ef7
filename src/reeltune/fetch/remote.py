"""What a server says of a file before it is downloaded: size, state, sha256, and whether it is a file at all.

The Hub reports the sha256 of large files in `X-Linked-Etag`, before it redirects to its store
(huggingface.co/docs/hub); elsewhere only the definition or CivitAI's API knows it.
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

_SNIFFED = 4096
_PAGES = ("text/html", "application/json", "application/xhtml+xml")
_TEXT_NAMES = (".json", ".html", ".txt", ".model", ".jinja", ".md")
_SUM = re.compile(r"[0-9a-f]{64}")
_STRONG_AFTER_SECONDS = 60  # since a file was changed: its date can't be that of two states then


@dataclass(frozen=True)
class Remote:
    """A file on a server. `size` in bytes or None; `ranges`: parts of it can be asked for and never get mixed with
    parts of another state of the file.
    """

    url: str
    size: int | None
    validator: str  # strong ETag or Last-Modified, for If-Range; may be empty
    sha256: str | None
    ranges: bool
    name: str | None  # from Content-Disposition


def look(session: Session, url: str, file_name: str, *, sha256: str | None = None) -> Remote:
    """Ask for the first few bytes of a file. Raises FetchError; BadDownload where a page stands in its place.

    `sha256`: what is known of it from elsewhere: a file that is verified may come in parts without a validator.
    """
    with session.get(url, first=0, last=_SNIFFED - 1) as response:
        refuse_page(response, url, file_name)
        compressed = is_compressed(response)
        if not compressed:  # else a part of it can't be read
            _refuse_markup(_start(response), url, file_name)
        known, size = validator(response), total_size(response)
        digest = _linked_sum(response)
        return Remote(
            url=url,
            size=size,
            validator=known,
            sha256=digest,
            ranges=response.status_code == 206 and size is not None and bool(known or digest or sha256),
            name=_disposition(response.headers.get("Content-Disposition", "")),
        )


def _start(response: httpx.Response) -> bytes:
    start = b""
    for chunk in chunks(response):
        start += chunk
        if len(start) >= _SNIFFED:
            break
    return start


def total_size(response: httpx.Response) -> int | None:
    """Length of the whole file in bytes, as an answer to a range or to a plain request announces it."""
    if is_compressed(response):
        return None
    if response.status_code == 206:
        total = response.headers.get("Content-Range", "").rpartition("/")[2]
    else:
        total = response.headers.get("Content-Length", "")
    return header_number(total)


def validator(response: httpx.Response) -> str:
    """The strong ETag, else a date of change that is strong, else nothing: what If-Range takes (RFC 9110, 8.8.2.2)."""
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
    """Raise BadDownload where the answer is a web page or an API's message."""
    kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if kind in _PAGES and not file_name.lower().endswith(_TEXT_NAMES):
        raise _page(url, f"a page ({kind})", file_name)


def _refuse_markup(start: bytes, url: str, file_name: str) -> None:
    opening = start.lstrip()[:15].lower()
    if opening.startswith((b"<!doctype", b"<html", b"<?xml")) and not file_name.lower().endswith(_TEXT_NAMES):
        raise _page(url, "a web page", file_name)


def _page(url: str, what: str, file_name: str) -> BadDownload:
    token = "CIVITAI_TOKEN" if is_civitai(url) else "HF_TOKEN"
    return BadDownload(
        f"{shown(url)} serves {what}, not {file_name}.",
        hint=f"The URL probably needs a login ({token}), is gated, or leads to a page instead of the file.",
    )


def _linked_sum(response: httpx.Response) -> str | None:
    for answer in (*response.history, response):
        etag = answer.headers.get("X-Linked-Etag", "").removeprefix("W/").strip('"').lower()
        if _SUM.fullmatch(etag):
            return str(etag)
    return None


def _disposition(header: str) -> str | None:
    """File name in a Content-Disposition header (RFC 6266), plain or encoded."""
    if not header:
        return None
    message = Message()
    try:
        message["Content-Disposition"] = header
        name = message.get_filename()
    except (ValueError, LookupError, UnicodeError):  # an encoding that doesn't exist, control characters
        return None
    return str(name) if name else None
