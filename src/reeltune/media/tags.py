"""Read the metadata that programs store in generated videos and images.

    read_metadata(Path("outputs/fox.mp4"))  # {"model_type": "t2v", "prompt": …}, or None

It is read from the tags of a container and its streams (`comment` in MP4, `COMMENT` in Matroska), the text chunks of
PNG, the comment of JPEG, and the comment or description in the EXIF data of images.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from reeltune.errors import FileError, InvalidJSON, MediaError
from reeltune.files import open_regular
from reeltune.media.container import open_container
from reeltune.media.kinds import display, kind_of
from reeltune.media.pillow import FAILURES
from reeltune.untrusted import JsonObject, clean_text, decode_text, parse_json

MAX_BYTES = 4_000_000  # of an embedded text
_EXIF_FOLDER = 0x8769
_EXIF_TEXTS = (0x9286, 0x010E, 0x9C9C)  # UserComment, ImageDescription, XPComment


def read_metadata(path: Path) -> JsonObject | None:
    """The JSON object in the tags of a video or an image; None if there is none.

    Raises MediaError for a file that is neither, or can't be read.
    """
    kind = kind_of(path)
    if not kind.image and not kind.container:
        message = f"{display(path)} is {kind.label}, not a video or an image."
        raise MediaError(message, hint="Use an MP4, a PNG, or another video or image.")
    for text in _image_texts(path, kind.image) if kind.image else _video_texts(path):
        try:
            value = parse_json(text.strip(" \t\r\n\0"), display(path), max_bytes=MAX_BYTES)
        except InvalidJSON:  # a comment that is not metadata
            continue
        if isinstance(value, dict):
            return value
    return None


def _video_texts(path: Path) -> list[str]:
    with open_container(path) as container:
        tags = [container.metadata, *(stream.metadata for stream in container.streams)]
        return list(_candidates(tags))


def _candidates(tags: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Texts that may be JSON objects, those in a comment first."""
    texts = [(key.lower(), text) for group in tags for key, text in group.items() if isinstance(text, str)]
    for _, text in sorted(texts, key=lambda item: item[0] != "comment"):
        if text.lstrip().startswith("{"):
            yield text


def _image_texts(path: Path, format: str) -> list[str]:
    try:
        with open_regular(path) as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about sizes, because nothing is decoded
            Image.init()
            with Image.open(file, formats=(format,)) as image:
                info = {str(key): _text(value) for key, value in image.info.items()}
                return list(_candidates([info, _exif(image)]))
    except FileError as error:
        raise MediaError(clean_text(error.message), hint=error.hint) from error
    except (*FAILURES, Image.DecompressionBombError) as error:
        raise MediaError(f"{display(path)} is a damaged image ({type(error).__name__}).") from error


def _exif(image: Image.Image) -> dict[str, str | None]:
    data = image.getexif()
    values = {**data, **data.get_ifd(_EXIF_FOLDER)}
    return {str(tag): _text(values[tag]) for tag in _EXIF_TEXTS if tag in values}


def _text(value: Any) -> str | None:
    """A tag as text, including EXIF tags, whose first 8 bytes are the encoding."""
    if isinstance(value, str):
        return value
    if not isinstance(value, bytes):
        return None
    if value.startswith(b"UNICODE\0"):
        return _utf16(value[8:])
    if value[1:2] == b"\0":
        return _utf16(value)
    return decode_text(value.removeprefix(b"ASCII\0\0\0"))


def _utf16(raw: bytes) -> str:
    """Decode UTF-16 in either byte order, which EXIF doesn't specify."""
    little = raw.decode("utf-16-le", "replace")
    return little if little.isprintable() or little.startswith("{") else raw.decode("utf-16-be", "replace")
