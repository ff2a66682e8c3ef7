"""Multipart forms, whose files are checked and stored while they are received."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from python_multipart.multipart import MultipartParser, parse_options_header

from reeltune.service.uploads import IncomingFile, RefusalReason, UploadLimit, UploadRefused
from reeltune.untrusted import clean_text

_MAX_FILES = 100  # of one form
_MAX_FIELDS = 1000
_MAX_NAME = 200  # characters
_MAX_HEADER_BYTES = 8000  # of all headers of one part
_CALLBACKS = (
    "part_begin",
    "part_data",
    "part_end",
    "header_field",
    "header_value",
    "header_end",
    "headers_finished",
    "end",
)
STATUSES: Mapping[RefusalReason, int] = {  # of the answers to uploads that are refused
    RefusalReason.INCOMPLETE: 400,
    RefusalReason.TOO_LARGE: 413,
    RefusalReason.UNSUPPORTED: 415,
    RefusalReason.NO_SPACE: 507,
}


@dataclass(frozen=True)
class StoredFile:
    """A file of a form: the name of its field, and where it is stored."""

    field: str
    path: Path


def boundary_of(content_type: str) -> bytes | None:
    """The boundary in the Content-Type header of a multipart form; None for any other request."""
    kind, options = parse_options_header(content_type)
    return (options.get(b"boundary") or None) if kind == b"multipart/form-data" else None


class MultipartReceiver:
    """Stores the files of a form in `folder`, and keeps its texts.

    `max_text_bytes`: of all texts together; 0 ignores them. `media_only`: whether files have to be images or videos.
    """

    def __init__(
        self, folder: Path, boundary: bytes, limit: UploadLimit, *, max_text_bytes: int = 0, media_only: bool = False
    ) -> None:
        self.files: list[StoredFile] = []  # those that are complete
        self.texts: list[tuple[str, str]] = []  # names and values
        self._folder, self._limit, self._max_text_bytes = folder, limit, max_text_bytes
        self._media_only = media_only
        self._file: IncomingFile | None = None
        self._field = ""
        self._text: bytearray | None = None
        self.text_bytes = 0  # of all texts so far
        self._ended = False
        self._headers: dict[str, str] = {}
        self._header_name, self._header_text = bytearray(), bytearray()
        self._header_bytes = 0
        callbacks: Any = {f"on_{name}": getattr(self, f"_{name}") for name in _CALLBACKS}
        self._parser = MultipartParser(boundary, callbacks)

    @property
    def received(self) -> int:
        """Bytes received so far."""
        return self._limit.received

    @property
    def current_name(self) -> str:
        """Name of the file that is being received."""
        return self._file.name if self._file is not None else ""

    def write(self, data: bytes) -> None:
        """Process the next bytes of the form. Raises UploadRefused, FormParserError, OSError."""
        self._limit.count(data)
        self._parser.write(data)

    def finish(self) -> None:
        """Check that the form is complete. Raises UploadRefused, FormParserError."""
        self._parser.finalize()
        if not self._ended:
            raise UploadRefused(RefusalReason.INCOMPLETE, "The upload is incomplete.")

    def discard(self) -> None:
        """Delete a file that is incomplete."""
        if self._file is not None:
            self._file.discard()
            self._file = None

    # --- callbacks of the parser ----------------------------------------------------------------------------

    def _part_begin(self) -> None:
        self._headers, self._header_bytes = {}, 0

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._count_header(end - start)
        self._header_name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._count_header(end - start)
        self._header_text += data[start:end]

    def _count_header(self, size: int) -> None:
        self._header_bytes += size
        if self._header_bytes > _MAX_HEADER_BYTES:
            message = f"The headers of a part may have at most {_MAX_HEADER_BYTES:,} bytes."
            raise UploadRefused(RefusalReason.TOO_LARGE, message)

    def _header_end(self) -> None:
        self._headers[self._header_name.decode("latin-1").lower()] = self._header_text.decode("latin-1")
        self._header_name, self._header_text = bytearray(), bytearray()

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._headers.get("content-disposition", ""))
        self._field = clean_text(options.get(b"name", b"").decode("utf-8", "replace"))[:_MAX_NAME]
        if b"filename" in options:
            self._begin_file(clean_text(options[b"filename"].decode("utf-8", "replace")))
        elif self._max_text_bytes:
            if len(self.texts) >= _MAX_FIELDS:
                raise UploadRefused(RefusalReason.TOO_LARGE, f"A form may have at most {_MAX_FIELDS} fields.")
            self._text = bytearray()

    def _begin_file(self, name: str) -> None:
        if len(self.files) >= _MAX_FILES:
            raise UploadRefused(RefusalReason.TOO_LARGE, f"An upload may have at most {_MAX_FILES} files.")
        self._file = IncomingFile(self._folder, name, media_only=self._media_only)

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if self._file is not None:
            self._file.write(data[start:end])
        elif self._text is not None:
            self.text_bytes += end - start
            if self.text_bytes > self._max_text_bytes:
                message = f"The texts of a form may have at most {self._max_text_bytes:,} bytes."
                raise UploadRefused(RefusalReason.TOO_LARGE, message)
            self._text += data[start:end]

    def _part_end(self) -> None:
        if self._file is not None:
            self.files.append(StoredFile(self._field, self._file.finish()))
            self._file = None
        elif self._text is not None:
            self.texts.append((self._field, clean_text(self._text.decode("utf-8", "replace"))))
            self._text = None

    def _end(self) -> None:
        self._ended = True
