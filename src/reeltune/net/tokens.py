"""Which token is sent where: given ones before those of the environment, each to its own host."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from reeltune.errors import FetchError, FileError
from reeltune.files import read_bytes
from reeltune.net.urls import hub_endpoint, is_civitai, is_hub, origin

_HUB_VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
_CIVITAI_VARIABLE = "CIVITAI_TOKEN"
_MOST_BYTES = 10_000


def hub_token() -> str | None:
    """The Hub's token from the environment or the stored login."""
    for name in _HUB_VARIABLES:
        if token := os.environ.get(name, "").strip():
            return token
    home = Path(os.environ.get("HF_HOME", Path.home() / ".cache" / "huggingface"))
    stored = Path(os.environ.get("HF_TOKEN_PATH", home / "token"))
    try:
        return read_bytes(stored, _MOST_BYTES).decode("utf-8").strip() or None
    except (FileError, UnicodeDecodeError):
        return None


def token_for(url: str, given: Mapping[str, str]) -> str | None:
    """The token for the host of an address as `normalise` returns it; None for any other host, and without TLS.

    `given`: tokens by "hub" and "civitai". Raises FetchError for a token that no request can carry.
    """
    secure = url.lower().startswith("https://")
    token: str | None = None
    if origin(url) == origin(hub_endpoint()):
        token = given.get("hub") or hub_token()
    elif is_civitai(url) and (secure or origin(url) == origin(os.environ.get("CIVITAI_ENDPOINT", ""))):
        token = given.get("civitai") or os.environ.get(_CIVITAI_VARIABLE, "").strip() or None
    if token and not (token.isascii() and token.isprintable() and " " not in token):
        raise FetchError("The token holds characters that no token has.", hint=f"Correct {token_name(url)}.")
    return token


def token_name(url: str) -> str:
    """What to set for a host's token; empty for hosts that take none of ours."""
    if is_civitai(url):
        return _CIVITAI_VARIABLE
    return _HUB_VARIABLES[0] if is_hub(url) else ""
