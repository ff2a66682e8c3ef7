"""What is needed, what is here, and fetching the rest."""

from __future__ import annotations

from reeltune.fetch.plan import Explanation, Item, explain
from reeltune.fetch.pulling import plan_download, pull

__all__ = ["Explanation", "Item", "explain", "plan_download", "pull"]
