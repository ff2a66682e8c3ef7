"""URLs: the address that serves a file, the form that messages and files may hold, and which URLs mean one file."""

from __future__ import annotations

import os
import re
from urllib.parse import SplitResult, quote, unquote, urlsplit, urlunsplit

from reeltune.errors import Offline

HUB = "https://huggingface.co"
CIVITAI = "https://civitai.com"
_HUB_HOSTS = ("huggingface.co", "www.huggingface.co", "hf.co")
_CIVITAI_HOSTS = tuple(f"{prefix}civitai.{ending}" for ending in ("com", "red", "green") for prefix in ("", "www."))
_PORTS = {"http": 80, "https": 443}
_OFFLINE_VARIABLES = ("REELTUNE_OFFLINE", "HF_HUB_OFFLINE")
_TRUE = {"1", "true", "yes", "on"}
_HUB_PAGE = re.compile(r"^((?:/[^/]+){1,3}?)/(?:blob|raw)/")  # below the name of a repository
_SECRETS = {
    "token", "api_key", "apikey", "access_token", "key", "auth", "signature", "sig", "policy", "key-pair-id",
    "awsaccesskeyid", "googleaccessid",
}  # fmt: skip
_SECRET_STARTS = ("x-amz-", "x-goog-")


def _offline_variable() -> str:
    """The environment variable that forbids network use; empty where none does."""
    return next((name for name in _OFFLINE_VARIABLES if os.environ.get(name, "").strip().lower() in _TRUE), "")


def offline() -> bool:
    """Whether the user forbade network use."""
    return bool(_offline_variable())


def refuse_offline(message: str) -> None:
    """Raise Offline with a message while the network is switched off; the hint names the variable that is set."""
    if variable := _offline_variable():
        raise Offline(message, hint=f"Unset {variable} to allow downloads.")


def hub_endpoint() -> str:
    """Address of the Hub or of the mirror that stands in for it."""
    return (os.environ.get("HF_ENDPOINT") or HUB).rstrip("/")


def _civitai_override() -> str:
    return os.environ.get("CIVITAI_ENDPOINT", "").rstrip("/")


def origin(url: str) -> tuple[str, str, int | None]:
    """Scheme, host and port, for comparing. Raises ValueError for a text that is no URL."""
    parts = urlsplit(url)
    scheme = parts.scheme.lower()
    return scheme, (parts.hostname or "").rstrip("."), parts.port or _PORTS.get(scheme)


def is_hub(url: str) -> bool:
    """Whether a URL is served by the Hub or its mirror."""
    return _among(url, _HUB_HOSTS, hub_endpoint())


def is_civitai(url: str) -> bool:
    """Whether a URL is served by CivitAI, under any of its names, or by what stands in for it."""
    return _among(url, _CIVITAI_HOSTS, _civitai_override())


def _among(url: str, hosts: tuple[str, ...], endpoint: str) -> bool:
    try:
        scheme, host, port = origin(url)
        standing_in = bool(endpoint) and origin(endpoint) == (scheme, host, port)
    except ValueError:
        return False
    return standing_in or (host in hosts and scheme in _PORTS and port == _PORTS[scheme])


def normalise(url: str) -> str:
    """The URL that serves the file: Hub pages (`/blob/`, `/raw/`) become downloads, a mirror replaces its original.

    Raises ValueError for a text that is no URL.
    """
    parts = urlsplit(file_url(url))
    if _among(url, _HUB_HOSTS, ""):
        return _moved(parts, hub_endpoint())
    if _among(url, _CIVITAI_HOSTS, ""):
        return _moved(parts, _civitai_override() or f"https://{parts.hostname}")
    return file_url(url)


def file_url(url: str) -> str:
    """The URL of the file behind a page of the Hub: `/blob/` shows a page, and `/raw/` answers with a Git LFS pointer
    in place of a large file. Other URLs stay as they are.
    """
    if not is_hub(url):
        return url
    parts = urlsplit(url)
    return urlunsplit(parts._replace(path=_HUB_PAGE.sub(r"\1/resolve/", parts.path, count=1)))


def _moved(parts: SplitResult, endpoint: str) -> str:
    base = urlsplit(endpoint)
    return urlunsplit((base.scheme, base.netloc, base.path.rstrip("/") + parts.path, parts.query, ""))


def shown(url: str) -> str:
    """A URL fit for messages: without user, query or fragment, where tokens hide."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return _cut(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def without_secrets(url: str) -> str:
    """A URL fit for files: without user, password, fragment and the query's tokens; the rest as it is."""
    if "://" not in url:
        return url
    try:
        parts = urlsplit(url)
    except ValueError:
        return _cut(url)
    query = "&".join(field for field in parts.query.split("&") if not _secret(field.partition("=")[0].lower()))
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, query, ""))


def _cut(url: str) -> str:
    """What may be shown of a text that is no URL."""
    scheme, _, rest = re.split(r"[?#]", url, maxsplit=1)[0].partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"[:200]


def _secret(name: str) -> bool:
    return name in _SECRETS or name.startswith(_SECRET_STARTS)


def file_key(url: str) -> str:
    """The same text for all URLs that mean one file, for comparing: names of one host, `/blob/`, `?download=true`,
    tokens and the way characters are escaped don't count. A local path stands for itself.
    """
    if "://" not in url:
        return url
    try:
        parts = urlsplit(without_secrets(url))
        scheme, host, port = origin(url)
    except ValueError:
        return url
    path = quote(unquote(parts.path), safe="/")
    if _among(url, _HUB_HOSTS, ""):
        scheme, host, port = origin(HUB)
        path = _HUB_PAGE.sub(r"\1/resolve/", path, count=1)
    elif _among(url, _CIVITAI_HOSTS, ""):
        scheme, host, port = origin(CIVITAI)
    fields = sorted(field for field in parts.query.split("&") if field and not field.lower().startswith("download="))
    place = host if port == _PORTS.get(scheme) else f"{host}:{port}"
    return urlunsplit((scheme, place, path, "&".join(fields), ""))
