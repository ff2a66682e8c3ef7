"""Uploaded files: received in pieces, limited in size, identified by their content and stored in the workspace.

limit = UploadLimit(workspace.uploads)
upload = IncomingFile(workspace.uploads, "fox.png")
limit.count(piece)
upload.write(piece)
path = upload.finish()
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import shutil
import threading
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path

from reeltune.errors import MediaError, ReeltuneError
from reeltune.files import is_file, sync, write_atomic
from reeltune.library.inventory import PARTIAL
from reeltune.machine import free_disk
from reeltune.media.inputs import read_clip, read_image
from reeltune.media.kinds import JSON_FILE, NUMPY_FILE, SAFETENSORS_FILE, display, kind_of
from reeltune.media.tracks import read_tracks
from reeltune.service.lora_files import read_lora
from reeltune.service.workspace import Workspace

MAX_BYTES = 2_000_000_000  # of one upload
MAX_JSON_BYTES = 20_000_000
_MAX_STEM, _MAX_SUFFIX = 100, 11  # characters of a file name
_MAX_NAME_BYTES = 200
_RESERVED_DISK_BYTES = 1_000_000_000  # uploads leave this much of the disk free
_DISK_CHECK_BYTES = 64_000_000  # received between two checks of the free disk
_PREVIEW_SIZE = (16, 16)
_DECODING = threading.Lock()  # one file is decoded at a time, which bounds the memory that uploads take
_MEDIA = "Use a PNG, JPEG, WebP, BMP or GIF image, or an MP4, WebM, MOV or MKV video."
_SUPPORTED = "Use a PNG, JPEG, WebP, BMP or GIF image, an MP4, WebM, MOV or MKV video, a LoRA, or a JSON file."
_RESERVED_NAMES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)  # of devices on Windows
_UNSAFE_CHARACTERS = '<>:"|?*#%&'


class RefusalReason(StrEnum):
    """Why an upload is refused."""

    INCOMPLETE = "incomplete"
    TOO_LARGE = "too large"
    UNSUPPORTED = "unsupported"
    NO_SPACE = "no space"


class UploadRefused(ReeltuneError):
    """An upload can't be accepted; `reason` says why in a form that programs can act on."""

    def __init__(self, reason: RefusalReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class UploadLimit:
    """Limits one request to `max_bytes` of files and to the free space of the disk that holds `folder`.

    `envelope_bytes`: what a request may contain besides the content of files, such as the headers of a form.
    """

    def __init__(self, folder: Path, max_bytes: int = MAX_BYTES, *, envelope_bytes: int = 0) -> None:
        self._folder, self._max_bytes, self._envelope_bytes = folder, max_bytes, envelope_bytes
        self._next_disk_check = 0
        self.received = 0

    def announce(self, length: int) -> None:
        """Check the announced size of a request before anything is read. Raises UploadRefused."""
        self._check_size(length)
        if length > free_disk(self._folder) - _RESERVED_DISK_BYTES:
            raise UploadRefused(RefusalReason.NO_SPACE, "The disk is nearly full.")

    def count(self, data: bytes) -> None:
        """Count received bytes. Raises UploadRefused when there are too many or the disk is nearly full."""
        self.received += len(data)
        self._check_size(self.received)
        if self.received < self._next_disk_check:
            return
        self._next_disk_check = self.received + _DISK_CHECK_BYTES
        if free_disk(self._folder) < _RESERVED_DISK_BYTES:
            raise UploadRefused(RefusalReason.NO_SPACE, "The disk is nearly full.")

    def _check_size(self, length: int) -> None:
        if length > self._max_bytes + self._envelope_bytes:
            raise UploadRefused(RefusalReason.TOO_LARGE, f"An upload may have at most {self._max_bytes:,} bytes.")


class IncomingFile:
    """A file that is being received. It is hidden in `folder` until `finish` has checked its content.

    `media_only`: whether it has to be an image or a video.
    """

    def __init__(self, folder: Path, name: str, *, media_only: bool = False) -> None:
        self.name = name
        self._media_only = media_only
        self._folder = folder
        self._path = folder / f".{secrets.token_hex(8)}{PARTIAL}"
        self._file = self._path.open("xb")
        self._sha256 = hashlib.sha256()

    def write(self, data: bytes) -> None:
        """Append received bytes. Raises OSError."""
        self._file.write(data)
        self._sha256.update(data)

    def finish(self) -> Path:
        """Check the content and move the file to `<folder>/<sha256>/<name>`, so that equal content is stored once.

        Raises UploadRefused for a file that is neither an image, a video, trajectories, a LoRA nor JSON, OSError when
        it can't be stored.
        """
        self._file.close()
        try:
            name = accepted_name(self._path, self.name, media_only=self._media_only)
        except MediaError as error:
            raise UploadRefused(RefusalReason.UNSUPPORTED, str(error)) from error
        sync(self._path)  # a job that names the file outlives a power cut, and so must the file
        folder = self._folder / self._sha256.hexdigest()
        folder.mkdir(exist_ok=True)
        path = folder / name
        self._path.replace(path)
        os.utime(path)  # the age of an upload counts from the last time somebody sent it
        return path

    def discard(self) -> None:
        """Delete the file unless it was finished."""
        self._file.close()
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)


# --- names and content ------------------------------------------------------------------------------------------


def accepted_name(path: Path, name: str, *, media_only: bool = False) -> str:
    """The name to store an uploaded file under, with a suffix that matches its content.

    Raises MediaError unless the file is an image or a video that can be decoded, trajectories or, without `media_only`,
    JSON or a LoRA.
    """
    safe_name = clean_name(name)
    try:
        kind = kind_of(path)
        if kind.image or kind.container:
            check_media(path, "image" if kind.image else "video")
            return _with_suffix(safe_name, kind.suffixes)
        if kind.label == NUMPY_FILE:
            check_media(path, "tracks")
            return _with_suffix(safe_name, kind.suffixes)
    except MediaError as error:
        raise MediaError(error.message.replace(display(path), safe_name), hint=error.hint) from error
    if media_only:
        raise MediaError(f"{safe_name} is {kind.label}, not an image or a video.", hint=_MEDIA)
    if kind.label == SAFETENSORS_FILE:
        return _lora_name(path, safe_name)
    if kind.label != JSON_FILE:
        message = f"{safe_name} is {kind.label}, not an image, a video or a settings file."
        raise MediaError(message, hint=_SUPPORTED)
    if path.stat().st_size > MAX_JSON_BYTES:
        raise MediaError(f"{safe_name} is too large.", hint=f"A JSON file may have at most {MAX_JSON_BYTES:,} bytes.")
    return _with_suffix(safe_name, (".json",))


def _lora_name(path: Path, name: str) -> str:
    """The name of an uploaded LoRA. Raises MediaError for other safetensors files."""
    facts = read_lora(path)
    if facts.problem or not facts.family:
        problem = facts.problem or "It is not a LoRA of a model that reeltune knows."
        raise MediaError(f"{name} can't be used: {problem}", hint="Put checkpoints into ckpts/ instead.")
    return _with_suffix(name, (".safetensors",))


def clean_name(name: str) -> str:
    """A file name without folders that every operating system accepts; never empty."""
    last_part = re.split(r"[/\\]", name)[-1]
    characters = [
        character if character.isprintable() and character not in _UNSAFE_CHARACTERS else "_" for character in last_part
    ]
    stem, dot, suffix = "".join(characters).strip(" .").rpartition(".")
    shortened = f"{stem[:_MAX_STEM]}{dot}{suffix[:_MAX_SUFFIX]}" if stem else suffix[:_MAX_STEM]
    encoded = shortened.encode("utf-8", "replace")[:_MAX_NAME_BYTES]
    cleaned = encoded.decode("utf-8", "ignore").strip(" .")
    return f"_{cleaned}" if _RESERVED_NAMES.fullmatch(cleaned) or not cleaned else cleaned


def check_media(path: Path, kind: str) -> None:
    """Decode an "image", the beginning of a "video", or "tracks". Raises MediaError when that fails."""
    with _DECODING:
        if kind == "image":
            read_image(path)
        elif kind == "tracks":
            read_tracks(path)
        else:
            read_clip(path, 1, 1, _PREVIEW_SIZE)


def _with_suffix(name: str, suffixes: Sequence[str]) -> str:
    """The name with one of the suffixes, as other programs go by it."""
    if name.lower().endswith(tuple(suffixes)):
        return name
    stem = name.rpartition(".")[0] or name
    return f"{stem}{suffixes[0]}"


# --- files that this program stores or deletes ------------------------------------------------------------------


def store_upload(workspace: Workspace, content: bytes, name: str) -> Path:
    """Store content among the uploads, where equal content is stored once. Raises FileError, OSError."""
    path = workspace.uploads / hashlib.sha256(content).hexdigest() / name
    if not path.exists():
        write_atomic(path, content)
    os.utime(path)
    return path


def copy_to_uploads(workspace: Workspace, source: Path, name: str) -> Path:
    """Like `store_upload`, for a file of any size. Raises OSError."""
    with source.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    path = workspace.uploads / sha256 / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        partial = workspace.uploads / f".{secrets.token_hex(8)}{PARTIAL}"  # another program may copy the same file
        try:
            shutil.copyfile(source, partial)
            sync(partial)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    os.utime(path)
    return path


def uploaded_file(workspace: Workspace, path: str) -> Path:
    """The path of a file in the uploads or outputs. Raises MediaError for every other path."""
    real_path = workspace.confined(path)
    if real_path is None or not is_file(real_path):
        raise MediaError("The uploaded file no longer exists.", hint="Upload it again.")
    return real_path


def discard_json_upload(workspace: Workspace, path: str | Path) -> None:
    """Delete an uploaded JSON file that has been read.

    Images and videos stay, because a job or an open form may use the same content; `upload_cleanup` removes them.
    """
    real_path = workspace.confined(path)
    if real_path is None or not real_path.is_relative_to(workspace.uploads) or real_path.suffix != ".json":
        return
    real_path.unlink(missing_ok=True)
