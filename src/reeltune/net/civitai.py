"""Resolve CivitAI URLs (a model's page, or a download URL without a file name) to files through its API.

https://civitai.com/models/1234?modelVersionId=5678
https://civitai.com/api/download/models/5678?type=Model&format=SafeTensor&size=full&fp=fp16
https://civitai.com/api/download/models/5678?fileId=91011
-> GET /api/v1/model-versions/5678 -> files: id, name, type, metadata {format, size, fp}, primary, hashes.SHA256,
   downloadUrl

A version may have several files. The URL's query selects one; without a query it is the version's primary file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from reeltune.errors import FetchError, InvalidJSON
from reeltune.net import Session, is_civitai, shown
from reeltune.untrusted import JsonObject, parse_json

_MAX_RESPONSE = 4_000_000
_DOWNLOAD = re.compile(r"/api/download/models/(\d{1,18})/?$")
_VERSION = re.compile(r"/model-versions/(\d{1,18})(?:/|$)")
_PAGE = re.compile(r"/models/(\d{1,18})(?:/|$)")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_FILTERS = ("type", "format", "size", "fp")
_MAX_LISTED = 12  # files that a message lists


@dataclass(frozen=True)
class ResolvedFile:
    """The file that a URL stands for.

    `url`: where to download it. `name`, `sha256`: None where no API reports them. `notices`: other files that the URL
    could stand for.
    """

    url: str
    name: str | None = None
    sha256: str | None = None
    notices: tuple[str, ...] = ()


@dataclass(frozen=True)
class _ApiFile:
    """A file of a version, as the API describes it. `properties`: its type, format, size and fp in lower case."""

    id: str
    name: str
    primary: bool
    sha256: str | None
    url: str
    properties: Mapping[str, str]

    @property
    def is_safetensors(self) -> bool:
        """Whether it is a safetensors file."""
        return self.name.lower().endswith(".safetensors")

    @property
    def usable(self) -> bool:
        """Whether it can hold weights in a supported format."""
        return self.is_safetensors or self.name.lower().endswith(".gguf")

    @property
    def may_be_model(self) -> bool:
        """Whether it can be a model, rather than a VAE or a config."""
        return self.properties["type"] in ("", "model")

    def __str__(self) -> str:
        file_id = self.id or "?"
        details = [self.properties[key] for key in _FILTERS if self.properties[key]]
        return f"{self.name} ({', '.join([f'fileId={file_id}', *details])})"


def resolve(session: Session, url: str) -> ResolvedFile:
    """The file that a URL stands for; URLs of other sites are returned unchanged.

    Raises FetchError if no file or several files match; the message lists the version's files.
    """
    parsed = _parse_url(url)
    if parsed is None:
        return ResolvedFile(url)
    host, version_id = parsed
    version = _version(session, host, url, version_id)
    files = _files(version)
    query = _query(url)
    chosen = _choose(url, files, query)
    target = _target(host, version.get("id", version_id), chosen, files)
    return ResolvedFile(target, chosen.name, chosen.sha256, _notices(url, chosen, files, query))


def _parse_url(url: str) -> tuple[str, str] | None:
    """The host and the version's id (empty if the URL has none) of a CivitAI URL; None for any other URL."""
    if not is_civitai(url):
        return None
    parts = urlsplit(url)
    host = f"{parts.scheme.lower()}://{parts.netloc.rpartition('@')[2].lower()}"
    match = _DOWNLOAD.match(parts.path) or _VERSION.match(parts.path)
    if match:
        return host, match[1]
    if _PAGE.match(parts.path):
        return host, ""
    return None


def _query(url: str) -> dict[str, str]:
    """The fields of a URL's query, with names in lower case."""
    return {key.lower(): value.strip() for key, value in parse_qsl(urlsplit(url).query)}


def _version(session: Session, host: str, url: str, version_id: str) -> JsonObject:
    """The version that a URL names, or the newest one of the model."""
    version_id = version_id or _query(url).get("modelversionid", "")
    if re.fullmatch(r"[0-9]{1,18}", version_id):
        return _request(session, f"{host}/api/v1/model-versions/{version_id}")
    page = _PAGE.match(urlsplit(url).path)
    model_id = page[1] if page else ""
    versions = _request(session, f"{host}/api/v1/models/{model_id}").get("modelVersions")
    if not isinstance(versions, list) or not versions or not isinstance(versions[0], dict):
        raise FetchError(f"{shown(url)} lists no versions.", hint="Copy the URL of one version.")
    return versions[0]


def _request(session: Session, url: str) -> JsonObject:
    try:
        value = parse_json(session.read(url, _MAX_RESPONSE), shown(url))
    except InvalidJSON:
        value = None
    if not isinstance(value, dict):
        raise FetchError(f"The response of {shown(url)} is not valid.", hint="Try again later.")
    return value


def _files(version: JsonObject) -> list[_ApiFile]:
    """The files of a version; entries that are not objects with a name are skipped."""
    entries = version.get("files")
    if not isinstance(entries, list):
        return []
    return [_file(entry) for entry in entries if isinstance(entry, dict) and isinstance(entry.get("name"), str)]


def _file(entry: JsonObject) -> _ApiFile:
    """One file of a response; a value of the wrong type is ignored."""
    metadata = _object(entry.get("metadata"))
    sha256 = str(_object(entry.get("hashes")).get("SHA256", "")).lower()
    url = _text(entry.get("downloadUrl"))
    file_id = entry.get("id")
    properties = {key: _text(metadata.get(key)).lower() for key in _FILTERS}
    properties["type"] = _text(entry.get("type")).lower()
    if entry["name"].lower().endswith(".safetensors"):
        properties["format"] = properties["format"] or "safetensor"
    if entry["name"].lower().endswith(".gguf"):
        properties["format"] = properties["format"] or "gguf"
    return _ApiFile(
        id=str(file_id) if isinstance(file_id, int | str) and not isinstance(file_id, bool) else "",
        name=entry["name"],
        primary=entry.get("primary") is True,
        sha256=sha256 if _SHA256.fullmatch(sha256) else None,
        url=url if url.lower().startswith(("http://", "https://")) else "",
        properties=properties,
    )


def _object(value: Any) -> JsonObject:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str:
    return value.strip() if isinstance(value, str) else ""


def _choose(url: str, files: Sequence[_ApiFile], query: Mapping[str, str]) -> _ApiFile:
    usable = [file for file in files if file.usable and _matches(file, query)]
    filters = [f"{key}={query[key.lower()]}" for key in ("fileId", *_FILTERS) if query.get(key.lower())]
    matching = f" for {', '.join(filters)}" if filters else ""
    if not usable:
        message = f"{shown(url)} has no safetensors or GGUF file{matching}. Its files: {_listed(files)}."
        raise FetchError(message, hint="Choose one of them with ?fileId=… in the URL, or another version.")
    usable = [file for file in usable if file.is_safetensors] or usable  # GGUF files are less exact
    best = [file for file in usable if file.primary] or usable
    if len(best) > 1 and not filters:
        best = [file for file in usable if file.properties["type"] == "model"] or best
    if len(best) > 1:
        message = f"{shown(url)} has {len(best)} files{matching}. Its files: {_listed(files)}."
        raise FetchError(message, hint="Choose one of them with ?fileId=… in the URL.")
    return best[0]


def _listed(files: Sequence[_ApiFile]) -> str:
    if not files:
        return "none"
    listed = "; ".join(str(file) for file in files[:_MAX_LISTED])
    more = len(files) - _MAX_LISTED
    return f"{listed} and {more} more" if more > 0 else listed


def _matches(file: _ApiFile, query: Mapping[str, str]) -> bool:
    """Whether a file has the properties in a query; properties that the API doesn't report match any value."""
    if query.get("fileid") and query["fileid"] != file.id:
        return False
    return all(not query.get(key) or file.properties[key] in ("", query[key].lower()) for key in _FILTERS)


def _notices(url: str, chosen: _ApiFile, files: Sequence[_ApiFile], query: Mapping[str, str]) -> tuple[str, ...]:
    """A notice if the URL could also stand for another model file of the version."""
    others = [file for file in files if file.usable and file.may_be_model and _matches(file, query)]
    others = [file for file in others if file is not chosen]
    if not others:
        return ()
    return (
        f"{shown(url)} has several model files: the primary file {chosen.name} is used. The others: {_listed(others)}.",
    )


def _target(host: str, version_id: Any, chosen: _ApiFile, files: Sequence[_ApiFile]) -> str:
    """The URL that serves the chosen file, and no other file of the version."""
    target = chosen.url or f"{host}/api/download/models/{version_id}"
    is_shared = sum(file.url == chosen.url for file in files) > 1
    if (not chosen.url or is_shared) and chosen.id:
        separator = "&" if "?" in target else "?"
        target += f"{separator}fileId={chosen.id}"
    return target
