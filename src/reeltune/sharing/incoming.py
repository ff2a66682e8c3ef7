"""The text of a shared definition: a JSON file on the Hub or any server, a gist, a zip archive, or a file on disk.

Everything is untrusted: the size is limited, and an archive is read in memory, without writing anything.
"""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit, urlunsplit

from reeltune.checkpoints.names import base_name
from reeltune.definitions.copying import is_valid_id
from reeltune.definitions.jsontext import MAX_BYTES, decode, parse_object
from reeltune.definitions.schema import MODEL_KEY
from reeltune.errors import DefinitionError, FetchError
from reeltune.files import expand, read_bytes
from reeltune.net import Session, file_url, run_within, shown, without_secrets
from reeltune.preferences import Preferences
from reeltune.untrusted import clean_text

_SECONDS = 60.0
_MAX_ARCHIVE_BYTES = 20_000_000
_MAX_FILES = 1_000  # in an archive
_MAX_NAMED = 5
_GIST = "gist.github.com"
_GITHUB_FILE = re.compile(r"/([^/]+)/([^/]+)/blob/(.+)")
_ENDINGS = (".json", ".zip")
_PAGE = re.compile(rb"\s*(?:<!doctype|<html|<\?xml)", re.IGNORECASE)
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError, RuntimeError, OSError)


@dataclass(frozen=True)
class IncomingDefinition:
    """A definition that was read but not installed.

    `source`: its URL without secrets, or its path. `name`: the name of its file. `notices`: what of an archive is not
    used.
    """

    source: str
    name: str
    text: str
    notices: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """The id that its file name gives; empty if the name can't be one."""
        stem = PurePosixPath(self.name).stem if self.name.lower().endswith(".json") else ""
        return stem if is_valid_id(stem) else ""

    @property
    def remote(self) -> bool:
        """Whether it comes from a URL, so that it can be updated."""
        return self.source.startswith(("http://", "https://"))


def is_definition_source(source: str) -> bool:
    """Whether a URL or a path is that of a definition or an archive, not of a weight file."""
    if not source.lower().startswith(("http://", "https://")):
        return source.lower().endswith(_ENDINGS)
    try:
        host = (urlsplit(source).hostname or "").lower()
    except ValueError:
        return False
    is_gist = host == _GIST or host.startswith("gist.githubusercontent.")
    return is_gist or base_name(source).lower().endswith(_ENDINGS)


def read_incoming(source: str, preferences: Preferences) -> IncomingDefinition:
    """Read a shared definition. Raises FetchError, FileError, and DefinitionError for what isn't one."""
    if source.lower().startswith(("http://", "https://")):
        url = _raw_url(source)
        with Session(tokens=preferences.tokens, connections=1) as session:
            content = run_within(
                _SECONDS,
                lambda: session.read(url, _MAX_ARCHIVE_BYTES),
                stop=session.interrupt,
                name=shown(url),
            )
        source, name = without_secrets(source), base_name(source)
        if _PAGE.match(content):
            message = f"{shown(source)} is a web page, not a definition."
            raise FetchError(message, hint="Use the URL of the JSON file itself. If it is gated, HF_TOKEN is needed.")
    else:
        path = expand(source)
        content = read_bytes(path, _MAX_ARCHIVE_BYTES)
        source, name = str(path), path.name
    if content.startswith(b"PK\x03\x04"):
        return _from_archive(source, content)
    return IncomingDefinition(source, clean_text(name), decode(content, shown_source(source)))


def shown_source(source: str) -> str:
    """A source for messages."""
    return shown(source) if "://" in source else Path(source).name


def _raw_url(source: str) -> str:
    """The URL of the file itself, for the URL of its page on the Hub, GitHub, or of a gist."""
    try:
        parts = urlsplit(source)
    except ValueError as error:
        raise FetchError(f"{shown(source)!r} is not a valid URL.", hint="Check the URL.") from error
    host = (parts.hostname or "").lower()
    if host == _GIST and "/raw" not in parts.path:
        path = f"{parts.path.rstrip('/')}/raw"
        return urlunsplit(("https", "gist.githubusercontent.com", path, "", ""))
    match = _GITHUB_FILE.fullmatch(parts.path)
    if host == "github.com" and match:
        return urlunsplit(("https", "raw.githubusercontent.com", f"/{match[1]}/{match[2]}/{match[3]}", "", ""))
    return file_url(source)


def _from_archive(source: str, content: bytes) -> IncomingDefinition:
    """The only definition in a zip archive. Raises DefinitionError if there is none, or several."""
    name = shown_source(source)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
            if len(entries) > _MAX_FILES:
                raise DefinitionError(f"{name} contains {len(entries):,} files; at most {_MAX_FILES:,} are read.")
            texts = {}
            for entry in entries:
                if not entry.filename.lower().endswith(".json") or entry.file_size > MAX_BYTES:
                    continue
                with archive.open(entry) as file:
                    raw = file.read(MAX_BYTES + 1)
                if len(raw) <= MAX_BYTES and _is_definition(raw):
                    texts[entry.filename] = raw
    except _DAMAGE as error:
        raise DefinitionError(f"{name} is not a zip archive that can be read.", hint="Download it again.") from error
    if len(texts) != 1:
        found = f"{len(texts)} definitions" if texts else "no definition"
        raise DefinitionError(f"{name} contains {found}; one is needed.", hint="Extract the JSON file, and add that.")
    file_name, raw = next(iter(texts.items()))
    others = [clean_text(entry.filename) for entry in entries if entry.filename != file_name]
    notices = []
    if others:
        listed = ", ".join(others[:_MAX_NAMED]) + (
            f" and {len(others) - _MAX_NAMED} more" if others[_MAX_NAMED:] else ""
        )
        notices.append(f"Not used of the archive: {listed}.")
    base = PurePosixPath(clean_text(file_name).replace("\\", "/")).name
    return IncomingDefinition(source, base, decode(raw, file_name), tuple(notices))


def _is_definition(raw: bytes) -> bool:
    try:
        value, _ = parse_object(decode(raw, "archive"), "archive")
    except DefinitionError:
        return False
    return isinstance(value.get(MODEL_KEY), dict)
