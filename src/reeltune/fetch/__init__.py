"""What is needed, what is here, and fetching the rest."""

from __future__ import annotations

from reeltune.fetch.plan import Explanation, Item, explain
from reeltune.fetch.pulling import Scope, ask_sizes, plan_download, pull, pull_all, require, still_missing

__all__ = [
    "Explanation",
    "Item",
    "Scope",
    "ask_sizes",
    "explain",
    "plan_download",
    "pull",
    "pull_all",
    "require",
    "still_missing",
]
