"""Images and videos that programs send: uploaded files by their ids, data URLs, and URLs where they are allowed."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import unquote_to_bytes, urlsplit

from reeltune.errors import FileError, MediaError, SettingsError
from reeltune.files import is_file
from reeltune.service.public_urls import download_public
from reeltune.service.uploads import MAX_BYTES, IncomingFile, UploadLimit, UploadRefused, clean_name
from reeltune.service.workspace import Workspace

_ID = re.compile(r"file-([0-9a-f]{64})")
_DATA_URL = re.compile(r"data:([\w.+-]+/[\w.+-]+)?((?:;[\w.+-]+=[\w.+\"-]+)*)(;base64)?,", re.IGNORECASE)
_MAX_DATA_URL = 100_000_000  # characters
_REMOTE = ("http://", "https://")
_MAX_SHOWN = 60
_HINT = "Upload it with POST /v1/files, send it as a data URL, or name a file of the outputs folder."


def file_id(path: Path) -> str:
    """The id of an uploaded file. It follows from the content: the same content has the same id."""
    return f"file-{path.parent.name}"


def uploaded(workspace: Workspace, id: str) -> Path:
    """The uploaded file with an id. Raises MediaError where there is none."""
    match = _ID.fullmatch(id)
    folder = workspace.uploads / match[1] if match else None
    files = (
        sorted(path for path in folder.iterdir() if path.is_file()) if folder is not None and folder.is_dir() else []
    )
    if not files:
        raise MediaError(
            f"There is no file {id[:_MAX_SHOWN]!r}.", hint="Upload it again: unused files are deleted after a day."
        )
    return files[0]


def stored_input(workspace: Workspace, key: str, value: object) -> str:
    """The path of the file that a value of the setting `key` names.

    Raises SettingsError for a value that names no file here, MediaError for content that is neither an image nor a
    video, FetchError for a URL that can't be downloaded, FileError where nothing can be stored.
    """
    if not isinstance(value, str):
        raise SettingsError(f"{key}: a text that names a file was expected.", hint=_HINT, key=key)
    if _ID.fullmatch(value):
        return str(uploaded(workspace, value))
    if value[:5].lower() == "data:":
        return str(_from_data_url(workspace, key, value))
    if value.lower().startswith(_REMOTE):
        return str(_from_url(workspace, key, value))
    path = workspace.confined(value)
    if path is None or not is_file(path):
        raise SettingsError(
            f"{key}: {clean_name(value)[:_MAX_SHOWN]!r} names no file of the server.", hint=_HINT, key=key
        )
    return str(path)


def _from_data_url(workspace: Workspace, key: str, url: str) -> Path:
    match = _DATA_URL.match(url[:1000])
    if match is None or len(url) > _MAX_DATA_URL:
        message = f"{key}: the data URL is not valid, or longer than {_MAX_DATA_URL:,} characters."
        raise SettingsError(message, hint="Write it as data:image/png;base64,…", key=key)
    try:
        data = url[match.end() :]
        content = base64.b64decode(data, validate=True) if match[3] else unquote_to_bytes(data)
    except (binascii.Error, ValueError) as error:
        raise SettingsError(
            f"{key}: the data URL is not valid base64.", hint="Encode the whole file.", key=key
        ) from error
    return store_content(workspace, [content], key)


def _from_url(workspace: Workspace, key: str, url: str) -> Path:
    if not workspace.preferences().input_urls:
        message = f"{key}: this server downloads nothing that requests name by URL."
        raise SettingsError(
            message, hint=f"{_HINT} The owner can allow it: reeltune config set input_urls true.", key=key
        )
    name = urlsplit(url).path.rpartition("/")[2] or key
    return store_content(workspace, download_public(url, MAX_BYTES), name)


def store_content(workspace: Workspace, pieces: Iterable[bytes], name: str) -> Path:
    """Store an image or a video among the uploads. Raises MediaError for any other content, FileError."""
    workspace.uploads.mkdir(parents=True, exist_ok=True)
    limit = UploadLimit(workspace.root)
    file = None
    try:
        file = IncomingFile(workspace.uploads, clean_name(name), media_only=True)
        for piece in pieces:
            limit.count(piece)
            file.write(piece)
        return file.finish()
    except UploadRefused as refusal:
        raise MediaError(str(refusal)) from refusal
    except OSError as error:
        message = f"The file can't be stored: {error.strerror or error}."
        raise FileError(message, hint="Check the free space of the server.") from error
    finally:
        if file is not None:
            file.discard()
