"""Downloading: what a plan lacks, surveyed as a whole, then transferred, resumed and verified."""

from __future__ import annotations

from reeltune.fetch.pulling import Scope, ask_sizes, plan_download, pull, pull_all, require, still_missing

__all__ = ["Scope", "ask_sizes", "plan_download", "pull", "pull_all", "require", "still_missing"]
