"""Downloads: all missing files of a plan are surveyed first, then transferred, resumed if interrupted, and verified."""

from __future__ import annotations

from reeltune.fetch.pulling import Scope, ask_sizes, plan_download, pull, pull_all, require, still_missing

__all__ = ["Scope", "ask_sizes", "plan_download", "pull", "pull_all", "require", "still_missing"]
