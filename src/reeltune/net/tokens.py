"""Tokens for the Hub and CivitAI: the user's preferences first, then the environment, each sent to its own host."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from reeltune.errors import FetchError, FileError
from reeltune.files import read_bytes
from reeltune.net.urls import hub_endpoint, is_civitai, is_hub, origin

_HUB_VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
_CIVITAI_VARIABLE = "CIVITAI_TOKEN"
_MAX_BYTES = 10_000


def hub_token() -> str | None:
    """The Hub's token from the environment, or from the login that `hf auth login` stores."""
    for name in _HUB_VARIABLES:
        token = os.environ.get(name, "").strip()
        if token:
            return token
    home = Path(os.environ.get("HF_HOME", Path.home() / ".cache" / "huggingface"))
    stored = Path(os.environ.get("HF_TOKEN_PATH", home / "token"))
    try:
        return read_bytes(stored, _MAX_BYTES).decode("utf-8").strip() or None
    except (FileError, UnicodeDecodeError):
        return None


def token_for(url: str, preferred: Mapping[str, str]) -> str | None:
    """The token to send with a request to a URL that `normalise` has returned.

    `preferred`: the tokens of the user's preferences by "hub" and "civitai". None for any other host, and for CivitAI
    without TLS. Raises FetchError for a token that a header can't hold.
    """
    is_secure = url.lower().startswith("https://")
    token: str | None = None
    if origin(url) == origin(hub_endpoint()):
        token = preferred.get("hub") or hub_token()
    elif is_civitai(url) and (is_secure or origin(url) == origin(os.environ.get("CIVITAI_ENDPOINT", ""))):
        token = preferred.get("civitai") or os.environ.get(_CIVITAI_VARIABLE, "").strip() or None
    if token and not (token.isascii() and token.isprintable() and " " not in token):
        raise FetchError("The token contains invalid characters.", hint=f"Correct {token_name(url)}.")
    return token


def token_name(url: str) -> str:
    """The environment variable of a host's token; empty for hosts without one."""
    if is_civitai(url):
        return _CIVITAI_VARIABLE
    return _HUB_VARIABLES[0] if is_hub(url) else ""
