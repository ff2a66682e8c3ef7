"""The one way to the network: tokens, mirrors, redirects, the offline switch, and URLs as header sources.

The Hub's token (given, else `HF_TOKEN` or the stored login) is sent to the Hub only, CivitAI's (given, else
`CIVITAI_TOKEN`) to CivitAI only: httpx drops them on redirects to another host, and no message ever shows them.
`HF_ENDPOINT` names a mirror. `REELTUNE_OFFLINE=1` and `HF_HUB_OFFLINE=1` forbid all network use.
"""

from __future__ import annotations

from reeltune.net.session import STALL_SECONDS, Session, chunks, encoded, natural
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
    without_secrets,
)
from reeltune.net.waiting import within

__all__ = [
    "CIVITAI",
    "HEADER_SECONDS",
    "HUB",
    "STALL_SECONDS",
    "Session",
    "UrlSource",
    "chunks",
    "encoded",
    "file_key",
    "file_url",
    "hub_endpoint",
    "hub_token",
    "is_civitai",
    "natural",
    "normalise",
    "offline",
    "refuse_offline",
    "shown",
    "within",
    "without_secrets",
]
