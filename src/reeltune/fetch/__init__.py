"""What is needed, what is here, and fetching the rest."""

from __future__ import annotations

from reeltune.fetch.download import pull
from reeltune.fetch.plan import Explanation, Item, explain

__all__ = ["Explanation", "Item", "explain", "pull"]
