"""The command line. Importing it loads nothing heavy."""

from __future__ import annotations

from reeltune.cli.app import main

__all__ = ["main"]
