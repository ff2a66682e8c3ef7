"""CivitAI's links: a model's page or a download address without a file name, resolved through its API.

https://civitai.com/models/1234?modelVersionId=5678
https://civitai.com/api/download/models/5678?type=Model&format=SafeTensor
-> GET /api/v1/model-versions/5678 -> files: name, hashes.SHA256, downloadUrl
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

from reeltune.errors import FetchError
from reeltune.net import CIVITAI, Session, civitai_endpoint, shown

_MAX_ANSWER = 4_000_000
_DOWNLOAD = re.compile(r"/api/download/models/(\d+)")
_PAGE = re.compile(r"/models/(\d+)")


@dataclass(frozen=True)
class Source:
    """Where a file really lies; `name` and `sha256` where the API tells them."""

    url: str
    name: str | None = None
    sha256: str | None = None


def is_civitai(url: str) -> bool:
    """Whether a URL is one that CivitAI's API resolves."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    hosts = {urlsplit(CIVITAI).netloc, f"www.{urlsplit(CIVITAI).netloc}", urlsplit(civitai_endpoint()).netloc}
    return parts.netloc in hosts and bool(_DOWNLOAD.match(parts.path) or _PAGE.match(parts.path))


def resolve(session: Session, url: str) -> Source:
    """The file a link means; any other site's link stands for itself. Raises FetchError."""
    if not is_civitai(url):
        return Source(url)
    version = _version(session, url)
    files = [row for row in version.get("files", []) if isinstance(row, dict)]
    safe = [row for row in files if str(row.get("name", "")).lower().endswith(".safetensors")]
    best = next((row for row in safe if row.get("primary")), safe[0] if safe else None)
    if best is None:
        names = ", ".join(str(row.get("name")) for row in files) or "none"
        raise FetchError(f"{shown(url)} offers no safetensors file (it has: {names}).", hint="Choose another version.")
    sha256 = str((best.get("hashes") or {}).get("SHA256", "")).lower()
    target = best.get("downloadUrl") or f"{civitai_endpoint()}/api/download/models/{version.get('id')}"
    return Source(
        _at_endpoint(str(target)), str(best["name"]), sha256 if re.fullmatch(r"[0-9a-f]{64}", sha256) else None
    )


def _version(session: Session, url: str) -> dict[str, Any]:
    parts = urlsplit(url)
    if found := _DOWNLOAD.match(parts.path):
        return _ask(session, f"/api/v1/model-versions/{found[1]}")
    chosen = parse_qs(parts.query).get("modelVersionId", [""])[0]
    if chosen.isdigit():
        return _ask(session, f"/api/v1/model-versions/{chosen}")
    page = _PAGE.match(parts.path)
    versions = _ask(session, f"/api/v1/models/{page[1] if page else ''}").get("modelVersions")
    if not isinstance(versions, list) or not versions or not isinstance(versions[0], dict):
        raise FetchError(f"{shown(url)} lists no versions.", hint="Copy the link of one version.")
    return versions[0]


def _ask(session: Session, path: str) -> dict[str, Any]:
    url, body = civitai_endpoint() + path, b""
    with session.get(url) as response:
        for chunk in response.iter_raw():
            body += chunk
            if len(body) > _MAX_ANSWER:
                break
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise FetchError(f"{shown(url)} gives no answer that can be read.", hint="Try again later.")
    return value


def _at_endpoint(url: str) -> str:
    return civitai_endpoint() + url.removeprefix(CIVITAI) if url.startswith(CIVITAI + "/") else url
