"""The HTTP client of all parts of reeltune: tokens, mirrors, redirects, offline mode, and headers of remote files.

The Hub's token (from the preferences, else `HF_TOKEN` or the stored login) is sent to the Hub only, CivitAI's (from the
preferences, else `CIVITAI_TOKEN`) to CivitAI only. httpx drops them on redirects to another host, and no message
shows them. `HF_ENDPOINT` sets a mirror of the Hub. `REELTUNE_OFFLINE=1` and `HF_HUB_OFFLINE=1` disable the network.
"""

from __future__ import annotations

from reeltune.net.session import STALL_SECONDS, Session, chunks, header_number, is_compressed
from reeltune.net.source import HEADER_SECONDS, UrlSource
from reeltune.net.tokens import hub_token
from reeltune.net.urls import (
    CIVITAI,
    HUB,
    file_key,
    file_url,
    hub_endpoint,
    is_civitai,
    normalise,
    offline,
    refuse_offline,
    shown,
    values_without_secrets,
    without_secrets,
)
from reeltune.net.waiting import run_within

__all__ = [
    "CIVITAI",
    "HEADER_SECONDS",
    "HUB",
    "STALL_SECONDS",
    "Session",
    "UrlSource",
    "chunks",
    "file_key",
    "file_url",
    "header_number",
    "hub_endpoint",
    "hub_token",
    "is_civitai",
    "is_compressed",
    "normalise",
    "offline",
    "refuse_offline",
    "run_within",
    "shown",
    "values_without_secrets",
    "without_secrets",
]
