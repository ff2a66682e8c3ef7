"""Files on disk: bounded reads, atomic writes, and the expansion of paths that users write."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from reeltune.errors import FileError


def expand(path: str | os.PathLike[str]) -> Path:
    """A path with `~` expanded; unchanged if the home folder is unknown."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def is_file(path: Path) -> bool:
    """Whether a path is a regular file. False for paths that can't exist: with NUL, too long, or a loop of links."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def is_folder(path: Path) -> bool:
    """Whether a path is a folder. False for paths that can't exist: with NUL, too long, or a loop of links."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def working_folder(path: Path) -> Path:
    """The absolute path of a folder, which need not exist yet. Raises FileError for a file or an invalid path."""
    hint = "Name a folder: --root, $REELTUNE_ROOT, or by default the current folder."
    try:
        path = path.resolve()
        kind = path.stat().st_mode
    except FileNotFoundError:
        return path
    except (OSError, ValueError, RuntimeError) as error:
        raise FileError(f"{path} can't be the working folder: {reason(error)}.", hint=hint) from error
    if not stat.S_ISDIR(kind):
        raise FileError(f"{path} can't be the working folder: it is not a folder.", hint=hint)
    return path


def read_bytes(path: Path, max_bytes: int) -> bytes:
    """The content of a small regular file.

    Raises FileError if it doesn't exist, can't be read, holds more than `max_bytes`, or is not a regular file.
    """
    with open_regular(path) as file:
        try:
            content = file.read(max_bytes + 1)
        except OSError as error:
            raise FileError(f"{path} can't be read: {reason(error)}.") from error
    if len(content) > max_bytes:
        raise FileError(f"{path} holds more than {max_bytes:,} bytes.")
    return content


def open_regular(path: Path) -> BinaryIO:
    """A regular file, open for reading.

    Raises FileError if it doesn't exist, can't be read, or is a folder, a device or a named pipe.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)  # opening a pipe would block
    try:
        handle = os.open(path, flags)
    except FileNotFoundError:
        raise FileError(f"{path} doesn't exist.", hint="Check the path.") from None
    except (OSError, ValueError) as error:
        raise FileError(f"{path} can't be read: {reason(error)}.", hint="Check its permissions.") from error
    try:
        kind = os.fstat(handle).st_mode
        if stat.S_ISDIR(kind):
            raise FileError(f"{path} is a folder.", hint="Give the path of a file.")
        if not stat.S_ISREG(kind):
            raise FileError(f"{path} is not a regular file.", hint="Give the path of a file on disk.")
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def make_folder(path: Path) -> None:
    """Create a folder and its parents where they don't exist. Raises FileError."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError, RuntimeError) as error:
        cause = "it is a file or a broken link" if isinstance(error, FileExistsError) else reason(error)
        raise FileError(f"The folder {path} can't be created: {cause}.", hint="Check the path.") from error


def write_all(write: Callable[[memoryview], int | None], data: bytes | memoryview) -> None:
    """Write all of `data` with the `write` method of an unbuffered file, which may write only a part of it.

    On a disk that is almost full a short write raises nothing, and only the next one does. Raises OSError.
    """
    view = memoryview(data).cast("B")
    while view:
        written = write(view)
        if not written:  # None for a file that doesn't block; 0 would repeat forever
            raise OSError(errno.EIO, "The system accepted no more bytes")
        view = view[written:]


def sync(path: Path) -> None:
    """Make a file, or the names in a folder, durable (folders: not on Windows), for power cuts.

    Nothing happens on file systems that can't do this. Raises OSError.
    """
    if path.is_dir() and not hasattr(os, "O_DIRECTORY"):
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS):
            raise
    finally:
        os.close(handle)


def write_atomic(path: Path, content: bytes, *, mode: int | None = None) -> None:
    """Replace a file atomically: a reader gets the old or the new content, never a part.

    `mode`: the permissions of the new file; by default those of the old file, or the system's for a new one. Raises
    FileError, and leaves the old file unchanged.
    """
    temporary: Path | None = None
    try:
        path = path.resolve()  # so that the file behind a link is replaced, not the link
        path.parent.mkdir(parents=True, exist_ok=True)
        if mode is None and path.exists():
            mode = stat.S_IMODE(path.stat().st_mode)
        temporary = path.with_name(f".{path.name[:100]}.{secrets.token_hex(4)}.partial")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        with os.fdopen(os.open(temporary, flags, 0o666 if mode is None else mode), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if mode is not None:
            temporary.chmod(mode)  # `os.open` subtracts the process's umask
        temporary.replace(path)
    except (OSError, ValueError, RuntimeError) as error:
        _discard(temporary)
        message = f"{path} can't be written: {reason(error)}."
        raise FileError(message, hint="Check the free space, the folder and its permissions.") from error
    except BaseException:
        _discard(temporary)
        raise


def _discard(temporary: Path | None) -> None:
    if temporary is not None:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def reason(error: Exception) -> str:
    """The text of an operating system error, without its number and path."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(text).rstrip(".")
