"""Names and MIME types of media files, by what they hold. Names and announced types come from strangers."""

from __future__ import annotations

from pathlib import Path

from reeltune.errors import FileError, MediaError
from reeltune.files import open_regular, reason
from reeltune.media.kinds import HEAD_BYTES, FileKind, kind_of_bytes
from reeltune.untrusted import clean_text

_IMAGES = {
    "PNG": ("image/png", (".png",)),
    "JPEG": ("image/jpeg", (".jpg", ".jpeg")),
    "GIF": ("image/gif", (".gif",)),
    "WEBP": ("image/webp", (".webp",)),
    "BMP": ("image/bmp", (".bmp",)),
    "AVIF": ("image/avif", (".avif",)),
    "TIFF": ("", (".tif", ".tiff")),
}
_VIDEOS = {  # no MIME type: no browser plays it
    "mov": ("video/mp4", (".mp4", ".mov", ".m4v")),
    "matroska": ("video/webm", (".webm", ".mkv")),
    "avi": ("", (".avi",)),
    "flv": ("", (".flv",)),
    "ogg": ("", (".ogv", ".ogg")),
    "asf": ("", (".wmv", ".asf")),
    "mpeg": ("", (".mpg", ".mpeg")),
    "mpegts": ("", (".ts", ".m2ts", ".mts")),
    "mxf": ("", (".mxf",)),
}


def head_of(path: Path) -> bytes:
    """The first bytes of a regular file. Raises MediaError, without the path."""
    try:
        with open_regular(path) as file:
            return file.read(HEAD_BYTES)
    except FileError as error:
        raise MediaError(clean_text(error.message).replace(clean_text(str(path)), "The file")) from error
    except OSError as error:
        raise MediaError(f"The file can't be read: {reason(error)}.") from error


def mime_of(head: bytes) -> str:
    """The MIME type under which a browser shows a file with this beginning; empty for whatever else it is."""
    kind = kind_of_bytes(head)
    if kind.container == "mov" and head[:1] != b"\0":  # text can look like a box of MP4, but for its length
        return ""
    mime, _ = _names(kind)
    return mime


def suffixes_of(kind: FileKind) -> tuple[str, ...]:
    """Endings of file names that such a file has, the usual one first."""
    return _names(kind)[1]


def _names(kind: FileKind) -> tuple[str, tuple[str, ...]]:
    return _IMAGES.get(kind.image) or _VIDEOS.get(kind.container) or ("", ())
