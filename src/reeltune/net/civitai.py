"""CivitAI's URLs: a model's page or a download address without a file name, resolved through its API.

https://civitai.com/models/1234?modelVersionId=5678
https://civitai.com/api/download/models/5678?type=Model&format=SafeTensor&size=full&fp=fp16
https://civitai.com/api/download/models/5678?fileId=91011
-> GET /api/v1/model-versions/5678 -> files: id, name, type, metadata {format, size, fp}, primary, hashes.SHA256,
   downloadUrl

A version may hold several files. The query says which; without one the version's primary file is meant.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from reeltune.errors import FetchError, InvalidJSON
from reeltune.net import Session, is_civitai, shown
from reeltune.untrusted import parse_json

_MAX_ANSWER = 4_000_000
_DOWNLOAD = re.compile(r"/api/download/models/(\d{1,18})/?$")
_VERSION = re.compile(r"/model-versions/(\d{1,18})(?:/|$)")
_PAGE = re.compile(r"/models/(\d{1,18})(?:/|$)")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_FILTERS = ("type", "format", "size", "fp")
_LISTED = 12


@dataclass(frozen=True)
class Resolved:
    """Where a file really is; `name` and `sha256` where an API reports them. `notices`: what else could be meant."""

    url: str
    name: str | None = None
    sha256: str | None = None
    notices: tuple[str, ...] = ()


@dataclass(frozen=True)
class _File:
    """A file of a version, as the API describes it; `facts`: its type, format, size and fp in lower case."""

    id: str
    name: str
    primary: bool
    sha256: str | None
    url: str
    facts: Mapping[str, str]

    @property
    def usable(self) -> bool:
        """Whether it can be weights that are loaded here."""
        return self.name.lower().endswith(".safetensors")

    def __str__(self) -> str:
        details = ", ".join(self.facts[key] for key in _FILTERS if self.facts[key])
        return f"{self.name} (fileId={self.id or '?'}{', ' + details if details else ''})"


def resolve(session: Session, url: str) -> Resolved:
    """The file a URL means; a URL of any other site stands for itself. Raises FetchError, which lists the files of a
    version where none, or more than one, is meant.
    """
    found = _addressed(url)
    if found is None:
        return Resolved(url)
    host, version_id = found
    version = _version(session, host, url, version_id)
    raw = version.get("files")
    files = [file for row in (raw if isinstance(raw, list) else []) if (file := _file(row)) is not None]
    wanted = {key.lower(): value.strip() for key, value in parse_qsl(urlsplit(url).query)}
    chosen = _choose(url, files, wanted)
    target = _target(host, version.get("id", version_id), chosen, files)
    return Resolved(target, chosen.name, chosen.sha256, _others(url, chosen, files, wanted))


def _addressed(url: str) -> tuple[str, str] | None:
    """The host, and the version that is named or empty, of a URL that the API resolves; None for any other."""
    if not is_civitai(url):
        return None
    parts = urlsplit(url)
    host = f"{parts.scheme.lower()}://{parts.netloc.rpartition('@')[2].lower()}"
    if named := _DOWNLOAD.match(parts.path) or _VERSION.match(parts.path):
        return host, named[1]
    return (host, "") if _PAGE.match(parts.path) else None


def _version(session: Session, host: str, url: str, version_id: str) -> dict[str, Any]:
    parts = urlsplit(url)
    fields = {key.lower(): value for key, value in parse_qsl(parts.query)}
    chosen = version_id or fields.get("modelversionid", "")
    if re.fullmatch(r"[0-9]{1,18}", chosen):
        return _ask(session, f"{host}/api/v1/model-versions/{chosen}")
    page = _PAGE.match(parts.path)
    versions = _ask(session, f"{host}/api/v1/models/{page[1] if page else ''}").get("modelVersions")
    if not isinstance(versions, list) or not versions or not isinstance(versions[0], dict):
        raise FetchError(f"{shown(url)} lists no versions.", hint="Copy the URL of one version.")
    return versions[0]


def _ask(session: Session, url: str) -> dict[str, Any]:
    try:
        value = parse_json(session.read(url, _MAX_ANSWER), shown(url))
    except InvalidJSON:
        value = None
    if not isinstance(value, dict):
        raise FetchError(f"{shown(url)} gives no answer that can be read.", hint="Try again later.")
    return value


def _file(row: Any) -> _File | None:
    """One file of an answer; what isn't of the kind it should be counts as not reported."""
    if not isinstance(row, dict) or not isinstance(row.get("name"), str):
        return None
    metadata, hashes = _table(row.get("metadata")), _table(row.get("hashes"))
    sha256, url, id = str(hashes.get("SHA256", "")).lower(), row.get("downloadUrl"), row.get("id")
    facts = {key: _text(row.get("type") if key == "type" else metadata.get(key)).lower() for key in _FILTERS}
    if row["name"].lower().endswith(".safetensors"):
        facts["format"] = facts["format"] or "safetensor"
    return _File(
        id=str(id) if isinstance(id, int | str) and not isinstance(id, bool) else "",
        name=row["name"],
        primary=row.get("primary") is True,
        sha256=sha256 if _SHA256.fullmatch(sha256) else None,
        url=url if isinstance(url, str) and url.lower().startswith(("http://", "https://")) else "",
        facts=facts,
    )


def _table(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str:
    return value.strip() if isinstance(value, str) else ""


def _choose(url: str, files: Sequence[_File], wanted: Mapping[str, str]) -> _File:
    matching = [file for file in files if _matches(file, wanted)]
    usable = [file for file in matching if file.usable]
    asked = ", ".join(f"{key}={wanted[key.lower()]}" for key in ("fileId", *_FILTERS) if wanted.get(key.lower()))
    listed = "; ".join(str(file) for file in files[:_LISTED]) or "none"
    listed += f" and {len(files) - _LISTED} more" if len(files) > _LISTED else ""
    if not usable:
        what = "no safetensors file" + (f" for {asked}" if asked else "")
        message = f"{shown(url)} has {what}. Its files: {listed}."
        raise FetchError(message, hint="Choose one of them with ?fileId=… in the URL, or another version.")
    best = [file for file in usable if file.primary] or usable
    if len(best) > 1 and not asked:
        best = [file for file in usable if file.facts["type"] == "model"] or best
    if len(best) > 1:
        message = f"{shown(url)} has {len(best)} files" + (f" for {asked}" if asked else "") + f". Its files: {listed}."
        raise FetchError(message, hint="Choose one of them with ?fileId=… in the URL.")
    return best[0]


def _matches(file: _File, wanted: Mapping[str, str]) -> bool:
    """Whether a file can be the one that a query asks for; what the API doesn't report doesn't count."""
    if wanted.get("fileid") and wanted["fileid"] != file.id:
        return False
    return all(not wanted.get(key) or file.facts[key] in ("", wanted[key].lower()) for key in _FILTERS)


def _others(url: str, chosen: _File, files: Sequence[_File], wanted: Mapping[str, str]) -> tuple[str, ...]:
    """A notice where the URL could as well have meant another model file of the version."""
    others = [
        file for file in files
        if file is not chosen and file.usable and file.facts["type"] in ("", "model") and _matches(file, wanted)
    ]  # fmt: skip
    if not others:
        return ()
    listed = "; ".join(str(file) for file in others[:_LISTED])
    return (f"{shown(url)} means {chosen.name}, the version's primary file. It also has: {listed}.",)


def _target(host: str, version_id: Any, chosen: _File, files: Sequence[_File]) -> str:
    """The address that serves the chosen file and no other one of the version."""
    shared = sum(file.url == chosen.url for file in files) > 1
    target = chosen.url or f"{host}/api/download/models/{version_id}"
    if (not chosen.url or shared) and chosen.id:
        target += ("&" if "?" in target else "?") + f"fileId={chosen.id}"
    return target
