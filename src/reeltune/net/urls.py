"""URLs: downloadable forms, forms without secrets for messages and files, and a key to compare them."""

from __future__ import annotations

import os
import re
from typing import Any
from urllib.parse import SplitResult, quote, unquote, urlsplit, urlunsplit

from reeltune.errors import Offline

HUB = "https://huggingface.co"
CIVITAI = "https://civitai.com"
_HUB_HOSTS = ("huggingface.co", "www.huggingface.co", "hf.co")
_CIVITAI_HOSTS = tuple(f"{prefix}civitai.{domain}" for domain in ("com", "red", "green") for prefix in ("", "www."))
_PORTS = {"http": 80, "https": 443}
_OFFLINE_VARIABLES = ("REELTUNE_OFFLINE", "HF_HUB_OFFLINE")
_TRUE = {"1", "true", "yes", "on"}
_HUB_PAGE = re.compile(r"^((?:/[^/]+){1,3}?)/(?:blob|raw)/")  # after the name of a repository
_SECRET_FIELDS = {
    "token", "api_key", "apikey", "access_token", "key", "auth", "signature", "sig", "policy", "key-pair-id",
    "awsaccesskeyid", "googleaccessid",
}  # fmt: skip
_SECRET_PREFIXES = ("x-amz-", "x-goog-")


def _offline_variable() -> str:
    """The environment variable that disables the network; empty if none does."""
    return next((name for name in _OFFLINE_VARIABLES if os.environ.get(name, "").strip().lower() in _TRUE), "")


def offline() -> bool:
    """Whether the user has disabled the network."""
    return bool(_offline_variable())


def refuse_offline(message: str) -> None:
    """Raise Offline with a message if the user has disabled the network; the hint names the variable that is set."""
    variable = _offline_variable()
    if variable:
        raise Offline(message, hint=f"Unset {variable} to allow downloads.")


def hub_endpoint() -> str:
    """URL of the Hub, or of the mirror that replaces it."""
    return (os.environ.get("HF_ENDPOINT") or HUB).rstrip("/")


def _civitai_endpoint() -> str:
    return os.environ.get("CIVITAI_ENDPOINT", "").rstrip("/")


def origin(url: str) -> tuple[str, str, int | None]:
    """Scheme, host and port of a URL, for comparisons. Raises ValueError for an invalid URL."""
    parts = urlsplit(url)
    scheme = parts.scheme.lower()
    return scheme, (parts.hostname or "").rstrip("."), parts.port or _PORTS.get(scheme)


def is_hub(url: str) -> bool:
    """Whether a URL belongs to the Hub or its mirror."""
    return _has_host(url, _HUB_HOSTS, hub_endpoint())


def is_civitai(url: str) -> bool:
    """Whether a URL belongs to CivitAI, under any of its host names, or to the server that replaces it."""
    return _has_host(url, _CIVITAI_HOSTS, _civitai_endpoint())


def _has_host(url: str, hosts: tuple[str, ...], endpoint: str) -> bool:
    """Whether a URL has one of the hosts, or the origin of `endpoint`, which may be empty."""
    try:
        scheme, host, port = origin(url)
        if endpoint and origin(endpoint) == (scheme, host, port):
            return True
    except ValueError:
        return False
    return host in hosts and scheme in _PORTS and port == _PORTS[scheme]


def normalise(url: str) -> str:
    """The URL to download a file from: Hub pages (`/blob/`, `/raw/`) become download URLs, mirrors are applied.

    Raises ValueError for an invalid URL.
    """
    parts = urlsplit(file_url(url))
    if _has_host(url, _HUB_HOSTS, ""):
        return _with_endpoint(parts, hub_endpoint())
    if _has_host(url, _CIVITAI_HOSTS, ""):
        return _with_endpoint(parts, _civitai_endpoint() or f"https://{parts.hostname}")
    return file_url(url)


def file_url(url: str) -> str:
    """The download URL for a file's page on the Hub; other URLs are returned unchanged.

    `/blob/` is a page, and `/raw/` returns a Git LFS pointer instead of a large file.
    """
    if not is_hub(url):
        return url
    parts = urlsplit(url)
    return urlunsplit(parts._replace(path=_HUB_PAGE.sub(r"\1/resolve/", parts.path, count=1)))


def _with_endpoint(parts: SplitResult, endpoint: str) -> str:
    base = urlsplit(endpoint)
    return urlunsplit((base.scheme, base.netloc, base.path.rstrip("/") + parts.path, parts.query, ""))


def shown(url: str) -> str:
    """A URL for messages: without user, query and fragment, which may contain tokens."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return _shown_invalid(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def without_secrets(url: str) -> str:
    """A URL for files: without user, password, fragment and tokens in the query, otherwise unchanged."""
    if "://" not in url:
        return url
    try:
        parts = urlsplit(url)
    except ValueError:
        return _shown_invalid(url)
    query = "&".join(field for field in parts.query.split("&") if not _is_secret(field.partition("=")[0].lower()))
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, query, ""))


def values_without_secrets(value: Any) -> Any:
    """A JSON value with all its URLs as `without_secrets` returns them. A text with spaces is no URL."""
    if isinstance(value, dict):
        return {key: values_without_secrets(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [values_without_secrets(item) for item in value]
    return without_secrets(value) if isinstance(value, str) and " " not in value else value


def _shown_invalid(url: str) -> str:
    """An invalid URL for messages, without the parts that may contain tokens."""
    scheme, _, location = re.split(r"[?#]", url, maxsplit=1)[0].partition("://")
    return f"{scheme}://{location.rpartition('@')[2]}"[:200]


def _is_secret(name: str) -> bool:
    return name in _SECRET_FIELDS or name.startswith(_SECRET_PREFIXES)


def file_key(url: str) -> str:
    """A key that is equal for all URLs of the same file; a local path is its own key.

    Alternative host names, `/blob/`, `?download=true`, tokens and percent-encoding make no difference.
    """
    if "://" not in url:
        return url
    try:
        parts = urlsplit(without_secrets(url))
        scheme, host, port = origin(url)
    except ValueError:
        return url
    path = quote(unquote(parts.path), safe="/")
    if _has_host(url, _HUB_HOSTS, ""):
        scheme, host, port = origin(HUB)
        path = _HUB_PAGE.sub(r"\1/resolve/", path, count=1)
    elif _has_host(url, _CIVITAI_HOSTS, ""):
        scheme, host, port = origin(CIVITAI)
    fields = sorted(field for field in parts.query.split("&") if field and not field.lower().startswith("download="))
    netloc = host if port == _PORTS.get(scheme) else f"{host}:{port}"
    return urlunsplit((scheme, netloc, path, "&".join(fields), ""))
